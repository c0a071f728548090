"""Chapters of Teams: a month with sixty fixes, what each further one costs, and the renewal that bills it."""

from datetime import datetime

from sqlalchemy import func, update

from app.contracts.billing import SyncSubscription
from app.db import transaction
from app.ledger.states import State
from app.ledger.tables import jobs
from app.money import dollars
from app.ops.demo.account import Account
from app.ops.demo.stage import Stage
from app.ops.output import print_rows
from app.settings import get_settings

_FIRST, _LAST = 101, 161
"""The issues whose fixes are deployed under Teams: 61 of them."""


def go_over_sixty(stage: Stage, ada: Account) -> None:
    """Teams begins, and 61 fixes are deployed."""
    stage.chapter("Teams: a month, 60 fixes, and one more")
    ada.ask("subscription", {"plan": "teams"})
    invoice = ada.paid("invoice", 1)
    now = ada.status()
    stage.say(
        f'POST /api/v1/subscription {{"plan": "teams"}}: plan {now["plan"]}, {now["subscription_status"]}; '
        f"{invoice['description']}, {dollars(invoice['paid_cents'])} paid"
    )
    ada.deploy_until_counted(*range(_FIRST, _LAST + 1))
    now = ada.status()
    stage.must((now["current_usage"], now["overage"]) == (61, 1), f"usage {now['current_usage']}, not 61")
    stage.say(f"61 fixes, posted as the Action does: {now['current_usage']} used of {now['included']} included")
    stage.say(f"mails: “{stage.mail('usage_80')['subject']}”, “{stage.mail('usage_100')['subject']}”")
    item = stage.wait("the overage in Stripe", lambda: stage.stripe.objects("invoiceitem"))[0]
    stage.say(f"fix 61 is an item of the next invoice in Stripe: {dollars(item['amount'])}")


def repeat_everything(stage: Stage, ada: Account) -> None:
    """Each event once more: by the same request, and as a new one that says the same."""
    stage.chapter("Everything is sent once more")
    before = ada.fixes(), stage.charged(), _next_invoice(stage), len(ada.read("payment-methods")["payment_methods"])
    answer = ada.deploy(_LAST)
    stage.must(answer["duplicate"], "the repeated phase event was taken for a new one")
    stage.say("the phase event of fix 61: the first result answers, duplicate true")
    answer = ada.deploy(_LAST, at="2026-11-22T11:00:00Z", path="phases/store")
    stage.must(not answer["duplicate"], "another run's result was not kept")
    stage.wait("the repeated fix", lambda: (stage.job("track_fix") or {})["state"] == "succeeded")
    stage.say("the same fix from another run, by the Action's older route: kept as a result, and known as that fix")
    signup = stage.sign_up("ada@example.com", "Ada", "demo-1")
    stage.must(signup["duplicate"], "the repeated signup was taken for a new one")
    ada.ask("payment-methods", {"payment_method": "pm_card_mastercard"}, idempotency_key="card-2")
    stage.say("the signup and the payment method under their Idempotency-Keys: the first job of each answers")
    asked = stage.count("jobs", "name = 'attach_payment_method'")
    stage.must(asked == 1, f"{asked} jobs attach one card")
    after = ada.fixes(), stage.charged(), _next_invoice(stage), len(ada.read("payment-methods")["payment_methods"])
    stage.must(before == after, f"fixes, cents charged, cents to come and cards were {before} and are {after}")
    fixes, charged, to_come, cards = after
    stage.say(f"as before: {fixes} fixes, {cards} cards, {dollars(charged)} charged, {dollars(to_come)} to come")


def _next_invoice(stage: Stage) -> int:
    """Cents of overage that wait for the next invoice."""
    return sum(int(item["amount"]) for item in stage.stripe.objects("invoiceitem"))


def renew(stage: Stage, ada: Account) -> None:
    """A month passes at Stripe, which renews the subscription with the overage."""
    stage.chapter("The renewal: the next month and the overage, on one invoice")
    end = datetime.fromisoformat(ada.status()["period_end"])
    stage.stripe.advance_to(int(end.timestamp()) + 2 * 3600)
    stage.say(f"Stripe's clock is moved to two hours after the period's end on {end:%Y-%m-%d}")
    with transaction() as db:
        # Our own clock cannot be moved: the looks at the renewal, which wait for that day, are made due.
        waiting = (jobs.c.name == SyncSubscription.name) & (jobs.c.state == State.QUEUED)
        db.execute(update(jobs).where(waiting).values(run_at=func.clock_timestamp()))
    renewal = ada.paid("invoice", 2)
    month, item = get_settings().teams_month_cents, get_settings().teams_overage_cents
    stage.must(renewal["paid_cents"] == month + item, f"the renewal took {dollars(renewal['paid_cents'])}")
    stage.say(f"{renewal['description']}: {dollars(month)} + {dollars(item)} = {dollars(renewal['paid_cents'])} paid")
    stage.say("GET /api/v1/invoices:")
    columns = ("type", "description", "status", "amount")
    print_rows([bill | {"amount": dollars(bill["amount_cents"])} for bill in ada.read("invoices")], columns, "")
    billed = sum(bill["paid_cents"] for bill in ada.read("invoices"))
    stage.must(billed == stage.charged(), f"{dollars(billed)} are billed, Stripe has taken {dollars(stage.charged())}")
    stage.say(f"paid by these: {dollars(billed)}; taken by Stripe: [green]{dollars(stage.charged())}[/]")
