"""A Stripe of one's own: a small server that speaks the part of Stripe's API (v1) that a billing system with
three plans uses, to stand in for Stripe on a laptop and in tests.

In a test: `with StripeSandbox() as sandbox:` and `StripeClient("sk_test_x", base_addresses={"api":
sandbox.url})`. As a process: `python -m app.sandbox.stripe`, and `SandboxControl(url)` to set faults, move
time and read what happened.
"""

from app.sandbox.stripe.client import SandboxControl, SandboxRefused, wait_until
from app.sandbox.stripe.delivery import signature_header
from app.sandbox.stripe.sandbox import StripeSandbox

__all__ = ["SandboxControl", "SandboxRefused", "StripeSandbox", "signature_header", "wait_until"]
