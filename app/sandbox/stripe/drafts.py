"""What an invoice says while it is a draft: for whom it is, its lines, and the totals that follow."""

from typing import Any

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.objects import Object, list_object, new_id
from app.sandbox.stripe.store import Null


def new_draft(account: Account, customer: Object, billing_reason: str, currency: str, **fields: Any) -> Object:
    """An invoice without lines; not kept by the store so far."""
    now = account.now(customer)
    invoice_id = new_id("in")
    draft: Object = {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Stripe sandbox",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": billing_reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": list_object(f"/v1/invoices/{invoice_id}/lines", []),
        "livemode": account.livemode,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": now,
        "period_start": now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer["test_clock"],
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
        "_clock": customer["_clock"],
    }
    return draft | fields


def set_lines(invoice: Object, lines: list[Object]) -> Object:
    """Gives a draft these lines, and the totals that follow."""
    invoice["lines"]["data"] = [line | {"invoice": invoice["id"]} for line in lines]
    total = sum(line["amount"] for line in lines)
    due = max(0, total + invoice["starting_balance"])
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
    }
    return invoice


def line_of_item(item: Object) -> Object:
    """An invoice item as a line."""
    details: Object = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None},
        "subscription": _subscription_of_item(item) if item["parent"] else None,
    }
    parent = {
        "type": "invoice_item_details",
        "invoice_item_details": details,
        "subscription_item_details": None,
    }
    return _line(item, parent, item["description"], item["amount"], item["quantity"], item["period"])


def line_of_plan(subscription: Object, item: Object, quantity: int, amount: int, period: Object) -> Object:
    """A subscription's item as a line, for one period of so many cents."""
    details: Object = {
        "invoice_item": None,
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": subscription["id"],
        "subscription_item": item["id"],
    }
    parent = {
        "type": "subscription_item_details",
        "invoice_item_details": None,
        "subscription_item_details": details,
    }
    price = item["price"]
    priced = {
        "currency": price["currency"],
        "livemode": price["livemode"],
        "metadata": subscription["metadata"],
        "pricing": price_details(price),
        "subscription": subscription["id"],
    }
    name = price["nickname"] or price["lookup_key"] or price["id"]
    return _line(priced, parent, f"{quantity} x {name}", amount, quantity, period)


def price_details(price: Object) -> Object:
    """The `pricing` of a line or an item at a price."""
    return {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def _line(
    source: Object, parent: Object, description: str | None, amount: int, quantity: int, period: Object
) -> Object:
    return {
        "id": new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": source["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": source["livemode"],
        "metadata": source["metadata"],
        "parent": parent,
        "period": period,
        "pretax_credit_amounts": [],
        "pricing": source["pricing"],
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": source.get("subscription"),
        "subtotal": amount,
        "taxes": [],
    }


def pending_items(account: Account, customer_id: str, currency: str, subscription_id: str | None) -> list[Object]:
    """What waits for an invoice of a customer, the oldest first. What was made for one subscription waits for
    an invoice of that one."""
    waiting = account.find("invoiceitem", customer=customer_id, invoice=Null(), currency=currency)[::-1]
    return [item for item in waiting if not item["parent"] or _subscription_of_item(item) == subscription_id]


def _subscription_of_item(item: Object) -> str:
    return str(item["parent"]["subscription_details"]["subscription"])


def take_items(account: Account, invoice: Object, items: list[Object]) -> list[Object]:
    """Puts pending items on a draft; answers with their lines."""
    for item in items:
        account.save(item | {"invoice": invoice["id"]})
    return [line_of_item(item) for item in items]


def subscription_of(invoice: Object) -> str | None:
    """The id of the subscription that an invoice bills, or None."""
    parent = invoice["parent"]
    return parent["subscription_details"]["subscription"] if parent else None
