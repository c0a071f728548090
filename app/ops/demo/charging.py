"""Chapters of a trial and of payg: what is free, what each fix costs after that, and that it is taken once."""

from app.money import dollars
from app.ops.demo.account import REPO, Account, commit
from app.ops.demo.stage import Stage

_CONFIRM = "POST /v1/payment_intents/{intent}/confirm"


def scan_and_validate(stage: Stage, ada: Account) -> None:
    """The phases that cost nothing."""
    stage.chapter("The Action scans, validates, and reads back")
    ada.phase("scan", None, {"vulnerabilities": [{"type": "sql_injection", "file": "orders.py", "line": 7}]})
    ada.phase("validation", 1, {"validated": True, "testFile": "test_orders.py"})
    known = ada.read(f"phases/retrieve?repo={REPO}&issue=1&commit={commit(1)}")
    stage.must(known["validation"]["1"]["validated"] is True, "the validation cannot be read back")
    stage.must(ada.fixes() == 0, "a phase that is no deployed fix was counted")
    stage.say("POST /api/v1/phase-data: a scan and a validation; GET /api/v1/phases/retrieve has them; nothing counted")


def use_the_trial(stage: Stage, ada: Account) -> None:
    """Five, a card, five more, and one too many."""
    stage.chapter("A trial: five free fixes, a card, five more, and the limit")
    ada.deploy_until_counted(*range(1, 6))
    _tell_standing(stage, ada, "fixes 1 to 5")
    stage.say(f"mail: “{stage.mail('last_free_fix')['subject']}”")
    page = ada.ask("checkout", {"purpose": "payment_method"})
    ada.give_card_at(page["url"], "visa")
    [card] = stage.wait("the card", lambda: ada.read("payment-methods")["payment_methods"])
    stage.say(f"POST /api/v1/checkout, its page filled in at Stripe: {card['brand']} …{card['last4']} is the default")
    ada.deploy_until_counted(*range(6, 11))
    _tell_standing(stage, ada, "fixes 6 to 10")
    ada.deploy_until_counted(11)
    over = ada.read("usage")["totals"]["over_limit"]
    stage.must(over == 1, f"{over} fixes were over the limit, not 1")
    stage.say(f"fix 11: over_limit, {dollars(0)}; mail: “{stage.mail('over_limit')['subject']}”")


def _tell_standing(stage: Stage, ada: Account, after: str) -> None:
    now = ada.status()
    used, included = now["current_usage"], now["included"]
    stage.must(used == included and not now["can_use_service"], f"{used} of {included} are used after {after}")
    stage.say(f"{after}: {used} of {included} used, can_use_service false, charged {dollars(stage.charged())}")


def pay_for_each_fix(stage: Stage, ada: Account) -> None:
    """The customer's choice of payg, and the first charge."""
    stage.chapter("Payg: each fix is charged at once")
    ada.ask("subscription", {"plan": "payg"})
    stage.must(ada.status()["can_use_service"], "payg with a card may not be used")
    stage.say(f'POST /api/v1/subscription {{"plan": "payg"}}: plan {ada.status()["plan"]}, can_use_service true')
    ada.deploy(12)
    charge = ada.paid("charge", 1)
    stage.say(f"fix 12: {charge['id']}, {dollars(charge['amount_cents'])} {charge['status']}")
    _tell_taken(stage, charges=1)


def kill_a_worker_in_mid_charge(stage: Stage, ada: Account) -> None:
    """Stripe has been asked to confirm, and nobody is left to hear its answer."""
    stage.chapter("A worker is killed in the middle of a charge")
    stage.stripe.fault("delay", operation=_CONFIRM, ms=15_000)
    ada.deploy(13)
    stage.wait("Stripe to be asked for the money", lambda: not stage.stripe.faults())
    job = stage.wait("the charge", lambda: stage.job("charge_fix", "running"))
    stage.say("fix 13: the payment intent is made and being confirmed; Stripe is slow to answer")
    stage.kill_the_worker_of(job)
    stage.stripe.clear_faults()
    ada.paid("charge", 2)
    sent = len(stage.stripe.requests(_CONFIRM))
    stage.must(sent == 2, f"Stripe was asked {sent} times to confirm two charges")
    stage.say("the second attempt looked at the intent before it sent anything: it had been paid")
    _tell_taken(stage, charges=2)


def decline_and_recover(stage: Stage, ada: Account) -> None:
    """The card on file begins to fail; the next one pays at once."""
    stage.chapter("The card is declined, and a new one pays")
    [card] = ada.read("payment-methods")["payment_methods"]
    stage.stripe.change_card(card["id"], "chargeDeclinedInsufficientFunds")
    ada.deploy(14)
    declined = stage.wait("the decline", lambda: ada.bills("charge", "declined"))[0]
    stage.say(f"fix 14: {declined['id']} {declined['status']}; mail: “{stage.mail('charge_declined')['subject']}”")
    new = ada.ask("payment-methods", {"payment_method": "pm_card_mastercard"}, idempotency_key="card-2")
    ada.paid("charge", 3)
    stage.say(f"POST /api/v1/payment-methods: {new['brand']} …{new['last4']} is charged for it at once")
    stage.say(f"mail: “{stage.mail('charge_succeeded')['subject']}”")
    _tell_taken(stage, charges=3)


def switch_billing_off_and_on(stage: Stage, ada: Account) -> None:
    """A charge is held by the kill switch, and taken once when it is released."""
    stage.chapter("The kill switch: BILLING_ENABLED=false")
    stage.system.restart_behind(BILLING_ENABLED="false")
    ada.deploy_until_counted(15)
    stage.wait("the charge to be held", lambda: stage.job("charge_fix", "held"))
    stage.say("fix 15: accepted and counted; its charge_fix is held")
    _tell_taken(stage, charges=3)
    stage.system.restart_behind()
    ada.paid("charge", 4)
    stage.say("BILLING_ENABLED=true: it is released")
    _tell_taken(stage, charges=4)


def _tell_taken(stage: Stage, *, charges: int) -> None:
    """So many charges were taken in Stripe, each by an intent of its own, and no more."""
    paid = [intent for intent in stage.stripe.objects("payment_intent") if intent["amount_received"]]
    stage.must(len(paid) == charges, f"Stripe has taken {len(paid)} charges, not {charges}")
    stage.say(f"in Stripe: [green]{charges} charged[/], {dollars(stage.charged())} in all")
