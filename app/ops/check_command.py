"""`tallyhook check`: the settings and where they come from, what production lacks, and whether everything answers."""

from typing import Any

import redis
import typer
from sqlalchemy.exc import DBAPIError

from app.db import transaction
from app.ledger.bell import get_redis
from app.ledger.errors import JobError, Transient
from app.logs import redact_text
from app.mail import transport
from app.ops.output import JsonOption, print_json, print_rows, say
from app.settings import Settings, SettingsError, get_settings, origins, production_lacks, unknown_settings
from app.stripe.catalog import TEAMS_LOOKUP_KEY
from app.stripe.client import asking, client


def check(as_json: JsonOption = False) -> None:
    """Print what is set, what production still lacks, and whether PostgreSQL, Redis, Stripe and the mail server answer.

    Nothing is sent or charged.
    """
    settings = get_settings()
    rows = [
        {"setting": name.upper(), "value": _shown(getattr(settings, name)), "from": origin}
        for name, origin in origins(settings).items()
    ]
    broken = [*settings.problems(), *_connection_problems(settings)]
    if settings.tallyhook_env == "production":
        lacking: list[str] = []
    else:
        lacking = production_lacks()
        broken += [f"{name} is not a setting of Tallyhook" for name in unknown_settings()]
    if as_json:
        print_json({"ok": not broken, "settings": rows, "problems": broken, "production_lacks": lacking})
    else:
        print_rows(rows, ("setting", "value", "from"), "")
        for line in lacking:
            say(f"for production: {line}", "dim")
        for line in broken:
            say(line, "red")
        if not broken:
            say("all connections answer", "green")
    if broken:
        raise typer.Exit(1)


def _shown(value: Any) -> str | None:
    """As it would be written in the environment, without secrets."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value)) or None
        case dict():
            return ",".join(f"{name}={plan}" for name, plan in value.items()) or None
        case _:
            return redact_text(str(value))


def _connection_problems(settings: Settings) -> list[str]:
    problems = []
    if settings.database_url:
        problems += _database_problems()
    if settings.redis_url:
        try:
            get_redis().ping()
        except redis.RedisError as error:
            problems.append(f"REDIS_URL: Redis cannot be reached: {type(error).__name__}")
    if settings.stripe_secret_key:
        problems += _stripe_problems()
    if settings.mail_url:
        problems += _mail_problems(settings.mail_url.get_secret_value())
    return problems


def _database_problems() -> list[str]:
    from app.migrations import current, newest  # Alembic is slow to load

    try:
        with transaction() as db:
            revision = current(db)
    except DBAPIError as error:
        return [f"DATABASE_URL: PostgreSQL cannot be reached: {type(error.orig).__name__}"]
    if revision != newest():
        return [f"the database is at revision {revision}, not {newest()}: run `tallyhook db migrate`"]
    return []


def _stripe_problems() -> list[str]:
    try:
        with asking():
            client().v1.prices.list({"lookup_keys": [TEAMS_LOOKUP_KEY], "limit": 1})
    except Transient as error:  # 401, 403
        return [f"STRIPE_SECRET_KEY: Stripe does not take this key: {error}"]
    except JobError as error:
        reason = type(error.__cause__).__name__ if error.__cause__ else str(error)
        return [f"STRIPE_API_BASE: Stripe cannot be reached: {reason}"]
    return []


def _mail_problems(mail_url: str) -> list[str]:
    try:
        transport.probe(mail_url)
    except SettingsError as error:
        return error.problems
    except JobError as error:
        return [f"MAIL_URL: {error}"]
    return []
