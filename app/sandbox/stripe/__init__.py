"""A Stripe of one's own: a small server that speaks the part of Stripe's API (v1) that a billing system with
three plans uses, to stand in for Stripe on a laptop and in tests.

In a test: `with StripeSandbox() as sandbox:` and `StripeClient("sk_test_x", base_addresses={"api":
sandbox.url})`. As a process: `python -m app.sandbox.stripe`, and `SandboxControl(url)` to set faults, move
time and read what happened. A system under test sees a base URL and nothing else.

What is as Stripe's
    Form parameters, `expand`, pagination, the error envelope with its types, codes and statuses; test and live
    mode, which do not see each other; idempotency keys; ids, headers and the shapes of API version
    2026-10-28.endive (tests check every exchange against Stripe's OpenAPI description); events and signed webhooks
    with retries; search that lags; test clocks and renewals; test cards by their names; the hosted pages for
    checkout, authentication and invoices.

What only a sandbox has
    `/_sandbox` (`control`, `mishaps`): faults by operation and by event (`faults.Fault`), a clock that can be moved
    forward (events, idempotency keys, renewals and delivery retries all go by it), a log of requests, disputes,
    failing refunds, cards that change their mind. `config.Settings` says what can be set.

What it deliberately does not do
    It refuses a parameter that it does not know, also where Stripe knows it: nothing is silently ignored. Not there:
    payment methods other than cards, manual capture, charges without an intent, metered and tiered prices, coupons,
    taxes, schedules, `/v1/subscription_items`, `mode=payment` at checkout, Connect, `/v2`. All items of a
    subscription share one period, and show their price as it was when it was chosen. A test clock has done its work
    when `advance` answers (which still says `advancing`). Search sees changes to an object it knows at once. An
    event's `created` is the sandbox's time, also for what a test clock caused. The log of requests and the faults are
    in memory alone.

How it is built
    `server` reads HTTP, `api` takes a request through faults, keys and validation to an operation in `resources`,
    which works on an `account` over the `store`. `payments`, `drafts`, `invoicing`, `cycles` and `plan_changes` hold
    the rules that more than one resource follows; `schedule` runs what falls due; `delivery` posts webhooks.
"""

from app.sandbox.stripe.client import SandboxControl, SandboxRefused, wait_until
from app.sandbox.stripe.delivery import signature_header
from app.sandbox.stripe.sandbox import StripeSandbox

__all__ = ["SandboxControl", "SandboxRefused", "StripeSandbox", "signature_header", "wait_until"]
