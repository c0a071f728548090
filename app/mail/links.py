"""Signed links to the account page: whoever opens one from their mailbox is that customer, for a week."""

import time
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from app.settings import get_settings

LINK_DAYS = 7

_PURPOSE = "tallyhook.account-page"
"""The salt: a token signed with the same key for another purpose does not open the account page."""


class BadLink(Exception):
    """The link does not open the account page; the message tells its holder why."""


def _serializer() -> URLSafeSerializer:
    # itsdangerous signs with the last key and accepts all; SECRET_KEYS begins with the one that signs.
    keys = [key.get_secret_value() for key in reversed(get_settings().secret_keys)]
    return URLSafeSerializer(keys, salt=_PURPOSE)


def account_url(customer_id: int, issued_at: datetime) -> str:
    """The address that opens the account page of this customer, for `LINK_DAYS` days from `issued_at`.

    The same arguments make the same link, so that a mail that is sent again is the same to the byte
    (which a link with the time of its making, as itsdangerous' own timed serializer has it, is not).
    """
    return f"{get_settings().public_url}/account?token={_token(customer_id, issued_at)}"


def return_url(customer_id: int, issued_at: datetime) -> str:
    """Where a page of Stripe Checkout sends this customer when it is complete, with the page's own id put in by
    Stripe. Works as long as `account_url`."""
    token = _token(customer_id, issued_at)
    return f"{get_settings().public_url}/billing/return?session={{CHECKOUT_SESSION_ID}}&token={token}"


def _token(customer_id: int, issued_at: datetime) -> str:
    token = _serializer().dumps([customer_id, int(issued_at.timestamp())])
    return token if isinstance(token, str) else token.decode()


def open_account_token(token: str) -> int:
    """The customer whose account page `token` opens.

    Raises:
        BadLink: it is older than `LINK_DAYS` days, or not signed by any of SECRET_KEYS.
    """
    try:
        customer_id, issued_at = _serializer().loads(token)
    except BadData:
        raise BadLink("This link is not valid.") from None
    if time.time() > issued_at + LINK_DAYS * 86400:
        raise BadLink(f"This link has expired: it worked for {LINK_DAYS} days.")
    return int(customer_id)
