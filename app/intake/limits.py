"""Rate limits, counted in Redis for all web processes together; in each process alone while Redis is away."""

import hashlib

from flask import g, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.settings import get_settings


def _digest(secret: str) -> str:
    """What stands in Redis in place of a key or an address."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def by_api_key() -> str:
    """Whose budget a request uses: the key's, whatever it is worth; without one the address's."""
    key = request.headers.get("X-API-Key") or request.headers.get("Authorization")
    return _digest(key) if key else get_remote_address()


limiter = Limiter(
    get_remote_address,
    strategy="fixed-window",
    in_memory_fallback_enabled=True,
    key_prefix="tallyhook",
)


def storage() -> dict[str, object]:
    """Flask's settings for `limiter`."""
    patience = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
    url = get_settings().redis_url
    return {"RATELIMIT_STORAGE_URI": url or "memory://", "RATELIMIT_STORAGE_OPTIONS": patience if url else {}}


def signup_limit() -> str:
    """SIGNUP_RATE_LIMIT"""
    return get_settings().signup_rate_limit


def api_limit() -> str:
    """API_RATE_LIMIT"""
    return get_settings().api_rate_limit


limit_signups_of_sender = limiter.shared_limit(signup_limit, scope="signup-sender")
"""One budget for the form and the API."""


def _signup_address() -> str:
    return _digest(g.signup_address)


limit_signups_of_address = limiter.limit(signup_limit, key_func=_signup_address, scope="signup-address")
"""A context: enter it with `g.signup_address` set."""
