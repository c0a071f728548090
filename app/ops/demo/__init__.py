"""`tallyhook demo`: the whole journey on embedded parts, told as it happens, with what can go wrong going wrong."""

import os
import tempfile
from contextlib import chdir
from pathlib import Path

import typer

from app.db import get_engine
from app.logs import configure_logs
from app.ops.audit import audit
from app.ops.demo import charging, provisioning, subscribing
from app.ops.demo.account import Account
from app.ops.demo.stage import DemoFailed, Stage
from app.ops.output import console, print_rows
from app.ops.system import System
from app.sandbox.embedded import free_port
from app.sandbox.stripe import SandboxRefused
from app.settings import Settings, get_settings


def show() -> None:
    """The whole journey, in a folder of its own that is gone afterwards; ends the process with 1 where it failed."""
    # From that folder, because an `.env` in this one may name a database and a Redis that are not to be played with.
    with tempfile.TemporaryDirectory(prefix="tallyhook-demo-") as folder, chdir(folder):
        home = Path(folder)
        home.chmod(0o755)  # the embedded PostgreSQL may run as another user
        for name in Settings.model_fields:
            os.environ.pop(name.upper(), None)
        # One address asks and looks far more often than people do.
        os.environ |= {"TALLYHOOK_HOME": folder, "SIGNUP_RATE_LIMIT": "1000/hour", "API_RATE_LIMIT": "10000/minute"}
        get_settings.cache_clear()
        get_engine.cache_clear()
        configure_logs(home / "demo.log")
        system = System(workers=2, port=free_port(), output=home / "demo.log")
        try:
            console.print("[bold]Starting[/] PostgreSQL, Redis and a Stripe sandbox, then web, relay and two workers …")
            system.start()
            _tell(Stage(system, home))
        except (DemoFailed, SandboxRefused, OSError) as error:
            console.print(f"\n{error}", style="red", markup=False)
            console.print((home / "demo.log").read_text()[-4000:], style="dim", markup=False)
            raise typer.Exit(1) from None
        finally:
            system.stop()


def _tell(stage: Stage) -> None:
    stage.say(f"[bold]Serving[/] {stage.system.url}")
    ada = Account(stage, provisioning.sign_up_while_the_worker_dies(stage))
    provisioning.send_it_again(stage)
    provisioning.empty_redis(stage)
    provisioning.lose_stripes_answer(stage)
    charging.scan_and_validate(stage, ada)
    charging.use_the_trial(stage, ada)
    charging.pay_for_each_fix(stage, ada)
    charging.kill_a_worker_in_mid_charge(stage, ada)
    charging.decline_and_recover(stage, ada)
    charging.switch_billing_off_and_on(stage, ada)
    subscribing.go_over_sixty(stage, ada)
    subscribing.repeat_everything(stage, ada)
    subscribing.renew(stage, ada)
    _audit(stage)


def _audit(stage: Stage) -> None:
    stage.chapter("The audit, against Stripe as well")
    report = audit(with_stripe=True)
    print_rows([{"rule": r, "checked": n} for r, n in report["checked"].items()], ("rule", "checked"), "")
    print_rows(report["findings"], ("rule", "subject", "detail"), "")
    stage.must(report["ok"], "the audit found something")
    dead = stage.count("jobs", "state = 'dead'")
    stage.must(dead == 0, f"{dead} jobs are dead")
    console.print("[green]clean[/]: nothing lost, nothing doubled")
