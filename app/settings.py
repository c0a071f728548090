"""Every setting, typed, from the environment, `.env`, or what `tallyhook up` embedded on this machine.

The table of names and meanings is in the README. Secrets are `SecretStr`, so that printing the
settings cannot leak them.
"""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EMBEDDED_ENV = "embedded.env"
"""Written by `tallyhook up` under TALLYHOOK_HOME: the addresses of the parts that it embedded."""

_PREFIX = "TALLYHOOK_"
_FOLDER = "file:///"


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one clear line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _address(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        try:
            urlsplit(value).port  # noqa: B018  (looking is what checks it)
        except ValueError:
            raise ValueError("is not an address (is the password percent-encoded?)") from None
        return value

    return AfterValidator(check)


def _web_address(value: str) -> str:
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be http:// or https:// and a host, as in https://billing.example.com")
    return value


def _mail_address(value: SecretStr) -> SecretStr:
    """What can be seen without asking; `app.mail.transport` reads the rest. Any part of it may be a password."""
    if not value.get_secret_value().startswith(("smtp://", "smtps://", _FOLDER)):
        raise ValueError("must begin with smtp://, smtps:// or file:///")
    return value


def _rate_limit(value: str) -> str:
    try:
        parse_many(value)
    except ValueError:
        raise ValueError("is not a rate limit such as 10/hour") from None
    return value


RateLimit = Annotated[str, AfterValidator(_rate_limit)]


def _mapping(value: object) -> object:
    """`435=teams,Basic Plan=payg`: by name without its letter case."""
    pairs = [part.rpartition("=") for part in value.split(",") if part.strip()] if isinstance(value, str) else []
    if not all(name.strip() and plan.strip() in ("trial", "payg", "teams") for name, _, plan in pairs):
        raise ValueError("is not of the form 435=teams,Basic Plan=payg (trial, payg or teams)")
    return {name.strip().lower(): plan.strip() for name, _, plan in pairs}


WebAddress = Annotated[str, AfterValidator(_web_address)]
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
PlanMapping = Annotated[dict[str, Literal["trial", "payg", "teams"]], NoDecode, BeforeValidator(_mapping)]
Cents = Annotated[int, Field(ge=0)]


class Settings(BaseSettings):
    """What the environment says. Money is integer cents; a `None` is "not configured"."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, validate_assignment=False)

    tallyhook_env: Literal["development", "staging", "production"] = "development"
    tallyhook_home: Path = Path(".tallyhook")

    database_url: Annotated[str, _address("postgresql")] | None = None
    redis_url: Annotated[str, _address("redis", "rediss")] | None = None

    stripe_secret_key: SecretStr | None = None
    stripe_api_base: WebAddress = "https://api.stripe.com"
    stripe_webhook_secrets: SecretList = ()
    github_webhook_secrets: SecretList = ()

    marketplace_plans: PlanMapping = {}

    mail_url: Annotated[SecretStr, AfterValidator(_mail_address)] | None = None
    mail_from: str = "Tallyhook <no-reply@localhost>"
    base_url: WebAddress | None = None
    port: int = Field(default=8000, ge=1, le=65535)

    secret_keys: SecretList = ()
    ops_token: SecretStr | None = None

    billing_enabled: bool = True
    auto_provision: bool = True

    signup_rate_limit: RateLimit = "10/hour"
    api_rate_limit: RateLimit = "600/minute"
    webhook_rate_limit: RateLimit | None = None

    payg_fix_cents: Cents = 1500
    teams_month_cents: Cents = 49900
    teams_included_fixes: int = Field(default=60, ge=0)
    teams_overage_cents: Cents = 800
    trial_fixes: int = Field(default=5, ge=0)
    trial_bonus_fixes: int = Field(default=5, ge=0)

    @model_validator(mode="after")
    def _make_local_secrets(self) -> Self:
        """Outside production, keys that are not given are made once and kept under TALLYHOOK_HOME."""
        if self.tallyhook_env == "production":
            return self
        if not self.secret_keys:
            self.secret_keys = (_local_secret(self.tallyhook_home, "secret_key"),)
        if self.ops_token is None:
            self.ops_token = _local_secret(self.tallyhook_home, "ops_token")
        if self.mail_url is None:
            self.mail_url = SecretStr(f"file://{(self.tallyhook_home / 'mail').resolve()}")
        return self

    @property
    def public_url(self) -> str:
        """Where senders and customers reach the web process, without a trailing slash."""
        return (self.base_url or f"http://localhost:{self.port}").rstrip("/")

    def problems(self) -> list[str]:
        """What keeps this process from running as TALLYHOOK_ENV says, one line each. Empty is good."""
        lacking = []
        if self.tallyhook_env == "production":
            for name, meaning in _PRODUCTION_NEEDS.items():
                if not getattr(self, name):
                    lacking.append(f"{name.upper()} is not set: production needs {meaning}")
            lacking += [f"{name} is not a setting of Tallyhook" for name in unknown_settings()]
            key = self.stripe_secret_key
            if key and "_live_" not in key.get_secret_value():
                lacking.append("STRIPE_SECRET_KEY is a test key: production needs sk_live_… or rk_live_…")
            if self.mail_url and self.mail_url.get_secret_value().startswith(_FOLDER):
                lacking.append(f"MAIL_URL is a folder: production needs {_PRODUCTION_NEEDS['mail_url']}")
        else:
            for name in ("database_url", "redis_url", "stripe_secret_key"):
                if not getattr(self, name):
                    lacking.append(f"{name.upper()} is not set and `tallyhook up` is not running here")
        return lacking


_PRODUCTION_NEEDS = {
    "database_url": "a PostgreSQL of its own, nothing embedded",
    "redis_url": "a Redis of its own, nothing embedded",
    "stripe_secret_key": "Stripe's key, not the sandbox",
    "stripe_webhook_secrets": "the secret of Stripe's webhook endpoint",
    "mail_url": "a mail server (smtp://… or smtps://…)",
    "base_url": "the address that customers open",
    "secret_keys": "a key of its own to seal and sign with",
    "ops_token": "a token of its own for the ops console",
}


def _local_secret(home: Path, name: str) -> SecretStr:
    """The secret kept in a file only its owner can read; made the first time, by whoever comes first."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / name
    while True:
        try:
            kept = path.read_text().strip()
            if kept:
                return SecretStr(kept)
        except FileNotFoundError:
            pass
        fresh = home / f".{name}.{os.getpid()}"
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(32))
        try:
            os.link(fresh, path)  # fails if another process was first: both then read the same secret
        except FileExistsError:
            if not path.stat().st_size:  # its writer died between the two: it can be made again
                path.unlink()
        finally:
            fresh.unlink()


