"""What a customer is told of fixes, charges and plans."""

from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from app.ledger.errors import Permanent
from app.mail import messages, notices
from app.settings import get_settings
from tests.mail.test_mail_messages import LINK, _Html, _parts, _received

CHARGE = {"amount_cents": 1500, "repo": "acme/shop", "issue_number": 42}
PAGE = "https://pay.stripe.example/confirm/pi_1?client_secret=x"

SAMPLES: dict[str, dict[str, Any]] = {
    "last_free_fix": {"included": 5},
    "over_limit": {"repo": "acme/shop", "issue_number": 42, "included": 5},
    "usage_80": {"used": 48, "included": 60, "overage_cents": 800, "period_end": "2026-12-01T09:30:00Z"},
    "usage_100": {"used": 60, "included": 60, "overage_cents": 800, "period_end": "2026-12-01T09:30:00Z"},
    "charge_declined": CHARGE | {"reason": "insufficient_funds", "next_attempt_at": "2026-11-25T01:30:00+02:00"},
    "authentication_required": CHARGE | {"url": PAGE},
    "charge_uncollectible": CHARGE,
    "charge_written_off": CHARGE,
    "charge_succeeded": CHARGE,
    "refunded": CHARGE,
    "plan_changed": {"plan": "payg", "effective_at": "2026-11-22T21:00:00Z"},
    "plan_ends": {"plan_after": "trial", "ends_at": "2026-12-22T21:00:00Z"},
    "teams_declined": {"amount_cents": 49900},
    "teams_action_required": {"amount_cents": 49900, "url": PAGE},
    "subscription_past_due": {"amount_cents": 49900},
    "marketplace_plan": {"plan": "teams", "effective_at": "2026-11-22T21:00:00Z", "ends_own": True},
    "marketplace_usage": {"used": 48, "included": 60, "period_end": "2026-12-01T09:30:00Z"},
    "marketplace_over_limit": {
        "repo": "acme/shop",
        "issue_number": 42,
        "included": 60,
        "period_end": "2026-12-01T09:30:00Z",
    },
    "trial_ending": {"ends_at": "2026-12-22T21:00:00Z"},
    "invoice_action_required": {"amount_cents": 49900, "url": PAGE},
    "invoice_failed": {"amount_cents": 1600, "url": PAGE},
    "invoice_refunded": {"amount_cents": 10000, "number": "MWJIGDW8-0001"},
    "refund_failed": CHARGE,
    "invoice_refund_failed": {"amount_cents": 10000, "number": "MWJIGDW8-0001"},
    "invoice_disputed": {"amount_cents": 49900, "number": None, "reason": "fraudulent"},
    "dispute_opened": CHARGE | {"reason": "fraudulent"},
    "card_expiring": {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2027},
}

SAYS = {
    "last_free_fix": ["5 in all", "5 more", "$15.00 a deployed fix", "$499.00 a month", "$8.00"],
    "over_limit": ["acme/shop#42", "not charged", "Choose a plan"],
    "usage_80": ["48 of the 60", "1 December 2026, 09:30 UTC", "$8.00"],
    "usage_100": ["All 60", "1 December 2026, 09:30 UTC", "$8.00"],
    "charge_declined": ["$15.00", "acme/shop#42", "not enough funds", "24 November 2026, 23:30 UTC", "another card"],
    "authentication_required": ["$15.00", "acme/shop#42"],
    "charge_uncollectible": ["$15.00", "acme/shop#42", "past due", "another card"],
    "charge_written_off": ["$15.00", "acme/shop#42", "no longer ask"],
    "charge_succeeded": ["$15.00", "acme/shop#42", "paid"],
    "refunded": ["$15.00", "acme/shop#42", "back to your card"],
    "plan_changed": ["22 November 2026, 21:00 UTC", "pay as you go", "$15.00"],
    "plan_ends": ["22 December 2026, 21:00 UTC", "the trial"],
    "teams_declined": ["$499.00", "Nothing was charged", "choose Teams again"],
    "teams_action_required": ["$499.00", "Your bank wants you to confirm", "Nothing was charged"],
    "subscription_past_due": ["$499.00", "another card"],
    "marketplace_plan": ["22 November 2026, 21:00 UTC", "GitHub bills it", "billed twice", "credited"],
    "marketplace_usage": ["48 of the 60", "1 December 2026, 09:30 UTC", "nothing on top"],
    "marketplace_over_limit": ["acme/shop#42", "not charged", "1 December 2026, 09:30 UTC"],
    "trial_ending": [
        "22 December 2026, 21:00 UTC",
        "Then your card is charged",
        "$499.00 a month",
        "cancel before then",
    ],
    "invoice_action_required": ["$499.00", "Your bank wants you to confirm"],
    "invoice_failed": ["$16.00", "stays open", "another one"],
    "invoice_refunded": ["$100.00", "invoice MWJIGDW8-0001 for Teams", "back to your card"],
    "refund_failed": ["$15.00", "acme/shop#42", "returned it to us", "write to us"],
    "invoice_refund_failed": ["$100.00", "invoice MWJIGDW8-0001 for Teams", "returned it to us", "write to us"],
    "invoice_disputed": [
        "$499.00",
        "an invoice for Teams",
        "they did not make it",
        "ask the bank to take the dispute back",
    ],
    "dispute_opened": ["$15.00", "acme/shop#42", "they did not make it", "ask the bank to take the dispute back"],
    "card_expiring": ["visa ending in 4242", "the end of 08/2027", "another card"],
}


@pytest.fixture(autouse=True)
def _public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "base_url", "https://tallyhook.example")


