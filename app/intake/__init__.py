"""The intake: authenticate, validate, commit one job, answer (law 9). Nothing here talks to the outside."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.billing import listeners  # noqa: F401  (what billing makes of what is published here)
from app.intake import account, health, observe, openapi, pages, payments, phases, problems, signups, webhooks
from app.intake.bodies import MAX_BYTES
from app.settings import get_settings


def create_app() -> Flask:
    """The WSGI application."""
    app = Flask(__name__)
    # A byte more than we take: a body sent in chunks is cut off there without a word, and must be seen to be longer.
    app.config.update(MAX_CONTENT_LENGTH=MAX_BYTES + 1, MAX_FORM_MEMORY_SIZE=MAX_BYTES)
    observe.install(app)
    problems.install(app)
    for module in (signups, account, phases, payments, webhooks, health, openapi, pages):
        app.register_blueprint(module.blueprint)
    if get_settings().public_url.startswith("https://"):
        # gunicorn speaks plain HTTP: so one proxy stands before it, and says whose request this is.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    return app
