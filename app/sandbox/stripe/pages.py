"""The pages that Stripe hosts: checkout, authentication, an invoice, the billing portal. Test cards alone."""

from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader

from app.sandbox.stripe import invoicing
from app.sandbox.stripe.cards import CARDS, Authentication, Card
from app.sandbox.stripe.errors import ApiError, InvalidParameter
from app.sandbox.stripe.messages import Request, Response
from app.sandbox.stripe.mishaps import answer_for_holder
from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Call, Operations, Router
from app.sandbox.stripe.params import Strict
from app.sandbox.stripe.resources import billing_portal, checkout
from app.sandbox.stripe.resources.payment_methods import make_method
from app.sandbox.stripe.world import World


class Form(Strict):
    """What the pages' forms send."""

    card: str = ""
    consents: str = ""


class Pages:
    """Answers what a browser asks for outside of the API."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._templates = Environment(loader=PackageLoader("app.sandbox.stripe"), autoescape=True)
        operations: Operations[Response] = Operations()
        for path, show, send in (
            ("/c/pay/{session}", self._show_checkout, self._send_checkout),
            ("/authenticate/{intent}", self._show_authentication, self._send_authentication),
            ("/invoice/{invoice}", self._show_invoice, self._send_invoice),
        ):
            operations(f"GET {path}", Form)(show)
            operations(f"POST {path}", Form)(send)
        operations("GET /p/session/{session}", Form)(self._show_portal)
        self._router: Router[Response] = Router([operations])

    def answer(self, request: Request) -> Response:
        match = self._router.match(request.method, request.path)
        if match is None:
            return self._message("No such page", request.path, 404)
        operation, ids = match
        fields = {name: values[0] for name, values in parse_qs(request.body).items()}
        account = self._world.account_of(ids[0])
        try:
            with self._world.store.transaction():
                return operation.run(Call(account, Form.model_validate(fields), ids))
        except ApiError as error:
            return self._message("This did not work", error.message, error.status)

    def _show_checkout(self, call: Call[Form], error: str | None = None) -> Response:
        session = call.account.get(checkout.KIND, call.id)
        if session["status"] != "open":
            return self._message("Checkout", f"This page is over: the session is {session['status']}.", 410)
        if session["mode"] == "setup":
            heading, action, details = "Add a payment method", "Save card", None
        else:
            heading, action, details = "Subscribe", "Subscribe", _money(session["amount_total"], session["currency"])
        return self._choose_card(heading, action, details, session["cancel_url"], error)

    def _send_checkout(self, call: Call[Form]) -> Response:
        card, consents = _card(call.params), call.params.consents
        if card.authentication is not Authentication.NEVER and not consents:
            return self._page("authenticate.html", details="It takes this card for you.", card=call.params.card)
        if consents == "no":
            return self._show_checkout(call, "We are unable to authenticate your payment method.")
        session = call.account.get(checkout.KIND, call.id)
        try:
            with self._world.store.transaction():
                done = checkout.complete(call.account, session, call.params.card)
        except ApiError as declined:
            if declined.status != 402:
                raise
            return self._show_checkout(call, declined.message)
        return _redirect(done["success_url"].replace("{CHECKOUT_SESSION_ID}", done["id"]))

    def _show_authentication(self, call: Call[Form]) -> Response:
        intent = _intent(call)
        if intent["status"] != "requires_action":
            return self._message("Authentication", f"Nothing is asked here: it is {intent['status']}.", 410)
        amount = intent.get("amount")
        details = _money(amount, intent["currency"]) if amount else "Your card is kept for later payments."
        return self._page("authenticate.html", details=details)

    def _send_authentication(self, call: Call[Form]) -> Response:
        action = _intent(call)["next_action"] or {}
        back = action.get("redirect_to_url", {}).get("return_url")
        intent = answer_for_holder(self._world, call.id, call.params.consents == "yes")
        succeeded = intent["status"] == "succeeded"
        if back:
            result = {
                intent["object"]: intent["id"],
                f"{intent['object']}_client_secret": intent["client_secret"],
                "redirect_status": "succeeded" if succeeded else "failed",
            }
            return _redirect(f"{back}{'&' if '?' in back else '?'}{urlencode(result)}")
        return self._message("Authentication", "It is done." if succeeded else "It failed.")

    def _show_invoice(self, call: Call[Form], error: str | None = None) -> Response:
        invoice = call.account.get("invoice", call.id)
        heading = f"Invoice {invoice['number']}"
        if invoice["status"] != "open":
            return self._message(heading, f"Nothing is to be paid here: it is {invoice['status']}.")
        return self._choose_card(heading, "Pay", _money(invoice["amount_due"], invoice["currency"]), None, error)

    def _send_invoice(self, call: Call[Form]) -> Response:
        account = call.account
        invoice = account.get("invoice", call.id)
        _card(call.params)
        method = make_method(account, call.params.card, account.now(invoice))
        try:
            invoicing.collect(account, invoice, method)
        except ApiError as declined:
            if declined.code == "invoice_payment_intent_requires_action":
                return _redirect(f"{account.base_url}/authenticate/{invoice['_intent']}")
            if declined.status != 402:
                raise
            return self._show_invoice(call, declined.message)
        return self._show_invoice(call)

    def _show_portal(self, call: Call[Form]) -> Response:
        account = call.account
        session = account.get(billing_portal.KIND, call.id)
        return self._page(
            "portal.html",
            customer=account.get("customer", session["customer"], "customer"),
            methods=account.find("payment_method", customer=session["customer"]),
            subscriptions=account.find("subscription", customer=session["customer"]),
            back=session["return_url"],
        )

    def _choose_card(
        self, heading: str, action: str, details: str | None, back: str | None, error: str | None
    ) -> Response:
        choices = [{"name": name, "number": card.number, "says": _says(card)} for name, card in CARDS.items()]
        page = {"heading": heading, "action": action, "details": details, "back": back, "error": error}
        return self._page("card.html", status=402 if error else 200, choices=choices, **page)

    def _message(self, heading: str, details: str, status: int = 200) -> Response:
        return self._page("message.html", status, heading=heading, details=details)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        body = self._templates.get_template(template).render(values)
        return Response(status, body.encode(), content_type="text/html; charset=utf-8")


def _redirect(url: str) -> Response:
    return Response(303, b"", {"Location": url}, "text/plain")


def _card(form: Form) -> Card:
    if form.card not in CARDS:
        raise InvalidParameter(f"There is no test card called {form.card!r}.", param="card")
    return CARDS[form.card]


def _intent(call: Call[Form]) -> Object:
    kind = "setup_intent" if call.id.startswith("seti_") else "payment_intent"
    return call.account.get(kind, call.id)


def _money(cents: int, currency: str) -> str:
    return f"{cents / 100:,.2f} {currency.upper()}"


def _says(card: Card) -> str:
    if card.authentication is not Authentication.NEVER:
        return "asks for authentication"
    if card.decline:
        return f"is declined: {card.decline.decline_code}" + (" (later)" if card.attaches else "")
    if card.refund_fails or card.disputed_as:
        return "pays; a refund fails later" if card.refund_fails else "pays; is disputed at once"
    return f"pays ({card.brand})"
