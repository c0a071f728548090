"""One JSON line an event, with the correlation id that runs from the request through every job.

Redaction is the last step before a line is written, so that no caller can forget it. The same
`redact` cleans what the ledger shows: error messages, tracebacks and payloads.
"""

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import psycopg
import structlog
from structlog.typing import EventDict, WrappedLogger

from app.ledger.errors import JobError

_SECRET = re.compile(
    r"rsolv_[A-Za-z0-9_-]{8,}"  # our API keys
    r"|\b(?:sk|rk|pk)_(?:test|live)_\w+|\bwhsec_\w+"  # Stripe's
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password in an address
    r"|(?<![\w-])(?:\d[ -]?){12,18}\d(?![\w-])"  # a card number
    r"|(?i:(?<=bearer )[\w.~+/=-]{8,})"
    r"|(?<=[?&]token=)[\w.~-]+"  # our signed links
    r"|(?i:(?<=password=)[^&\s'\"]+)"
    r"|\b\w+_secret_\w{8,}|(?<=client_secret=)[^&#\s'\"]+"  # what opens a payment at Stripe to whoever has it
)
_EMAIL = re.compile(r"""([^\s"'<>()\[\],;:=@])[^\s"'<>()\[\],;:@]{0,64}@((?:[\w-]{1,63}\.){1,8}[\w-]{2,63})""")
_HIDDEN_KEYS = re.compile(r"(?i)(api_?key|authorization|cookie|password|secret|token|card|cvc|signature)$")
# Stripe's pages, which open to whoever has their address; and people, by where its objects say who they are.
_LINKS = frozenset(("url", "hosted_invoice_url", "invoice_pdf", "receipt_url"))
_PRIVATE = frozenset(
    (
        *("phone", "address", "line1", "line2", "city", "postal_code", "ip", "dob", "evidence"),
        *("customer_name", "customer_phone", "verified_name", "verified_phone", "account_holder_name", "payer_name"),
        *("cardholder_name", "custom_fields"),
        *("tax_id", "tax_ids", "customer_tax_ids", "routing_number", "account_number", "iban"),
    )
)
_PLACES = re.compile(r"^address_|_(address|ip)$")
_NAMED = ("customer", "tax_id", "card", "bank_account", "source")
"""Objects of Stripe's whose name is a person's."""
_NAMES = frozenset(("name", "individual_name", "business_name", "value"))  # the value is a tax id's
_PEOPLE = frozenset(
    (
        *("billing_details", "shipping", "shipping_details", "customer_shipping", "customer_details"),
        *("previous_attributes", "collected_information", "owner", "sender"),
    )
)
_MAYBE = re.compile(r"@|rsolv_|_test_|_live_|whsec_|_secret[_=]|(?i:bearer |password=)|token=|(?:\d[ -]?){13}")


def redact_text(text: str) -> str:
    """`text` without secrets; of an e-mail address the first letter and the domain remain.

    What neither UTF-8 nor PostgreSQL can hold (half a character, NUL) is replaced by "?" or left out.
    """
    if not text.isprintable():
        text = text.encode("utf-8", "replace").decode().replace("\x00", "")
    if not _MAYBE.search(text):  # most strings by far: one quick scan
        return text
    return _EMAIL.sub(r"\1***@\2", _SECRET.sub("[redacted]", text))


def redact(value: Any, within: object = None) -> Any:
    """`value`, found under the key `within`, with every string in it redacted, and what a telling key names replaced
    whole."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        named = within in _PEOPLE or "login" in value or value.get("object") in _NAMED
        return {
            key: "[redacted]" if item and isinstance(key, str) and _is_hidden(key, named) else redact(item, key)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _is_hidden(key: str, named: bool) -> bool:
    """Whether what this key names is replaced. `named`: a name beside it is a person's, not a product's."""
    if key in _LINKS or key in _PRIVATE or (named and key in _NAMES):
        return True
    return bool(_HIDDEN_KEYS.search(key) or _PLACES.search(key))


def describe(error: BaseException) -> str:
    """What `error` says, after its class where that tells more than the kind that is written beside it does."""
    return str(error).partition("\n")[0] if isinstance(error, JobError) else _with_class(error)


def _with_class(error: BaseException) -> str:
    """The class of `error` and what it says. Of the database's errors only the first line: the others quote
    rows and parameters."""
    cause = getattr(error, "orig", None) or error
    said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return f"{type(cause).__name__}: {said or str(cause).partition(chr(10))[0]}"


def describe_with_frames(error: BaseException) -> str:
    """A traceback of `error` and of what caused it, that quotes no more than `describe` does."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    cause = f"{describe_with_frames(before)}\n\n" if before is not None else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{cause}Traceback (most recent call last):\n{frames}{_with_class(error)}"


def _describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["traceback"] = describe_with_frames(error)
    return event


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if type(value) is str or type(value) in (dict, list, tuple):
            event[key] = redact(value)
    return event


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=str)


def _shared_steps() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        _describe_exception,
        _redact_event,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def configure_logs(output: Path | None = None) -> None:
    """Send every log line of this process, our own and the libraries', as JSON to `output`, or to the
    standard output that the process was started with.

    Not to `sys.stdout`: Dramatiq replaces it by a pipe to its parent, which costs a second copy of each line.
    """
    if structlog.is_configured():
        return
    file = output.open("ab", buffering=0) if output else os.fdopen(os.dup(1), "wb", buffering=0)
    structlog.configure(
        processors=[*_shared_steps(), _to_json],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(file=file),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(io.TextIOWrapper(file, write_through=True))
    handler.setFormatter(json_formatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def json_formatter() -> logging.Formatter:
    """Turns what libraries log into the same JSON lines, redacted alike."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared_steps()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )


log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
