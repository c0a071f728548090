"""WSGI entry point: `gunicorn -c python:app.intake.server web:app`."""

from app.intake import create_app
from app.logs import configure_logs
from app.settings import settings_or_exit

configure_logs()
settings_or_exit()
app = create_app()
