"""The four commands of provisioning, in their order (architecture.md, "Provisioning, step by step")."""

from uuid import UUID

from app.ledger.command import Command


class CreateCustomer(Command, queue="provisioning"):
    """Make the customer row for a signup, or find the customer whose address it is."""

    signup_id: UUID

    @property
    def dedup_key(self) -> str:
        return f"signup:{self.signup_id}:{self.name}"


class _Step(Command, queue="provisioning"):
    signup_id: UUID
    customer_id: int

    @property
    def dedup_key(self) -> str:
        return f"signup:{self.signup_id}:{self.name}"

    @property
    def serialize_by(self) -> str:
        return f"customer:{self.customer_id}"

    @property
    def about_customer(self) -> int:
        return self.customer_id


class CreateStripeCustomer(_Step, queue="provisioning"):
    """Make the customer's counterpart in Stripe."""


class IssueApiKey(_Step, queue="provisioning"):
    """Issue the customer's first API key, sealed until it has been mailed."""


class SendWelcomeEmail(_Step, queue="mail", max_attempts=40):
    """Mail the key and a link to the account; to a customer who was there before, the link alone."""


STEPS: tuple[type[Command], ...] = (CreateCustomer, CreateStripeCustomer, IssueApiKey, SendWelcomeEmail)
