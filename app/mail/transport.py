"""Hands a message to the mail server, or to a folder, as MAIL_URL says.

    smtp://user:password@host:port   port 587 unless given; encrypted where the server offers it (STARTTLS)
    smtps://user:password@host:port  port 465 unless given; encrypted from the first byte
    file:///folder                   one .eml file a message

User and password are percent-encoded; without them there is no log-in. Certificates are verified.
"""

import smtplib
import socket
import ssl
import tempfile
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from app.ledger.errors import JobError, Permanent, Transient, Unavailable
from app.logs import redact_text
from app.settings import SettingsError, get_settings

TIMEOUT_S = 5.0
"""Seconds that the mail server has to accept the connection, and for each whole reply."""

_SAID_MAX = 200
"""Characters kept of what a server gives as its reason."""


def send(message: EmailMessage) -> None:
    """Hand over `message`, which has one sender and one recipient. When this returns, it has been accepted.

    If the reply to an accepted message is lost, this raises and the retry sends it again, under the same
    Message-ID; into a folder, a repeat replaces the file.

    Raises:
        Unavailable: the server refuses connections, hangs, breaks off or says "later" (4xx); or the
            folder cannot be written.
        Permanent: the server refuses this recipient or this message for good (5xx).
        Transient: the server refuses us for good: our log-in, our sender, our greeting.
        SettingsError: MAIL_URL cannot be used. Its value, which may hold a password, is not in the message.
    """
    mail_url = get_settings().mail_url
    if mail_url is None:
        raise SettingsError(["MAIL_URL is not set: mails need a server (smtp://… or smtps://…)"])
    target = _parse(mail_url.get_secret_value())
    if isinstance(target, Path):
        _write(message, target)
    else:
        _submit(message, target)


def probe(mail_url: str) -> None:
    """Go as far as the first mail would, and send none: log in at the server, or see that the folder can be written.

    Raises:
        as `send`
    """
    target = _parse(mail_url)
    if isinstance(target, Path):
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=target):
                return
        except OSError as error:
            raise Unavailable(f"the folder of MAIL_URL cannot be written: {error.strerror}") from None
    try:
        with closing(_connect(target)) as smtp:
            _introduce(smtp, target)
            code, said = smtp.noop()
            if code != 250:
                raise smtplib.SMTPResponseException(code, said)
            with suppress(smtplib.SMTPException):
                smtp.quit()
    except OSError as error:  # all of smtplib's errors are
        raise _judge(error, target, "") from None


@dataclass(frozen=True)
class _Server:
    host: str
    port: int
    tls: bool
    user: str = field(repr=False)
    password: str = field(repr=False)

    def __str__(self) -> str:
        return f"mail server {self.host}:{self.port}"


def _parse(mail_url: str) -> Path | _Server:
    # The errors quote nothing: any part of a malformed address may be the password.
    scheme = mail_url.partition("://")[0]
    if scheme not in ("smtp", "smtps", "file"):
        raise SettingsError(["MAIL_URL: begins with none of smtp://, smtps:// and file:///"])
    if scheme == "file":
        folder = unquote(mail_url.removeprefix("file://"))
        if not folder.startswith("/"):
            raise SettingsError(["MAIL_URL: file:// needs an absolute folder, as in file:///var/mail"])
        return Path(folder)
    try:
        url = urlsplit(mail_url)
        host, port = url.hostname, url.port
    except ValueError:
        host = None
    if not host or url.path.strip("/") or url.query or url.fragment:
        raise SettingsError(["MAIL_URL: is not scheme://user:password@host:port (is the password percent-encoded?)"])
    tls = scheme == "smtps"
    return _Server(host, port or (465 if tls else 587), tls, unquote(url.username or ""), unquote(url.password or ""))


def _write(message: EmailMessage, folder: Path) -> None:
    name = str(message["Message-ID"]).strip("<>").replace("/", "_")
    draft = folder / f".{uuid4()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            draft.touch(mode=0o600)  # a mail may carry an API key
            draft.write_bytes(message.as_bytes())
            draft.replace(folder / f"{name}.eml")
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"the folder of MAIL_URL cannot be written: {error.strerror}") from None