def _notice(kind: str, **changes: Any) -> EmailMessage:
    told = notices.read(kind, SAMPLES[kind] | changes)
    return messages.notice(
        told,
        to="ada@example.com",
        name="Ada",
        account_url=LINK,
        ref=f"{kind}:7:x",
        date=datetime(2026, 11, 22, 21, 0, tzinfo=UTC),
    )


def _said(message: EmailMessage) -> tuple[str, str]:
    """What the reader of the text and the reader of the HTML see, each on one line."""
    text, html = _parts(message)
    return " ".join(text.split()), " ".join(_Html(html).text.split())


def test_every_kind_is_tried_here() -> None:
    assert set(SAMPLES) == set(SAYS) == set(notices.KINDS)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_notice_says_what_happened_what_it_costs_and_what_to_do(kind: str) -> None:
    for content in _said(_notice(kind)):
        for phrase in SAYS[kind]:
            assert phrase in content


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_notice_leads_to_the_one_page_where_something_can_be_done(kind: str) -> None:
    text, html = _parts(_notice(kind))
    wanted, other = (PAGE, LINK) if "url" in SAMPLES[kind] else (LINK, PAGE)
    assert wanted in text
    assert wanted in _Html(html).links
    assert other not in text + html


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_notice_is_short_and_fits_a_terminal(kind: str) -> None:
    text, _ = _parts(_notice(kind))
    lines = [line for line in text.splitlines() if "https://" not in line]
    assert max(map(len, lines)) < 78
    assert len(lines) < 30


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_repeated_notice_is_the_same_to_the_byte(kind: str) -> None:
    message = _received(_notice(kind))
    assert message["Message-ID"] == f"<{kind}.7.x@tallyhook.example>"
    assert message["Subject"].isascii()
    assert _notice(kind).as_bytes() == _notice(kind).as_bytes()


@pytest.mark.parametrize("kind", [kind for kind, values in SAMPLES.items() if "repo" in values])
def test_a_hostile_repository_is_one_line_of_text(kind: str) -> None:
    name = "a/<img src=x onerror=alert(1)>\r\n\r\nBcc: eve@evil\x00\u2028\u202egnp.{{ 7*7 }}\ud800"
    message = _notice(kind, repo=name)
    text, html = _parts(message)
    assert "img" not in _Html(html).tags
    assert not set("\x00\u2028\u202e") & set(text + html)
    for content in _said(message):
        assert "a/<img src=x onerror=alert(1)> Bcc: eve@evil gnp.{{ 7*7 }}" in content
    assert _received(message).keys() == _received(_notice(kind)).keys()
    assert len(_parts(_notice(kind, repo="a/" + "b" * 10_000))[0]) < 2000


@pytest.mark.parametrize("code", ["fraudulent", "stolen_card", "lost_card", "merchant_blacklist", "made_up", None])
def test_what_is_the_banks_secret_is_not_told(code: str | None) -> None:
    for content in _said(_notice("charge_declined", reason=code)):
        assert "the bank declined it, and can tell you why" in content
        assert code is None or code.split("_")[0] not in content


def test_after_a_hard_decline_only_another_card_helps() -> None:
    for content in _said(_notice("charge_declined", reason="expired_card", next_attempt_at=None)):
        assert "the card has expired" in content
        assert "Add another card" in content
        assert "try again" not in content


def test_who_has_no_card_is_asked_for_one() -> None:
    for content in _said(_notice("charge_declined", reason="no_payment_method")):
        assert "you have no card with us" in content
        assert "If you add a card, it is charged at once." in content


def test_a_trial_that_has_had_its_bonus_is_not_offered_it_again() -> None:
    for kind in ("last_free_fix", "over_limit"):
        assert "5 more" not in _said(_notice(kind, included=10))[0]


@pytest.mark.parametrize("reason", ["made_up", "", None])
def test_a_dispute_of_which_nothing_more_is_known_is_told_all_the_same(reason: str | None) -> None:
    for content in _said(_notice("dispute_opened", reason=reason)):
        assert "acme/shop#42" in content
        assert "They say" not in content
        assert "made_up" not in content


def test_a_subscription_whose_amount_is_unknown_is_past_due_all_the_same() -> None:
    assert "what Teams costs" in _said(_notice("subscription_past_due", amount_cents=None))[0]


@pytest.mark.parametrize("kind", ["invoice_action_required", "invoice_failed"])
def test_an_invoice_is_called_one_for_teams_unless_it_is_known_not_to_be(kind: str) -> None:
    for content in (*_said(_notice(kind)), *_said(_notice(kind, of_teams=True))):
        assert "invoice for Teams" in content
    for content in _said(_notice(kind, of_teams=False)):
        assert "of an invoice." in content
        assert "Teams" not in content


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("made_up", {}, "made_up"),
        ("refunded", {}, "amount_cents, issue_number, repo"),
        ("refunded", CHARGE | {"amount_cents": 15.5}, "amount_cents"),
        ("refunded", CHARGE | {"amount_cents": -1}, "amount_cents"),
        ("plan_changed", {"plan": "gold", "effective_at": "2026-11-22T21:00:00Z"}, "plan"),
        ("plan_changed", {"plan": "payg", "effective_at": "2026-11-22T21:00:00"}, "effective_at"),
        ("authentication_required", CHARGE | {"url": "javascript:alert(1)"}, "url"),
        ("authentication_required", CHARGE | {"url": 'https://x/" onclick="y'}, "url"),
        ("authentication_required", CHARGE | {"url": "https://x\n"}, "url"),
    ],
)
def test_a_wrong_call_is_refused_by_the_names_of_its_values(kind: str, values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Permanent) as refused:
        notices.read(kind, values)
    assert wrong in str(refused.value)
    assert "javascript" not in str(refused.value)
