"""Customers, through Stripe's own client."""

import pytest
import stripe

from app.sandbox.stripe import StripeSandbox
from tests.sandbox.conformance import OPENAPI, missing_fields


def test_a_customer_is_created_and_read_back(api, sandbox):
    created = api.customers.create(
        {
            "email": "Ada@example.com",
            "name": "Ada",
            "metadata": {"customer_id": "7", "0": "digits are a key too"},
            "address": {"city": "London", "country": "GB"},
        }
    )
    read = api.customers.retrieve(created.id)
    assert created.id.startswith("cus_")
    assert len(created.id) >= 18
    assert read.to_dict() == created.to_dict()
    assert read.email == "Ada@example.com"
    assert read.metadata.to_dict() == {"customer_id": "7", "0": "digits are a key too"}
    assert read.address.city == "London"
    assert read.livemode is False
    assert abs(read.created - sandbox.now()) < 5


def test_an_update_changes_what_it_names_and_clears_what_is_empty(api):
    customer = api.customers.create(
        {"name": "Ada", "description": "first", "metadata": {"a": "1", "b": "2"}, "phone": "1"}
    )
    updated = api.customers.update(
        customer.id,
        {
            "description": "",
            "metadata": {"a": "", "c": "3"},
            "invoice_settings": {"footer": "Thank you"},
        },
    )
    assert updated.description is None
    assert updated.metadata.to_dict() == {"b": "2", "c": "3"}
    assert updated.invoice_settings.footer == "Thank you"
    assert (updated.name, updated.phone) == ("Ada", "1")
    assert api.customers.update(customer.id, {"metadata": ""}).metadata.to_dict() == {}


def test_a_deleted_customer_leaves_a_stub(api):
    customer = api.customers.create({"email": "gone@example.com"})
    assert api.customers.delete(customer.id).deleted
    assert api.customers.retrieve(customer.id).deleted
    assert api.customers.list({"email": "gone@example.com"}).data == []
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.customers.update(customer.id, {"name": "again"})
    assert refused.value.code == "resource_missing"


def test_the_list_filters_by_exact_email_and_time_and_is_newest_first(api, sandbox):
    first = api.customers.create({"email": "a@example.com"})
    api.customers.create({"email": "b@example.com"})
    later = sandbox.advance(100)
    second = api.customers.create({"email": "a@example.com"})

    def found(**filters):
        return [customer.id for customer in api.customers.list(filters).data]

    assert found(email="a@example.com") == [second.id, first.id]
    assert found(email="A@example.com") == []
    assert found(email="a@example.com", created={"gte": later}) == [second.id]
    assert found(email="a@example.com", created={"lt": later}) == [first.id]


def test_pages_go_forward_and_back(api):
    made = [api.customers.create().id for _ in range(5)][::-1]
    first = api.customers.list({"limit": 2})
    assert [customer.id for customer in first.data] == made[:2]
    assert first.has_more
    second = api.customers.list({"limit": 3, "starting_after": made[1]})
    assert [customer.id for customer in second.data] == made[2:]
    assert not second.has_more
    back = api.customers.list({"limit": 2, "ending_before": made[3]})
    assert [customer.id for customer in back.data] == made[1:3]
    assert back.has_more
    assert [customer.id for customer in api.customers.list({"limit": 2}).auto_paging_iter()] == made


def test_search_finds_a_customer_only_after_its_lag(api, sandbox):
    customer = api.customers.create({"email": "late@example.com", "metadata": {"customer_id": "42"}})
    query = {"query": 'metadata["customer_id"]:"42" AND email:"late@example.com"'}
    assert api.customers.search(query).data == []
    sandbox.advance(61)
    assert [found.id for found in api.customers.search(query).data] == [customer.id]
    assert api.customers.search({"query": 'email~"LATE@"'}).data[0].id == customer.id
    assert api.customers.search({"query": '-email:"late@example.com"'}).data == []
    with pytest.raises(stripe.InvalidRequestError):
        api.customers.search({"query": "what?"})


def test_search_pages_by_token(api, sandbox):
    sandbox.change_settings(search_lag_s=0)
    for _ in range(5):
        api.customers.create({"name": "Page"})
    first = api.customers.search({"query": 'name:"Page"', "limit": 3})
    assert first.has_more
    second = api.customers.search({"query": 'name:"Page"', "limit": 3, "page": first.next_page})
    assert len({customer.id for customer in [*first.data, *second.data]}) == 5


def test_expanding_what_cannot_be_is_refused(api):
    customer = api.customers.create({"name": "Ada"})
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        api.customers.retrieve(customer.id, {"expand": ["name"]})
    assert api.customers.retrieve(customer.id, {"expand": ["default_source"]}).default_source is None


def test_live_and_test_mode_do_not_see_each_other(api, connect):
    live = connect("sk_live_123").v1
    customer = live.customers.create({"email": "live@example.com"})
    assert customer.livemode is True
    assert api.customers.list().data == []
    with pytest.raises(stripe.InvalidRequestError, match="similar object exists in live mode"):
        api.customers.retrieve(customer.id)


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's samples are absent: {OPENAPI.parent}")
def test_a_customer_has_every_field_of_stripes_sample(api):
    assert missing_fields(api.customers.create().to_dict(), "customer") == set()


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's description is absent: {OPENAPI}")
def test_the_check_against_stripes_description_sees_what_is_wrong():
    from app.sandbox.stripe.api import Exchange
    from tests.sandbox.conformance import Conformance

    check = Conformance()
    customer = {"id": "cus_1", "object": "customer", "created": "yesterday", "livemode": False, "paid": True}
    check(Exchange("POST /v1/customers", {"emial": "a@example.com"}, 200, customer))
    told = "\n".join(check.problems)
    assert "emial" in told
    assert "created" in told
    assert "paid" in told


def test_a_sandbox_needs_no_hook():
    with StripeSandbox() as sandbox:
        client = stripe.StripeClient("sk_test_1", base_addresses={"api": sandbox.url})
        assert client.v1.customers.create().object == "customer"