class _Smtp(smtplib.SMTP):
    """A session in which every reply has to be complete in time.

    The socket's own time-out bounds one read only: a server that sends a byte now and then (a tarpit)
    would keep a worker for hours.
    """

    def getreply(self) -> tuple[int, bytes]:
        assert self.sock is not None
        watchdog = threading.Timer(TIMEOUT_S, _cut, [self.sock])
        watchdog.daemon = True
        watchdog.start()
        try:
            return super().getreply()
        finally:
            watchdog.cancel()


class _Smtps(_Smtp, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""


def _cut(sock: socket.socket) -> None:
    """End the read that another thread is waiting in. That thread meets the end of the stream."""
    with suppress(OSError):  # it has been closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's, which would pull TLS from under the reader


def _submit(message: EmailMessage, server: _Server) -> None:
    [sender] = message["From"].addresses
    [recipient] = message["To"].addresses
    try:
        with closing(_connect(server)) as smtp:
            _introduce(smtp, server)
            if not recipient.addr_spec.isascii() and not smtp.has_extn("smtputf8"):
                raise Permanent(f"the {server} cannot write to addresses beyond ASCII (SMTPUTF8)")
            smtp.send_message(message, sender.addr_spec, [recipient.addr_spec])
            with suppress(smtplib.SMTPException):  # the mail is theirs: no farewell may have it sent again
                smtp.quit()
    except OSError as error:  # all of smtplib's errors are
        # "from None", because smtplib's own text holds the address.
        raise _judge(error, server, recipient.addr_spec) from None


def _connect(server: _Server) -> _Smtp:
    # A name for EHLO, without which smtplib asks the DNS for this machine's, with no time-out.
    us = urlsplit(get_settings().public_url).hostname
    if server.tls:
        context = ssl.create_default_context()
        return _Smtps(server.host, server.port, local_hostname=us, timeout=TIMEOUT_S, context=context)
    return _Smtp(server.host, server.port, local_hostname=us, timeout=TIMEOUT_S)


def _introduce(smtp: _Smtp, server: _Server) -> None:
    smtp.ehlo_or_helo_if_needed()
    if not server.tls and smtp.has_extn("starttls"):
        smtp.starttls(context=ssl.create_default_context())
        smtp.ehlo_or_helo_if_needed()
    if server.user:
        smtp.login(server.user, server.password)


def _judge(error: OSError, server: _Server, recipient: str) -> JobError:
    """The kind of error that failed a submission. A refusal with a code below 500 is for now only."""
    refusal: type[JobError] = Permanent
    said: bytes | str
    match error:
        case smtplib.SMTPRecipientsRefused():
            what = f"a recipient at {recipient.rpartition('@')[2]}"
            code, said = error.recipients[recipient]
        case smtplib.SMTPDataError():
            what, code, said = "the message", error.smtp_code, error.smtp_error
        case smtplib.SMTPAuthenticationError():
            refusal, what, code, said = Transient, "our log-in", error.smtp_code, error.smtp_error
        case smtplib.SMTPResponseException():  # greeting, EHLO, STARTTLS, MAIL FROM
            refusal, what, code, said = Transient, "us", error.smtp_code, error.smtp_error
        case smtplib.SMTPServerDisconnected():
            return Unavailable(f"the {server} broke off, or did not answer within {TIMEOUT_S:g} s")
        case smtplib.SMTPException():
            return Transient(f"the {server} offers no log-in of a kind that we know")
        case _:
            return Unavailable(f"the {server} cannot be reached: {error.strerror or type(error).__name__}")
    reason = " ".join((said if isinstance(said, str) else said.decode("utf-8", "replace")).split())
    for secret in (recipient, server.user, server.password):
        reason = reason.replace(secret, "***") if secret else reason
    kind = refusal if code >= 500 else Unavailable
    return kind(f"the {server} refused {what}: {code} {redact_text(reason)[:_SAID_MAX]}")
