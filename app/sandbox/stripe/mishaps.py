"""What befalls an account from outside, under `/_sandbox`: cardholders dispute and authenticate, banks change
their mind about a card or cannot give a refund back."""

from typing import Any, Literal

from app.sandbox.stripe import cards, payments
from app.sandbox.stripe.errors import ApiError
from app.sandbox.stripe.objects import public
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Strict
from app.sandbox.stripe.resources import disputes, refunds, setup_intents
from app.sandbox.stripe.world import World


class Open(Strict):
    reason: disputes.Reason = "fraudulent"


class Close(Strict):
    outcome: Literal["won", "lost"]


class Answer(Strict):
    consents: bool = True


class Behaviour(Strict):
    card: str


class Nothing(Strict):
    pass


def mishaps(world: World) -> Operations[Any]:
    """The operations; each acts on the account in the mode of its object, in one transaction."""
    operations: Operations[Any] = Operations()

    @operations("POST /_sandbox/charges/{charge}/dispute", Open)
    def open_dispute(call: Call[Open]) -> Any:
        account = world.account_of(call.id)
        with world.store.transaction():
            charge = account.get("charge", call.id)
            return public(disputes.open_dispute(account, charge, call.params.reason))

    @operations("POST /_sandbox/disputes/{dispute}/close", Close)
    def close_dispute(call: Call[Close]) -> Any:
        account = world.account_of(call.id)
        with world.store.transaction():
            dispute = account.get("dispute", call.id)
            return public(disputes.close_dispute(account, dispute, call.params.outcome))

    @operations("POST /_sandbox/refunds/{refund}/fail", Nothing)
    def fail_refund(call: Call[Nothing]) -> Any:
        account = world.account_of(call.id)
        with world.store.transaction():
            return public(refunds.fail_refund(account, account.get("refund", call.id)))

    @operations("POST /_sandbox/payment_methods/{payment_method}/card", Behaviour)
    def change_card(call: Call[Behaviour]) -> Any:
        name = cards.by_test_id(f"pm_card_{call.params.card}")
        if name is None:
            raise ApiError(400, f"no test card is called {call.params.card}; there are {', '.join(cards.CARDS)}")
        account = world.account_of(call.id)
        with world.store.transaction():
            return public(account.save(account.get("payment_method", call.id) | {"_card": name}))

    @operations("POST /_sandbox/intents/{intent}/authenticate", Answer)
    def authenticate(call: Call[Answer]) -> Any:
        return public(answer_for_holder(world, call.id, call.params.consents))

    return operations


def answer_for_holder(world: World, intent_id: str, consents: bool) -> dict[str, Any]:
    """What a cardholder answers when a payment or setup intent asks. Answers with the intent, which may have
    been declined; raises `InvalidState` where nothing was asked."""
    account = world.account_of(intent_id)
    kind = "setup_intent" if intent_id.startswith("seti_") else "payment_intent"
    answer = setup_intents.answer_for_holder if kind == "setup_intent" else payments.answer_for_holder
    with world.store.transaction():
        try:
            return answer(account, account.get(kind, intent_id), consents)
        except ApiError as error:
            if not error.commits:
                raise
            return account.get(kind, intent_id)