def unknown_settings() -> list[str]:
    """Names in the environment (`TALLYHOOK_…`) and in `.env` that no setting reads."""
    known = {name.upper() for name in Settings.model_fields}
    given = {name for name in os.environ if name.startswith(_PREFIX)} | set(dotenv_values(".env"))
    return sorted(given - known)


def _given(name: str, otherwise: str) -> str:
    return os.environ.get(name) or dotenv_values(".env").get(name) or otherwise


def home_folder() -> Path:
    """TALLYHOOK_HOME, without a look at any other setting."""
    return Path(_given("TALLYHOOK_HOME", ".tallyhook"))


def load_settings(*, embedded: bool = True) -> Settings:
    """Read the settings afresh: the environment first, then `.env`, then what `up` embedded here.

    Args:
        embedded: False leaves the last out, for who is about to embed it.

    Raises:
        SettingsError: a value does not have the form that its setting needs.
    """
    production = _given("TALLYHOOK_ENV", "development") == "production"
    files = [str(home_folder() / EMBEDDED_ENV), ".env"] if embedded and not production else [".env"]
    return _load(files)


def production_lacks() -> list[str]:
    """What is missing for production in what is configured here, be that in force or not: nothing that `up` embedded
    or made counts."""
    return _load([".env"], tallyhook_env="production").problems()


def origins(settings: Settings) -> dict[str, str]:
    """Where each value comes from: `environment`, `.env`, `embedded` (by `up`), `made here` or `default`."""
    places: list[tuple[str, Mapping[str, str | None]]] = [("environment", os.environ), (".env", dotenv_values(".env"))]
    if settings.tallyhook_env != "production":
        places.append(("embedded", dotenv_values(home_folder() / EMBEDDED_ENV)))
    found = {name: "made here" if name in settings.model_fields_set else "default" for name in Settings.model_fields}
    for place, values in reversed(places):
        found |= {name.lower(): place for name, value in values.items() if value and name.lower() in found}
    return found


def _load(files: list[str], **instead: Any) -> Settings:
    try:
        return Settings(_env_file=files, **instead)
    except ValidationError as error:
        # Only the name and the reason: the value may be a secret.
        raise SettingsError(
            [
                f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
        ) from None


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: see `load_settings`.
    """
    return load_settings()


def settings_or_exit() -> Settings:
    """The settings of a process that is to serve; ends the process with a line for each reason if it cannot."""
    try:
        settings = get_settings()
        if problems := settings.problems():
            raise SettingsError(problems)
    except SettingsError as error:
        sys.exit("\n".join(error.problems))
    return settings
