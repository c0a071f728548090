"""API-key authentication."""

from flask import g, request

from app.customers.api_keys import authenticate, plausible
from app.intake.limits import Budget, digest, spend
from app.intake.problems import Problem
from app.settings import get_settings


def require_api_key() -> None:
    """Set `g.customer_id`; a `before_request` of the blueprints that customers use.

    Raises:
        Problem: 401 without a key, or with one that is unknown or revoked; 429 over the key's limit.
    """
    key = request.headers.get("X-API-Key")
    if key is None:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        key = credentials.strip() if scheme.lower() == "bearer" else ""
    # Counted before the key is looked at, so that guessing is limited, too; and in one round trip with reading it.
    budget = Budget(get_settings().api_rate_limit, "api", digest(key) if key else request.remote_addr or "")
    if plausible(key):
        customer_id = authenticate(key, lambda name: spend(budget, read=name))
    else:
        spend(budget)
        customer_id = None
    if customer_id is None:
        reason = "The API key is not valid." if key else "Send your API key in the X-API-Key header."
        raise Problem(401, reason, headers={"WWW-Authenticate": 'Bearer realm="tallyhook"'})
    g.customer_id = customer_id
