"""What a customer finds in the mailbox, and what a stranger cannot make us write there."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.ledger.errors import Permanent
from app.mail.messages import sign_in, welcome
from app.settings import SettingsError, get_settings

KEY = "rsolv_" + "k-_3" * 10 + "abc"
LINK = "https://tallyhook.example/account?token=Nw.aBcDeF.0123456789abcdefghijklmnop_"
BCC = "=?utf-8?q?a=0D=0ABcc=3A_eve=40evil?="
"""An encoded word with a header of its own in it."""


@pytest.fixture(autouse=True)
def _public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "base_url", "https://tallyhook.example")
    monkeypatch.setattr(get_settings(), "mail_from", "Tallyhook <hello@tallyhook.example>")


def _welcome(**changes: Any) -> EmailMessage:
    given = {"to": "ada@example.com", "name": "Ada Lovelace", "api_key": KEY, "account_url": LINK}
    return welcome(**given | {"trial_fixes": 5, "ref": "welcome:7"} | changes)


def _sign_in(**changes: Any) -> EmailMessage:
    given = {"to": "ada@example.com", "name": "Ada Lovelace", "account_url": LINK, "ref": "sign-in:9"}
    return sign_in(**given | changes)


def _received(message: EmailMessage) -> EmailMessage:
    """The message as a mail program reads it from the wire."""
    parsed = message_from_bytes(message.as_bytes(), policy=SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def _parts(message: EmailMessage) -> tuple[str, str]:
    """The text and the HTML of the message, as received."""
    received = _received(message)
    assert [part.get_content_type() for part in received.iter_parts()] == ["text/plain", "text/html"]
    text, html = (part.get_content() for part in received.iter_parts())
    return text, html


class _Html(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_welcome_mail_has_the_key_its_use_and_the_link_in_both_parts() -> None:
    text, html = _parts(_welcome())
    page = _Html(html)

    for content in (text, page.text):
        assert content.count(KEY) == 1
        assert "Hello Ada Lovelace," in content
        assert "The first 5 deployed fixes are free" in content
        assert "X-API-Key" in content
        assert "rsolvApiKey: ${{ secrets.RSOLV_API_KEY }}" in content
        assert "api_url: https://tallyhook.example" in content
    assert LINK in text
    assert LINK in page.links


@pytest.mark.parametrize(("fixes", "sentence"), [(1, "The first deployed fix is free."), (0, None)])
def test_the_trial_is_described_as_it_is(fixes: int, sentence: str | None) -> None:
    for content in _parts(_welcome(trial_fixes=fixes)):
        assert (sentence in content) if sentence else ("free" not in content)


def test_a_second_signup_gets_a_link_and_no_key() -> None:
    message = _sign_in()
    text, html = _parts(message)

    assert "already" in text
    assert "already" in html
    assert LINK in text
    assert LINK in _Html(html).links
    assert b"rsolv_" not in message.as_bytes()


def test_the_headers_say_who_writes_to_whom_about_what() -> None:
    message = _received(_welcome(date=datetime(2026, 3, 1, 12, 30, tzinfo=UTC)))

    assert message["From"] == "Tallyhook <hello@tallyhook.example>"
    assert message["To"] == "Ada Lovelace <ada@example.com>"
    assert message["Subject"] == "Your Tallyhook API key"
    assert message["Message-ID"] == "<welcome.7@tallyhook.example>"
    assert message["Date"] == "Sun, 01 Mar 2026 12:30:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("make", [_welcome, _sign_in])
@pytest.mark.parametrize("name", ["Ada", "Zoë", "李雷"])
def test_the_same_arguments_make_the_same_bytes(make: Any, name: str) -> None:
    assert make(name=name).as_bytes() == make(name=name).as_bytes()
    assert make(name=name, ref="a:1")["Message-ID"] != make(name=name, ref="a:2")["Message-ID"]


@pytest.mark.parametrize("make", [_welcome, _sign_in])
def test_the_text_fits_a_terminal(make: Any) -> None:
    text, _ = _parts(make(name="N" * 200))
    assert max(len(line) for line in text.splitlines() if LINK not in line) < 78


@pytest.mark.parametrize("make", [_welcome, _sign_in])
def test_the_html_needs_no_images_and_forces_no_ground_on_a_dark_mode(make: Any) -> None:
    _, html = _parts(make())
    page = _Html(html)

    assert not {"img", "script", "style", "link", "iframe"} & set(page.tags)
    assert '<html lang="en">' in html
    assert 'content="light dark"' in html
    assert html.count("background") == html.count("color: #ffffff") == 1  # the button sets both


def test_names_of_all_scripts_arrive() -> None:
    for name in ["Zoë Ångström", "李雷", "Наталья Петровна", "हिन्दी", "O'Brien-Smith", "J. R. Hartley", "Acme, Inc"]:
        message = _welcome(name=name)
        assert message.as_bytes().split(b"\r\n\r\n")[0].isascii()
        text, html = _parts(message)
        assert f"Hello {name}," in text
        assert f"Hello {name}," in _Html(html).text
    assert _received(_welcome(name="Zoë Ångström"))["To"].addresses[0].display_name == "Zoë Ångström"


def test_a_hostile_name_is_text_in_the_html() -> None:
    _, html = _parts(_welcome(name="<img src=x onerror=alert(1)>\"'&{{ 7*7 }}"))
    page = _Html(html)

    assert "img" not in page.tags
    assert "Hello <img src=x onerror=alert(1)>\"'&{{ 7*7 }}," in page.text


@pytest.mark.parametrize("name", ["WIN $1000: https://evil.example/x", "www.evil.example", "go to evil.com now"])
def test_a_name_that_is_an_advertisement_is_left_out(name: str) -> None:
    message = _welcome(name=name)

    assert b"evil" not in message.as_bytes()
    assert "Hello," in _parts(message)[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(max_size=200))
@example("Eve\r\nBcc: eve@evil")
@example("Eve\n\n<h1>hello</h1>")
@example(BCC)
@example("\\" * 30 + ", Eve <eve@evil>, x")  # folded without its quotes, the comma begins a recipient
@example('"Eve" <eve@evil>, ')
@example("Zoë, " * 30)
@example("\ud800 \x85 \u2028 \0")
@example("--=_tallyhook_alternative--")
def test_no_name_changes_the_headers_or_the_parts(name: str) -> None:
    plain, hostile = _received(_welcome(name="Ada")), _received(_welcome(name=name))

    assert hostile.keys() == plain.keys()
    assert [address.addr_spec for address in hostile["To"].addresses] == ["ada@example.com"]
    assert all(hostile[header] == plain[header] for header in plain if header != "To")
    text, _ = _parts(hostile)
    assert text.startswith("Hello")
    assert len(text.splitlines()) == len(_parts(plain)[0].splitlines())


def test_an_address_with_a_header_in_it_gets_no_mail() -> None:
    with pytest.raises(Permanent) as refused:
        _welcome(to=f"{BCC}@example.com")
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("address", ["ada@example.com\r\nBcc: eve@evil.example", "ada\n@example.com"])
def test_an_address_with_a_line_break_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="CR or LF"):
        _welcome(to=address)


def test_an_international_domain_is_written_as_the_dns_knows_it() -> None:
    # Not "strasse.de", another domain, which the older IDNA of Python's own codec makes of it.
    assert _welcome(to="ada@straße.de")["To"].addresses[0].addr_spec == "ada@xn--strae-oqa.de"


def test_an_international_mailbox_keeps_its_name() -> None:
    assert "To: Zoë <jörg@example.com>\r\n".encode() in _welcome(to="jörg@example.com", name="Zoë").as_bytes()


def test_a_sender_that_is_not_one_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "mail_from", "Tallyhook, Inc <hello@tallyhook.example>")
    with pytest.raises(SettingsError, match="MAIL_FROM is not one address"):
        _welcome()
