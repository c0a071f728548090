"""How long a signup takes through everything: `tallyhook up`, a hundred senders at once."""

from email import message_from_bytes
from email.utils import parseaddr
from pathlib import Path

from app.sandbox.embedded import free_port
from bench.environment import Environment, wait_for
from bench.intake import send_signups
from bench.report import Figure, percentile

_ADDRESS = "bench-%012d@tallyhook.example.com"


def measure(env: Environment) -> None:
    """Seconds from the sending of the POST to the mail in the folder, of all signups."""
    senders, rounds = env.size(100, 20), env.size(3, 1)
    env.clear()
    home = env.home / "up"
    port = free_port()
    waits: list[float] = []
    slowest = []
    command = ["-m", "app.ops.cli", "up", "--workers", "2", "--port", str(port)]
    with env.process(*command, TALLYHOOK_HOME=str(home), PROMETHEUS_MULTIPROC_DIR=str(home / "metrics")) as up:
        env.report.doing("system: tallyhook up")
        up.wait_for_output("\nready ")
        _provision(env, home / "mail", port, 8)
        for number in range(1, rounds + 1):
            env.report.doing(f"system: {senders} signups at once, round {number} of {rounds}")
            took = _provision(env, home / "mail", port, senders)
            waits += took
            slowest.append(percentile(took, 0.99))
        unfinished = env.database.value("SELECT count(*) FROM signups WHERE status <> 'provisioned'")
    assert unfinished == 0, f"{unfinished} signups are not provisioned"
    how = f"from POST to the mail in the folder; all of `tallyhook up --workers 2`; {rounds} times"
    env.report.add(Figure(f"{senders} signups at once, provisioned, p50", percentile(waits, 0.5), "s", how=how))
    env.report.add(
        Figure(
            f"{senders} signups at once, provisioned, p99",
            percentile(waits, 0.99),
            "s",
            slowest,
            target=5,
            at_most=True,
            how=how,
        )
    )


def _recipient(mail: Path) -> str:
    return parseaddr(message_from_bytes(mail.read_bytes())["To"])[1]


def _provision(env: Environment, mails: Path, port: int, signups: int) -> list[float]:
    sent = send_signups(port, connections=signups, requests=signups)
    addresses = {_ADDRESS % (sent["first"] + place): at for place, at in enumerate(sent["sent_at"])}
    waiting = "SELECT count(*) FROM signups WHERE status <> 'provisioned'"
    wait_for(lambda: env.database.value(waiting) == 0, "the last of the signups")
    handed_over = {_recipient(path): path.stat().st_mtime for path in mails.glob("*.eml")}
    return [handed_over[address] - at for address, at in addresses.items()]
