"""Webhook endpoints. Their secret is told once, when they are made."""

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter
from app.sandbox.stripe.objects import Object, new_id, random_chars
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, List, ListParams, Metadata, Params, merged

operations: Operations[Object] = Operations()


class EndpointCreate(Params):
    api_version: str | None = None
    description: Clearable[str] = None
    enabled_events: List[str]
    metadata: Metadata
    url: str


class EndpointUpdate(Params):
    description: Clearable[str] = None
    disabled: bool = False
    enabled_events: List[str] = Field(default_factory=list)
    metadata: Metadata
    url: str | None = None


def make_endpoint(account: Account, url: str, enabled_events: list[str]) -> Object:
    """A new endpoint, with a secret of its own."""
    if not url.startswith(("http://", "https://")):
        raise InvalidParameter("Invalid URL: An explicit scheme (such as https) must be provided.", param="url")
    if not enabled_events:
        raise InvalidParameter("You must specify at least one event.", param="enabled_events")
    endpoint: Object = {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": account.now(),
        "description": None,
        "enabled_events": enabled_events,
        "livemode": account.livemode,
        "metadata": {},
        "status": "enabled",
        "url": url,
        "_secrets": [{"secret": f"whsec_{random_chars(32)}", "until": None}],
    }
    return account.add(endpoint)


def roll_secret(account: Account, endpoint_id: str, expires_in_s: float) -> str:
    """Gives an endpoint a new secret, and answers with it; the old one signs too until it expires."""
    endpoint = account.get("webhook_endpoint", endpoint_id)
    for held in endpoint["_secrets"]:
        if held["until"] is None:
            held["until"] = account.clock.time() + expires_in_s
    secret = f"whsec_{random_chars(32)}"
    endpoint["_secrets"].insert(0, {"secret": secret, "until": None})
    account.save(endpoint)
    return secret


@operations("POST /v1/webhook_endpoints", EndpointCreate)
def create(call: Call[EndpointCreate]) -> Object:
    account, params = call.account, call.params
    endpoint = make_endpoint(account, params.url, params.enabled_events)
    endpoint["api_version"] = params.api_version
    endpoint["description"] = params.description
    endpoint["metadata"] = merged({}, params.metadata)
    account.save(endpoint)
    return endpoint | {"secret": endpoint["_secrets"][0]["secret"]}


@operations("GET /v1/webhook_endpoints/{webhook_endpoint}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("webhook_endpoint", call.id)


@operations("POST /v1/webhook_endpoints/{webhook_endpoint}", EndpointUpdate)
def update(call: Call[EndpointUpdate]) -> Object:
    account, params = call.account, call.params
    endpoint = account.get("webhook_endpoint", call.id)
    params.apply_to(endpoint, "disabled")
    if "disabled" in params.model_fields_set:
        endpoint["status"] = "disabled" if params.disabled else "enabled"
    return account.save(endpoint)


@operations("DELETE /v1/webhook_endpoints/{webhook_endpoint}", Params)
def delete(call: Call[Params]) -> Object:
    return call.account.remove(call.account.get("webhook_endpoint", call.id))


@operations("GET /v1/webhook_endpoints", ListParams)
def list_all(call: Call[ListParams]) -> Object:
    return call.account.list("webhook_endpoint", "/v1/webhook_endpoints", call.params)
