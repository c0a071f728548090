"""Mails over a real SMTP server in its good and bad hours, and into a folder."""

import ipaddress
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from app.ledger.errors import JobError, Permanent, Transient, Unavailable
from app.mail import transport
from app.mail.messages import sign_in
from app.mail.transport import send
from app.settings import SettingsError, get_settings

USER, PASSWORD = "bob@mail.example", "p@ss/w:rd%#?"
CREDENTIALS = "bob%40mail.example:p%40ss%2Fw%3Ard%25%23%3F"


class Mailbox:
    """What the server took, and, by command, what it is to answer for once instead of 250."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.answers: dict[str, list[str]] = {}
        self.breaks_off = False
        """After it took the mail, before it says so."""
        self.hangs_up = False
        """In place of a farewell."""
        self.helo = ""

    def _answer(self, command: str) -> str | None:
        waiting = self.answers.get(command)
        return waiting.pop(0) if waiting else None

    async def handle_EHLO(self, _server: Any, session: Any, _envelope: Any, name: str, replies: list[str]) -> Any:  # noqa: N802
        session.host_name = self.helo = name
        return replies

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.mail_from, envelope.mail_options = address, options
        return self._answer("MAIL") or "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return self._answer("RCPT") or "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        refusal = self._answer("DATA")
        if refusal is None:
            self.taken.append(envelope)
            self.encrypted.append(session.ssl is not None)
        if self.breaks_off:
            server.transport.abort()
        return refusal or "250 OK"

    async def handle_QUIT(self, server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802
        if self.hangs_up:
            server.transport.abort()
        return "221 Bye"


@contextmanager
def _serving(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture
def mail_url(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets MAIL_URL."""
    return lambda url: monkeypatch.setattr(get_settings(), "mail_url", SecretStr(url))


