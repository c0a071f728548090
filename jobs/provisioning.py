"""From a signup to a customer with a Stripe customer, an API key and a welcome mail.

Each step does what is still missing, whoever asks: a second signup with a known address walks the same
four steps, finds everything there, and ends in a sign-in mail.
"""

from app.contracts.provisioning import CreateCustomer, CreateStripeCustomer, IssueApiKey, SendWelcomeEmail
from app.customers import accounts, api_keys, signups
from app.ledger.enqueue import enqueue
from app.ledger.errors import Held, Permanent
from app.ledger.run import Run, handles
from app.mail import messages
from app.mail.links import account_url
from app.mail.transport import send
from app.settings import get_settings
from app.stripe import calls, customers

APPROVAL = "approval"


@handles(CreateCustomer)
def create_customer(run: Run[CreateCustomer]) -> None:
    signup_id = run.payload.signup_id
    with run.transaction() as db:
        signup = signups.get(db, signup_id)
        if signup.status == "rejected":
            raise Permanent("the signup was rejected: `tallyhook signups approve` takes that back")
        held = not get_settings().auto_provision and signup.approved_at is None
        if held:
            signups.set_status(db, signup_id, "awaiting_approval")
    if held:
        raise Held(APPROVAL)
    with run.finish() as db:
        customer_id = accounts.create(
            db, email=signup.email, name=signup.name, wanted_plan=signup.plan, source=signup.source
        )
        signups.set_status(db, signup_id, "provisioning", customer_id)
        enqueue(db, CreateStripeCustomer(signup_id=signup_id, customer_id=customer_id))


@handles(CreateStripeCustomer)
def create_stripe_customer(run: Run[CreateStripeCustomer]) -> None:
    job = run.payload
    with run.transaction() as db:
        customer = accounts.get(db, job.customer_id)
        stripe_id = customer.stripe_customer_id
        if stripe_id is None:
            wanted = customers.customer_parameters(customer_id=customer.id, email=customer.email, name=customer.name)
            call = calls.freeze(db, f"customer:{customer.id}", wanted)
    if stripe_id is None:
        stripe_id = customers.create_customer(call)
    with run.finish() as db:
        accounts.set_stripe_customer(db, job.customer_id, stripe_id)
        enqueue(db, IssueApiKey(signup_id=job.signup_id, customer_id=job.customer_id))


@handles(IssueApiKey)
def issue_api_key(run: Run[IssueApiKey]) -> None:
    job = run.payload
    with run.finish() as db:
        api_keys.issue_first(db, job.customer_id)
        enqueue(db, SendWelcomeEmail(signup_id=job.signup_id, customer_id=job.customer_id))


@handles(SendWelcomeEmail)
def send_welcome_email(run: Run[SendWelcomeEmail]) -> None:
    """A crash after the hand-over repeats the same mail, to the byte: key, link, date and Message-ID."""
    job, date = run.payload, run.claim.created_at
    with run.transaction() as db:
        customer = accounts.get(db, job.customer_id)
        secret = api_keys.sealed_first(db, job.customer_id)
    link = account_url(customer.id, issued_at=date)
    if secret is not None:
        fixes = get_settings().trial_fixes
        send(
            messages.welcome(
                to=customer.email,
                name=customer.name,
                api_key=secret,
                account_url=link,
                trial_fixes=fixes,
                ref=f"welcome:{customer.id}",
                date=date,
            )
        )
    else:
        ref = f"sign-in:{job.signup_id}"
        send(messages.sign_in(to=customer.email, name=customer.name, account_url=link, ref=ref, date=date))
    with run.finish() as db:
        api_keys.wipe_sealed(db, customer.id)
        accounts.mark_welcomed(db, customer.id)
        signups.set_status(db, job.signup_id, "provisioned")
