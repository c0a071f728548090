"""WSGI entry point: `gunicorn -c python:app.intake.server web:app`."""

import sys

from app.intake import create_app
from app.logs import configure_logs
from app.settings import SettingsError, get_settings

configure_logs()
try:
    if problems := get_settings().problems():
        raise SettingsError(problems)
except SettingsError as error:
    sys.exit("\n".join(error.problems))

app = create_app()