@pytest.fixture
def mailbox(mail_url: Callable[[str], None]) -> Iterator[Mailbox]:
    """A mail server on loopback, which MAIL_URL names."""
    box = Mailbox()
    with _serving(box) as port:
        mail_url(f"smtp://127.0.0.1:{port}")
        yield box


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of a second instead of five, for servers that do not answer."""
    monkeypatch.setattr(transport, "TIMEOUT_S", 0.2)


def _mail(to: str = "ada@customer.example", ref: str = "sign-in:7") -> EmailMessage:
    return sign_in(to=to, name="Ada", account_url="https://tallyhook.example/account?token=x.y.z", ref=ref)


def _refusal(kind: type[JobError], message: EmailMessage | None = None) -> str:
    """Sends, expects exactly this kind of error, and gives all that a log could show of it."""
    with pytest.raises(JobError) as failed:
        send(message or _mail())
    assert type(failed.value) is kind, failed.value
    return "".join(traceback.format_exception(failed.value))


def test_a_mail_arrives_as_it_was_written(mailbox: Mailbox) -> None:
    message = _mail()
    send(message)

    [taken] = mailbox.taken
    assert taken.mail_from == get_settings().mail_from.split("<")[1].rstrip(">")
    assert taken.rcpt_tos == ["ada@customer.example"]
    assert taken.content == message.as_bytes()


def test_the_server_is_greeted_with_our_public_name(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "base_url", "https://tallyhook.example")
    send(_mail())
    assert mailbox.helo == "tallyhook.example"


def test_a_server_that_refuses_connections_is_unavailable(mail_url: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    mail_url(f"smtp://{CREDENTIALS}@127.0.0.1:{port}")

    shown = _refusal(Unavailable)

    assert "Connection refused" in shown
    assert "bob" not in shown
    assert PASSWORD not in shown


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_accepts_and_never_answers_is_unavailable(mail_url: Callable[[str], None], scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail_url(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}")
        _refusal(Unavailable)


@pytest.mark.usefixtures("hasty")
def test_a_server_that_answers_a_byte_at_a_time_holds_no_worker(mail_url: Callable[[str], None]) -> None:
    hung_up = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with closing(connection):
            connection.settimeout(0.02)
            while not hung_up.is_set():
                try:
                    connection.sendall(b"2")
                    if connection.recv(1) == b"":
                        hung_up.set()
                except TimeoutError:
                    continue
                except OSError:
                    hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        tarpit = threading.Thread(target=drip, args=[server], daemon=True)
        tarpit.start()
        mail_url(f"smtp://127.0.0.1:{server.getsockname()[1]}")
        _refusal(Unavailable)
        tarpit.join(timeout=10)
    assert hung_up.is_set()


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_a_server_that_says_later_gets_the_mail_later(mailbox: Mailbox, command: str) -> None:
    mailbox.answers[command] = ["451 4.7.1 Greylisted, try again"]

    assert "451 4.7.1 Greylisted" in _refusal(Unavailable)
    send(_mail())

    assert len(mailbox.taken) == 1


def test_a_server_that_shuts_down_in_mid_session_is_unavailable(mailbox: Mailbox) -> None:
    mailbox.answers["RCPT"] = ["421 Shutting down"]
    _refusal(Unavailable)


def test_a_recipient_refused_for_good_is_permanent_and_stays_private(mailbox: Mailbox) -> None:
    mailbox.answers["RCPT"] = ["550 5.1.1 <ada@customer.example>: no such user; ask Postmaster@Customer.example"]

    shown = _refusal(Permanent)

    assert "customer.example: 550 5.1.1" in shown
    assert "no such user" in shown
    assert "ada@" not in shown
    assert "Postmaster@" not in shown
    assert mailbox.taken == []


def test_a_mailbox_on_a_host_without_dots_stays_private_as_well(mailbox: Mailbox) -> None:
    mailbox.answers["RCPT"] = ["550 5.1.1 <ada@intranet>: no such user"]
    assert "ada@" not in _refusal(Permanent, _mail(to="ada@intranet"))


def test_a_message_refused_for_good_is_permanent(mailbox: Mailbox) -> None:
    mailbox.answers["DATA"] = ["554 5.6.0 Message content rejected"]
    assert "refused the message: 554 5.6.0" in _refusal(Permanent)


def test_a_refusal_of_our_sender_can_be_mended(mailbox: Mailbox) -> None:
    mailbox.answers["MAIL"] = ["553 5.7.1 Sender domain not verified"]
    assert "refused us: 553 5.7.1" in _refusal(Transient)


def test_a_lame_farewell_does_not_send_the_mail_again(mailbox: Mailbox) -> None:
    mailbox.hangs_up = True
    send(_mail())
    assert len(mailbox.taken) == 1


def test_a_reply_lost_after_the_hand_over_repeats_the_identical_mail(mailbox: Mailbox) -> None:
    mailbox.breaks_off = True
    _refusal(Unavailable)
    mailbox.breaks_off = False
    send(_mail())

    first, second = mailbox.taken
    assert first.content == second.content


def test_an_international_mailbox_is_written_to(mail_url: Callable[[str], None]) -> None:
    box = Mailbox()
    with _serving(box, enable_SMTPUTF8=True) as port:
        mail_url(f"smtp://127.0.0.1:{port}")
        send(_mail(to="jörg@customer.example"))

    [taken] = box.taken
    assert taken.rcpt_tos == ["jörg@customer.example"]
    assert "To: Ada <jörg@customer.example>\r\n".encode() in (taken.content or b"")


def test_an_international_mailbox_at_an_older_server_is_permanent(mail_url: Callable[[str], None]) -> None:
    with _serving(Mailbox(), enable_SMTPUTF8=False) as port:
        mail_url(f"smtp://127.0.0.1:{port}")
        assert "jörg" not in _refusal(Permanent, _mail(to="jörg@customer.example"))


def _authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, login: Any) -> AuthResult:
    assert isinstance(login, LoginPassword)
    return AuthResult(success=(login.login, login.password) == (USER.encode(), PASSWORD.encode()), handled=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, self-signed, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_starttls_is_used_where_it_is_offered_and_the_log_in_follows_it(
    mail_url: Callable[[str], None], tls: ssl.SSLContext
) -> None:
    box = Mailbox()
    with _serving(box, tls_context=tls, authenticator=_authenticate, auth_required=True) as port:
        mail_url(f"smtp://{CREDENTIALS}@127.0.0.1:{port}")
        send(_mail())
    assert box.encrypted == [True]


@pytest.mark.usefixtures("trusted")
def test_smtps_is_encrypted_from_the_first_byte(mail_url: Callable[[str], None], tls: ssl.SSLContext) -> None:
    box = Mailbox()
    with _serving(box, ssl_context=tls) as port:
        mail_url(f"smtps://127.0.0.1:{port}")
        send(_mail())
    assert len(box.taken) == 1


@pytest.mark.parametrize(("scheme", "option"), [("smtp", "tls_context"), ("smtps", "ssl_context")])
def test_a_certificate_that_nobody_vouches_for_gets_no_mail_and_no_password(
    mail_url: Callable[[str], None], tls: ssl.SSLContext, scheme: str, option: str
) -> None:
    box = Mailbox()
    with _serving(box, **{option: tls}) as port:
        mail_url(f"{scheme}://{CREDENTIALS}@127.0.0.1:{port}")
        assert "certificate verify failed" in _refusal(Unavailable)
    assert box.taken == []


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_transient_and_stays_secret(mail_url: Callable[[str], None], tls: ssl.SSLContext) -> None:
    with _serving(Mailbox(), tls_context=tls, authenticator=_authenticate) as port:
        mail_url(f"smtp://{USER.replace('@', '%40')}:hunter2@127.0.0.1:{port}")
        shown = _refusal(Transient)

    assert "refused our log-in: 535" in shown
    assert "hunter2" not in shown
    assert USER not in shown


def test_a_server_without_log_in_is_transient_when_we_have_credentials(mail_url: Callable[[str], None]) -> None:
    with _serving(Mailbox()) as port:
        mail_url(f"smtp://{CREDENTIALS}@127.0.0.1:{port}")
        assert "offers no log-in" in _refusal(Transient)


def test_a_folder_gets_one_file_a_message(mail_url: Callable[[str], None], tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "100% #mail?"
    mail_url(f"file://{str(folder).replace('%', '%25')}")

    send(_mail(ref="sign-in:7"))
    send(_mail(ref="sign-in:8"))
    send(_mail(ref="sign-in:7"))

    assert sorted(path.name for path in folder.iterdir()) == ["sign-in.7@localhost.eml", "sign-in.8@localhost.eml"]
    kept = (folder / "sign-in.7@localhost.eml").read_bytes()
    assert kept == _mail(ref="sign-in:7").as_bytes()
    assert message_from_bytes(kept, policy=SMTP)["To"] == "Ada <ada@customer.example>"


def test_only_the_owner_reads_the_files(mail_url: Callable[[str], None], tmp_path: Path) -> None:
    mail_url(f"file://{tmp_path}")
    send(_mail())
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_message_id_cannot_leave_the_folder(mail_url: Callable[[str], None], tmp_path: Path) -> None:
    mail_url(f"file://{tmp_path / 'mail'}")
    message = _mail()
    message.replace_header("Message-ID", "<../../outside@localhost>")
    send(message)
    [path] = (tmp_path / "mail").iterdir()
    assert path.suffix == ".eml"


def test_a_folder_that_cannot_be_written_is_unavailable(mail_url: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    mail_url(f"file://{tmp_path / 'taken'}")
    _refusal(Unavailable)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://bob:hunter2@mail.example", "MAIL_URL: begins with none of smtp://, smtps:// and file:///"),
        ("bob:hunter2@mail.example:25", "MAIL_URL: begins with none of smtp://, smtps:// and file:///"),
        ("file://mail", "MAIL_URL: file:// needs an absolute folder, as in file:///var/mail"),
        ("smtp://bob:hun/ter2@mail.example", "MAIL_URL: is not scheme://user:password@host:port"),
        ("smtp://bob:25/hunter2@mail.example", "MAIL_URL: is not scheme://user:password@host:port"),
        ("smtp://bob:hun#ter2@mail.example", "MAIL_URL: is not scheme://user:password@host:port"),
        ("smtps://", "MAIL_URL: is not scheme://user:password@host:port"),
        ("smtp://mail.example:hunter2", "MAIL_URL: is not scheme://user:password@host:port"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_clear_line_without_the_password(
    mail_url: Callable[[str], None], url: str, problem: str
) -> None:
    mail_url(url)
    with pytest.raises(SettingsError) as refused:
        send(_mail())

    [line] = refused.value.problems
    assert line.startswith(problem)
    shown = "".join(traceback.format_exception(refused.value))
    assert not [part for part in ("bob", "hun", "ter2") if part in shown]


def test_without_an_address_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "mail_url", None)
    with pytest.raises(SettingsError, match="MAIL_URL is not set"):
        send(_mail())
