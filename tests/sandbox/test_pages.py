"""The pages that Stripe hosts, as a browser without scripts uses them."""

import http.client
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import stripe

from tests.sandbox.conformance import OPENAPI, missing_fields

BACK = "https://app.example.com"


class Page(HTMLParser):
    """What a page says, and the values that its form offers."""

    def __init__(self, status, location, text):
        super().__init__()
        self.status, self.location, self.text = status, location, text
        self.cards = []
        self.fields = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "input" and attributes["type"] == "radio":
            self.cards.append(attributes["value"])
        elif tag == "input":
            self.fields[attributes["name"]] = attributes["value"]


def browse(url, **form):
    """Opens a page, or sends its form."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("POST" if form else "GET", parts.path, urlencode(form))
    answer = connection.getresponse()
    page = Page(answer.status, answer.getheader("Location"), answer.read().decode())
    connection.close()
    return page


@pytest.fixture
def customer(api):
    return api.customers.create({"email": "ada@example.com", "name": "Ada"})


@pytest.fixture
def price(api):
    product = api.products.create({"name": "Teams"})
    return api.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 49900, "recurring": {"interval": "month"}}
    )


def setup_session(api, customer, **more):
    return api.checkout.sessions.create(
        {
            "mode": "setup",
            "currency": "usd",
            "customer": customer.id,
            "success_url": f"{BACK}/done?session={{CHECKOUT_SESSION_ID}}",
            "cancel_url": f"{BACK}/billing",
            "metadata": {"customer_id": "7"},
        }
        | more
    )


def teams_session(api, price, **more):
    return api.checkout.sessions.create(
        {
            "mode": "subscription",
            "line_items": [{"price": price.id, "quantity": 1}],
            "success_url": f"{BACK}/done",
            "subscription_data": {"metadata": {"customer_id": "7"}},
        }
        | more
    )


def types(sandbox):
    return [event["type"] for event in sandbox.objects("event")][::-1]


def test_a_customer_saves_a_card_at_checkout(api, customer, sandbox):
    session = setup_session(api, customer)
    assert (session.status, session.payment_status, session.livemode) == ("open", "no_payment_required", False)
    page = browse(session.url)
    assert "Add a payment method" in page.text
    assert "visa" in page.cards
    sent = browse(session.url, card="visa")
    assert (sent.status, sent.location) == (303, f"{BACK}/done?session={session.id}")
    done = api.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent.payment_method"]})
    assert (done.status, done.url) == ("complete", None)
    assert done.setup_intent.status == "succeeded"
    assert done.setup_intent.customer == customer.id
    assert done.setup_intent.payment_method.customer == customer.id
    assert types(sandbox)[-3:] == [
        "payment_method.attached",
        "setup_intent.succeeded",
        "checkout.session.completed",
    ]
    assert browse(session.url).status == 410


def test_a_declined_card_leaves_the_page_open(api, customer):
    session = setup_session(api, customer)
    declined = browse(session.url, card="chargeDeclinedInsufficientFunds")
    assert (declined.status, "insufficient funds" in declined.text) == (402, True)
    assert api.checkout.sessions.retrieve(session.id).status == "open"
    assert browse(session.url, card="visa").status == 303


def test_a_card_can_ask_its_holder_at_the_page(api, customer):
    session = setup_session(api, customer)
    asked = browse(session.url, card="authenticationRequired")
    assert asked.fields == {"card": "authenticationRequired"}
    assert "unable to authenticate" in browse(session.url, consents="no", **asked.fields).text
    assert browse(session.url, consents="yes", **asked.fields).status == 303


def test_a_customer_subscribes_at_checkout(api, customer, price, sandbox):
    session = teams_session(api, price, customer=customer.id)
    assert session.amount_total == 49900
    assert "499.00 USD" in browse(session.url).text
    assert browse(session.url, card="mastercard").location == f"{BACK}/done"
    done = api.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "invoice", "line_items"]})
    assert (done.payment_status, done.subscription.status, done.invoice.status) == ("paid", "active", "paid")
    assert done.subscription.metadata.to_dict() == {"customer_id": "7"}
    assert done.line_items.data[0].price.id == price.id
    assert types(sandbox)[-1] == "checkout.session.completed"
    assert [s.id for s in api.checkout.sessions.list({"subscription": done.subscription.id}).data] == [session.id]


def test_subscribing_with_a_card_that_asks(api, customer, price, sandbox):
    session = teams_session(api, price, customer=customer.id)
    asked = browse(session.url, card="authenticationRequired")
    assert browse(session.url, consents="yes", **asked.fields).status == 303
    subscription = api.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]}).subscription
    assert subscription.status == "active"
    with pytest.raises(stripe.CardError):
        api.payment_intents.create(
            {
                "amount": 1500,
                "currency": "usd",
                "customer": customer.id,
                "payment_method": subscription.default_payment_method,
                "confirm": True,
                "off_session": True,
            }
        )


def test_a_declined_card_starts_no_subscription(api, customer, price, sandbox):
    session = teams_session(api, price, customer=customer.id)
    assert browse(session.url, card="chargeCustomerFail").status == 402
    assert sandbox.objects("subscription") == []
    assert api.checkout.sessions.retrieve(session.id).status == "open"


def test_checkout_makes_the_customer_that_it_lacks(api, price):
    session = teams_session(api, price, customer_email="new@example.com")
    browse(session.url, card="visa")
    done = api.checkout.sessions.retrieve(session.id, {"expand": ["customer"]})
    assert done.customer.email == "new@example.com"


def test_a_session_expires_on_demand_and_by_itself(api, customer, sandbox):
    early, late = setup_session(api, customer), setup_session(api, customer)
    assert api.checkout.sessions.expire(early.id).status == "expired"
    sandbox.advance(24 * 3600 + 1)
    assert api.checkout.sessions.retrieve(late.id).status == "expired"
    assert types(sandbox).count("checkout.session.expired") == 2
    assert browse(early.url).status == 410
    with pytest.raises(stripe.InvalidRequestError):
        api.checkout.sessions.expire(early.id)


def test_setup_needs_a_currency(connect, customer):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        connect().v1.checkout.sessions.create({"mode": "setup", "customer": customer.id, "success_url": BACK})
    assert refused.value.param == "currency"


def test_authentication_completes_the_same_intent(api, customer, sandbox):
    intent = api.payment_intents.create({"amount": 1500, "currency": "usd", "customer": customer.id})
    asked = api.payment_intents.confirm(
        intent.id, {"payment_method": "pm_card_threeDSecure2Required", "return_url": f"{BACK}/paid?fix=1"}
    )
    url = asked.next_action.redirect_to_url.url
    assert "15.00 USD" in browse(url).text
    sent = browse(url, consents="yes")
    assert sent.status == 303
    assert sent.location.startswith(f"{BACK}/paid?fix=1&")
    assert parse_qs(urlsplit(sent.location).query)["redirect_status"] == ["succeeded"]
    assert api.payment_intents.retrieve(intent.id).status == "succeeded"
    assert browse(url).status == 410


def test_failing_authentication_sends_the_holder_back_as_well(api, customer):
    setup = api.setup_intents.create(
        {
            "customer": customer.id,
            "payment_method": "pm_card_authenticationRequired",
            "confirm": True,
            "return_url": BACK,
        }
    )
    sent = browse(setup.next_action.redirect_to_url.url, consents="no")
    assert parse_qs(urlsplit(sent.location).query)["redirect_status"] == ["failed"]
    failed = api.setup_intents.retrieve(setup.id)
    assert (failed.status, failed.last_setup_error.code) == (
        "requires_payment_method",
        "setup_intent_authentication_failure",
    )


def test_an_invoice_is_paid_at_its_page(api, customer):
    draft = api.invoices.create({"customer": customer.id})
    api.invoice_items.create({"customer": customer.id, "amount": 800, "currency": "usd", "invoice": draft.id})
    invoice = api.invoices.finalize_invoice(draft.id)
    assert "8.00 USD" in browse(invoice.hosted_invoice_url).text
    assert browse(invoice.hosted_invoice_url, card="chargeDeclined").status == 402
    sent = browse(invoice.hosted_invoice_url, card="authenticationRequired")
    assert sent.status == 303
    assert "It is done" in browse(sent.location, consents="yes").text
    assert api.invoices.retrieve(invoice.id).status == "paid"
    assert "paid" in browse(invoice.hosted_invoice_url).text


def test_the_portal_shows_cards_and_the_way_back(api, customer):
    api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    session = api.billing_portal.sessions.create({"customer": customer.id, "return_url": f"{BACK}/account"})
    text = browse(session.url).text
    assert "ending in 4242" in text
    assert f"{BACK}/account" in text


def test_what_a_customer_is_called_is_not_markup(api):
    customer = api.customers.create({"name": "<script>alert(1)</script>"})
    session = api.billing_portal.sessions.create({"customer": customer.id})
    assert "<script>" not in browse(session.url).text


def test_a_page_that_is_not_there_is_404(sandbox):
    assert browse(f"{sandbox.url}/nowhere").status == 404
    assert browse(f"{sandbox.url}/c/pay/cs_test_missing").status == 404


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's samples are absent: {OPENAPI.parent}")
def test_shapes_have_every_field_of_stripes_samples(api, customer):
    session = setup_session(api, customer)
    portal = api.billing_portal.sessions.create({"customer": customer.id})
    assert missing_fields(session.to_dict(), "checkout.session") == set()
    assert missing_fields(portal.to_dict(), "billing_portal.session") == set()
