"""Signed links to the account page: whoever opens one from their mailbox is that customer, for a week."""

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from app.settings import get_settings

LINK_DAYS = 7

_PURPOSE = "tallyhook.account-page"
"""The salt: a token signed with the same key for another purpose does not open the account page."""


class BadLink(Exception):
    """The link does not open the account page; the message tells its holder why."""


def _serializer() -> URLSafeTimedSerializer:
    # itsdangerous signs with the last key and accepts all; SECRET_KEYS begins with the one that signs.
    keys = [key.get_secret_value() for key in reversed(get_settings().secret_keys)]
    return URLSafeTimedSerializer(keys, salt=_PURPOSE)


def account_url(customer_id: int) -> str:
    """The address that opens the account page of this customer, for `LINK_DAYS` days from now."""
    return f"{get_settings().public_url}/account?token={_serializer().dumps(customer_id)}"


def open_account_token(token: str) -> int:
    """The customer whose account page `token` opens.

    Raises:
        BadLink: it is older than `LINK_DAYS` days, or not signed by any of SECRET_KEYS.
    """
    try:
        return int(_serializer().loads(token, max_age=LINK_DAYS * 86400))
    except SignatureExpired:
        raise BadLink(f"This link has expired: it worked for {LINK_DAYS} days.") from None
    except BadData:
        raise BadLink("This link is not valid.") from None
