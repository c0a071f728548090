"""A mail's link opens its customer's account page for seven days, and nobody else's."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from itsdangerous import URLSafeSerializer
from pydantic import SecretStr

from app.mail.links import BadLink, account_url, open_account_token
from app.settings import get_settings

DAY = 86400


def _token(customer_id: int, age_s: float = 0) -> str:
    issued_at = datetime.now(UTC) - timedelta(seconds=age_s)
    return parse_qs(urlsplit(account_url(customer_id, issued_at)).query)["token"][0]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets SECRET_KEYS."""

    def set_keys(*keys: str) -> None:
        monkeypatch.setattr(get_settings(), "secret_keys", tuple(SecretStr(key) for key in keys))

    return set_keys


def test_the_link_opens_the_account_page_of_its_customer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "base_url", "https://tallyhook.example/")

    url = account_url(7, datetime.now(UTC))

    assert url.startswith("https://tallyhook.example/account?token=")
    assert open_account_token(_token(7)) == 7


def test_it_works_for_seven_days_and_then_says_that_it_has_expired() -> None:
    assert open_account_token(_token(7, 7 * DAY - 60)) == 7
    with pytest.raises(BadLink, match="has expired"):
        open_account_token(_token(7, 7 * DAY + 60))


def test_a_new_key_signs_and_the_old_one_still_opens(keys: Callable[..., None]) -> None:
    keys("old")
    before = _token(7)
    keys("new", "old")
    after = _token(7)
    assert open_account_token(before) == open_account_token(after) == 7

    keys("new")
    assert open_account_token(after) == 7
    with pytest.raises(BadLink, match="not valid"):
        open_account_token(before)


def test_every_changed_character_spoils_it() -> None:
    token = _token(7)
    for place, character in enumerate(token[:-1]):  # the last one carries two bits that are not read
        changed = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        with pytest.raises(BadLink):
            open_account_token(changed)


@pytest.mark.parametrize("token", ["", ".", "..", "Nw", "a.b.c", "é.è.ê", "\0", "." * 10_000, ".eJw.x.y"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadLink, match="not valid"):
        open_account_token(token)


def test_a_token_signed_for_another_purpose_does_not_open_the_page(keys: Callable[..., None]) -> None:
    keys("key")
    other = URLSafeSerializer("key", salt="unsubscribe").dumps([7, int(datetime.now(UTC).timestamp())])
    with pytest.raises(BadLink, match="not valid"):
        open_account_token(other)
