"""Setup intents: a card is tried, authenticated where it wants to be, and kept for later payments."""

from typing import Literal

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.cards import Decline, Verdict, authorize_setup
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, new_id, public, random_chars
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, DatedListParams, Metadata, Params, merged
from app.sandbox.stripe.resources.customers import get_customer
from app.sandbox.stripe.resources.payment_intents import AutomaticMethods, CardOnly
from app.sandbox.stripe.resources.payment_methods import attach_to, refuse_spent, resolve

operations: Operations[Object] = Operations()

_CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")

Usage = Literal["off_session", "on_session"]


class SetupCreate(Params):
    customer: str | None = None
    payment_method: str | None = None
    payment_method_types: CardOnly = Field(default_factory=list)
    automatic_payment_methods: AutomaticMethods | None = None
    confirm: bool = False
    description: Clearable[str] = None
    metadata: Metadata
    return_url: str | None = None
    usage: Usage = "off_session"


class SetupUpdate(Params):
    customer: str | None = None
    description: Clearable[str] = None
    metadata: Metadata
    payment_method: str | None = None


class SetupConfirm(Params):
    payment_method: str | None = None
    return_url: str | None = None


class SetupCancel(Params):
    cancellation_reason: Literal["abandoned", "duplicate", "requested_by_customer"] | None = None


class SetupRetrieve(Params):
    client_secret: str | None = None


class SetupList(DatedListParams):
    customer: str | None = None
    payment_method: str | None = None


def new_setup(account: Account, customer: Object | None, usage: str = "off_session") -> Object:
    """A setup intent that nobody has confirmed yet; not kept by the store so far."""
    setup_id = new_id("seti")
    return {
        "id": setup_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": None,
        "cancellation_reason": None,
        "client_secret": f"{setup_id}_secret_{random_chars(25)}",
        "created": account.now(customer),
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": account.livemode,
        "managed_payments": None,
        "mandate": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
        },
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": usage,
        "_clock": customer["_clock"] if customer else None,
    }


def try_setup(
    account: Account, setup: Object, method: Object, return_url: str | None = None, authenticated: bool = False
) -> Object:
    """Tries a payment method. Answers with the setup intent, succeeded or waiting for the holder; raises the
    402 of a decline."""
    refuse_spent(method)
    verdict = authorize_setup(method, account.now(setup), authenticated)
    if isinstance(verdict, Decline):
        _decline(account, setup, method, verdict)
    if verdict is Verdict.AUTHENTICATE:
        url = f"{account.base_url}/authenticate/{setup['id']}"
        setup |= {
            "next_action": {
                "type": "redirect_to_url",
                "redirect_to_url": {"url": url, "return_url": return_url},
            },
            "payment_method": method["id"],
            "status": "requires_action",
        }
        return account.save(setup, "setup_intent.requires_action")
    if setup["customer"]:
        attach_to(account, method, get_customer(account, setup["customer"]))
    method["_set_up"] = True
    account.save(method)
    setup |= {
        "last_setup_error": None,
        "next_action": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    return account.save(setup, "setup_intent.succeeded")


def answer_for_holder(account: Account, setup: Object, consents: bool) -> Object:
    """What the holder of the card said when asked to authenticate. Raises as `try_setup` does, and
    `InvalidState` where nobody was asked."""
    if setup["status"] != "requires_action":
        raise _unexpected_state(setup, "authenticate")
    method = account.get("payment_method", setup["payment_method"])
    if consents:
        return try_setup(account, setup, method, authenticated=True)
    refusal = Decline(
        "setup_intent_authentication_failure",
        "authentication_failure",
        "The provided PaymentMethod has failed authentication.",
    )
    _decline(account, setup, method, refusal)
    return setup


def _decline(account: Account, setup: Object, method: Object, decline: Decline) -> None:
    error = decline.error({"payment_method": public(method)})
    setup |= {
        "last_setup_error": error.details(),
        "next_action": None,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    account.save(setup, "setup_intent.setup_failed")
    error.extra["setup_intent"] = public(setup)
    raise error


def _unexpected_state(setup: Object, wish: str) -> InvalidState:
    return InvalidState(
        f"You cannot {wish} this SetupIntent because it has a status of {setup['status']}.",
        code="setup_intent_unexpected_state",
        extra={"setup_intent": public(setup)},
    )


@operations("POST /v1/setup_intents", SetupCreate)
def create(call: Call[SetupCreate]) -> Object:
    account, params = call.account, call.params
    customer = get_customer(account, params.customer) if params.customer else None
    setup = new_setup(account, customer, params.usage)
    setup |= {"description": params.description, "metadata": merged({}, params.metadata)}
    if params.automatic_payment_methods:
        setup["automatic_payment_methods"] = params.automatic_payment_methods.model_dump()
    method = resolve(account, params.payment_method, account.now(setup)) if params.payment_method else None
    if method:
        setup |= {"payment_method": method["id"], "status": "requires_confirmation"}
    account.add(setup, "setup_intent.created")
    return _confirm(account, setup, method, params.return_url) if params.confirm else setup


@operations("GET /v1/setup_intents/{intent}", SetupRetrieve)
def retrieve(call: Call[SetupRetrieve]) -> Object:
    return call.account.get("setup_intent", call.id)


@operations("POST /v1/setup_intents/{intent}", SetupUpdate)
def update(call: Call[SetupUpdate]) -> Object:
    account, params = call.account, call.params
    setup = params.apply_to(account.get("setup_intent", call.id), "payment_method")
    if params.payment_method:
        method = resolve(account, params.payment_method, account.now(setup))
        setup |= {"payment_method": method["id"], "status": "requires_confirmation"}
    return account.save(setup)


@operations("POST /v1/setup_intents/{intent}/confirm", SetupConfirm)
def confirm(call: Call[SetupConfirm]) -> Object:
    account, params = call.account, call.params
    setup = account.get("setup_intent", call.id)
    if setup["status"] not in _CONFIRMABLE:
        raise _unexpected_state(setup, "confirm")
    chosen = params.payment_method or setup["payment_method"]
    method = resolve(account, chosen, account.now(setup)) if chosen else None
    return _confirm(account, setup, method, params.return_url)


@operations("POST /v1/setup_intents/{intent}/cancel", SetupCancel)
def cancel(call: Call[SetupCancel]) -> Object:
    setup = call.account.get("setup_intent", call.id)
    if setup["status"] not in _CONFIRMABLE:
        raise _unexpected_state(setup, "cancel")
    setup |= {
        "status": "canceled",
        "cancellation_reason": call.params.cancellation_reason,
        "next_action": None,
    }
    return call.account.save(setup, "setup_intent.canceled")


@operations("GET /v1/setup_intents", SetupList)
def list_all(call: Call[SetupList]) -> Object:
    filters = {"customer": call.params.customer, "payment_method": call.params.payment_method}
    return call.account.list("setup_intent", "/v1/setup_intents", call.params, **filters)


def _confirm(account: Account, setup: Object, method: Object | None, return_url: str | None) -> Object:
    if method is None:
        raise InvalidState(
            "You cannot confirm this SetupIntent because it's missing a payment method.",
            code="setup_intent_unexpected_state",
        )
    return try_setup(account, setup, method, return_url)
