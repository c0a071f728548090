"""What customers are told by mail, apart from the mails of provisioning."""

from app.contracts.billing import SendNotice
from app.customers import accounts
from app.ledger.run import Run, handles
from app.mail import messages, notices
from app.mail.links import account_url
from app.mail.transport import send


@handles(SendNotice)
def send_notice(run: Run[SendNotice]) -> None:
    """A crash after the hand-over repeats the same mail, to the byte."""
    job, date = run.payload, run.claim.created_at
    told = notices.read(job.kind, job.values)
    with run.transaction() as db:
        customer = accounts.get(db, job.customer_id)
    ref = f"{job.kind}:{customer.id}:{job.ref}"
    link = account_url(customer.id, issued_at=date)
    send(messages.notice(told, to=customer.email, name=customer.name, account_url=link, ref=ref, date=date))
