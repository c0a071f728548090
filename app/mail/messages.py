"""The mails themselves: a pair of templates each (`templates/NAME.txt` and `.html`) and a function.

A mail is a function of its arguments and the settings, to the byte, so that a retry sends the same one.
Every function takes:
    to, name: the customer's address and name, as they gave them.
    ref: what the mail is about, such as "welcome:7". It becomes the Message-ID, so mail programs and the
        file transport take a second mail with the same `ref` for a repeat.
    date: when the mail came to be, with its time zone; fixed across retries by the caller. Without it
        the first mail server dates the mail.
They raise Permanent for an address that no mail may go to, and SettingsError where MAIL_FROM is no address.
"""

import re
import unicodedata
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from urllib.parse import quote, urlsplit

from email_validator import validate_email
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.ledger.errors import Permanent
from app.mail.links import LINK_DAYS
from app.mail.notices import Notice
from app.settings import SettingsError, get_settings

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

_BOUNDARY = "=_tallyhook_alternative"
"""Cannot occur in a part: "=_" is impossible in quoted-printable, and no line of ours begins like it."""

_NAME_MAX = 64
_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
_LINK = re.compile(r"://|\w\.\w{2,}")
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."=?]')


def welcome(
    *,
    to: str,
    name: str,
    api_key: str,
    account_url: str,
    trial_fixes: int,
    ref: str,
    date: datetime | None = None,
) -> EmailMessage:
    """To a new customer: the API key, how to use it, and the way to the account page.

    Args:
        api_key: the key itself. This mail is the only place where it is shown.
        account_url: a signed link (`app.mail.links.account_url`).
        trial_fixes: deployed fixes that cost nothing.
    """
    return _message(
        "welcome",
        subject="Your Tallyhook API key",
        to=to,
        name=name,
        ref=ref,
        date=date,
        api_key=api_key,
        account_url=account_url,
        trial_fixes=trial_fixes,
    )


def sign_in(*, to: str, name: str, account_url: str, ref: str, date: datetime | None = None) -> EmailMessage:
    """To a customer whose address was used for a second signup: nothing has changed, and here is the way in.

    Args:
        account_url: a signed link (`app.mail.links.account_url`).
    """
    return _message(
        "sign_in",
        subject="You already have a Tallyhook account",
        to=to,
        name=name,
        ref=ref,
        date=date,
        account_url=account_url,
    )


def notice(
    told: Notice, *, to: str, name: str, account_url: str, ref: str, date: datetime | None = None
) -> EmailMessage:
    """To a customer, of their fixes, charges and plans: what `told` says.

    Args:
        account_url: a signed link (`app.mail.links.account_url`); a notice with a link of its own goes without.
    """
    return _message(
        "notice",
        subject=told.subject,
        to=to,
        name=name,
        ref=ref,
        date=date,
        paragraphs=told.paragraphs(),
        action=told.action(),
        account_url=account_url,
    )


def _message(
    template: str, *, subject: str, to: str, name: str, ref: str, date: datetime | None, **values: object
) -> EmailMessage:
    settings = get_settings()
    name = _one_line(name)
    recipient = _address(to, name)
    message = EmailMessage(policy=SMTP if recipient.addr_spec.isascii() else SMTPUTF8)
    message["From"] = settings.mail_from
    if len(message["From"].addresses) != 1:
        raise SettingsError(["MAIL_FROM is not one address, as in Tallyhook <no-reply@example.com>"])
    message["To"] = recipient
    message["Subject"] = subject
    if date is not None:
        message["Date"] = date
    message["Message-ID"] = _message_id(ref)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office notes in reply
    values |= {"name": name, "base_url": settings.public_url, "link_days": LINK_DAYS, "subject": subject}
    text = _templates.get_template(f"{template}.txt").render(values)
    html = _templates.get_template(f"{template}.html").render(values)
    message.set_content(text, cte=_encoding(text))
    message.add_alternative(html, subtype="html", cte=_encoding(html))
    message.set_boundary(_BOUNDARY)
    return message


def _encoding(text: str) -> str:
    """As it stands where possible: the library would encode any text with a line over 78, such as a link."""
    return "7bit" if text.isascii() else "quoted-printable"


def _one_line(name: str) -> str:
    """The name as we greet with it, or "" if it has something like a link in it.

    Anyone can sign up with anyone's address. With a link as the "name", our mail would carry a
    stranger's advertisement.
    """
    printable = "".join(" " if unicodedata.category(c) in _CONTROLS else c for c in name)
    return "" if _LINK.search(printable) else " ".join(printable.split())[:_NAME_MAX].rstrip()


def _address(to: str, name: str) -> Address:
    """The recipient as a header can carry it, the domain as the DNS knows it.

    The `email` package of Python 3.11.7 (others too) drops the quotes of a name that it folds, so that a
    comma in it begins a second recipient; and it decodes `=?utf-8?q?=0D=0ABcc=3A…?=`, in a name or
    before the @, into a header of its own. So a name goes without what means something in a header.

    Raises:
        Permanent: the address has an encoded word in it. No real mailbox does.
    """
    user, _, domain = to.rpartition("@")
    if "=?" in user:
        raise Permanent("the address holds an encoded word (=?…?=): nothing is sent to it")
    if not domain.isascii():
        domain = validate_email(to, check_deliverability=False).ascii_domain
    return Address(" ".join(_SPECIALS.sub(" ", name).split()), user, domain)


def _message_id(ref: str) -> str:
    host = urlsplit(get_settings().public_url).hostname or "localhost"
    return f"<{quote(ref.replace(':', '.'), safe='')}@{host.encode('idna').decode()}>"
