"""What Stripe posts: signed, and an event."""

import time
from collections.abc import Sequence

from flask import request
from pydantic import SecretStr

from app.contracts.webhooks import StripeEvent
from app.intake.problems import Problem
from app.stripe import webhooks


def read(body: bytes, secrets: Sequence[SecretStr]) -> StripeEvent:
    """The job for a request with that body, once one of `secrets` has signed it.

    Raises:
        Problem
    """
    try:
        webhooks.verify(body, request.headers.get("Stripe-Signature"), secrets, time.time())
        return StripeEvent(event=webhooks.read_event(body))
    except (webhooks.NotSigned, webhooks.NotAnEvent) as error:
        raise Problem(400, str(error)) from None
