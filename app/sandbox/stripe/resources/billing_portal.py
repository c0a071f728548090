"""Billing portal sessions: a page that shows a customer their cards and subscriptions."""

from app.sandbox.stripe.objects import Object, new_id, random_chars
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Params
from app.sandbox.stripe.resources.customers import get_customer

operations: Operations[Object] = Operations()

KIND = "billing_portal.session"


class PortalCreate(Params):
    configuration: str | None = None
    customer: str
    locale: str | None = None
    return_url: str | None = None


@operations("POST /v1/billing_portal/sessions", PortalCreate)
def create(call: Call[PortalCreate]) -> Object:
    account, params = call.account, call.params
    customer = get_customer(account, params.customer)
    session_id = new_id("bps")
    session: Object = {
        "id": session_id,
        "object": KIND,
        "configuration": params.configuration or f"bpc_{random_chars(24)}",
        "created": account.now(customer),
        "customer": customer["id"],
        "customer_account": None,
        "flow": None,
        "livemode": account.livemode,
        "locale": params.locale,
        "on_behalf_of": None,
        "return_url": params.return_url,
        "url": f"{account.base_url}/p/session/{session_id}",
    }
    return account.add(session, "billing_portal.session.created")
