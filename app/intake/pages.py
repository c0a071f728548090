"""The plain pages that a person opens: signing up, watching it happen, and the account."""

import re
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WsgiResponse

from app.billing import bills, payment_methods, usage
from app.billing.status import billing_status
from app.contracts.billing import CompleteCheckout
from app.contracts.http import SignupBody, UsageQuery
from app.customers import accounts, api_keys, signups
from app.db import transaction
from app.intake.bodies import read_body, validated
from app.intake.problems import Problem
from app.intake.signups import take_signup
from app.ledger.enqueue import enqueue
from app.mail.links import BadLink, open_account_token
from app.money import dollars

blueprint = Blueprint("pages", __name__)

_FIELDS = ("email", "name", "plan")
_BILLS = 20
_FINAL = ("provisioned", "failed", "rejected")


@blueprint.get("/")
def home() -> WsgiResponse:
    return redirect(url_for("pages.signup_form"))


@blueprint.get("/signup")
def signup_form() -> str:
    return render_template("signup.html", given={}, errors=[])


def _read_form() -> SignupBody:
    read_body()
    given = {name: request.form.get(name, "") for name in _FIELDS}
    return validated(SignupBody, {name: value for name, value in given.items() if value}, "form")


@blueprint.post("/signup")
def sign_up() -> WsgiResponse:
    try:
        signup_id, _ = take_signup(_read_form, None)
    except Problem as refused:
        if refused.errors is None:
            raise
        errors = [f"{item['loc'][0]}: {item['msg']}" for item in refused.errors]
        return make_response(render_template("signup.html", given=request.form, errors=errors), 422)
    return redirect(url_for("pages.signup_progress", signup_id=signup_id), 303)


@blueprint.get("/signup/<uuid:signup_id>")
def signup_progress(signup_id: UUID) -> Response:
    try:
        with transaction() as db:
            status, steps = signups.progress(db, signup_id)
    except signups.NoSuchSignup:
        raise Problem(404, "There is no signup with this id.") from None
    return _private(render_template("progress.html", status=status, steps=steps, final=status in _FINAL))


@blueprint.get("/account")
def account() -> Response:
    last_days = UsageQuery()
    try:
        customer_id = open_account_token(request.args.get("token", ""))
        with transaction() as db:
            shown = {
                "customer": accounts.get(db, customer_id),
                "status": billing_status(db, customer_id),
                "cards": payment_methods.listing(db, customer_id),
                "usage": usage.usage(db, customer_id, last_days.start, last_days.end),
                "bills": bills.bills(db, customer_id, limit=_BILLS),
                "keys": api_keys.active(db, customer_id),
            }
    except BadLink as error:
        return _private(render_template("badlink.html", reason=str(error)), 403)
    except accounts.NoSuchCustomer:
        return _private(render_template("badlink.html", reason="This account no longer exists."), 403)
    return _private(render_template("account.html", dollars=dollars, **shown))


_PAGE_ID = re.compile(r"cs_[A-Za-z0-9_]{1,200}")


@blueprint.get("/billing/return")
def return_from_checkout() -> Response:
    """Where Stripe Checkout sends its customer. Stripe tells of it by a webhook as well, which may be late."""
    try:
        token = request.args.get("token", "")
        customer_id = open_account_token(token)
    except BadLink as error:
        return _private(render_template("badlink.html", reason=str(error)), 403)
    session_id = request.args.get("session", "")
    if not _PAGE_ID.fullmatch(session_id):
        return _private(render_template("badlink.html", reason="This is no page of Stripe Checkout."), 400)
    occasion = f"return:{customer_id}"
    with transaction() as db:
        enqueue(db, CompleteCheckout(customer_id=customer_id, session_id=session_id, occasion=occasion))
    return _private(render_template("checkout.html", account=url_for("pages.account", token=token)))


def _private(page: str, status: int = 200) -> Response:
    """A page that is for whoever holds its address: kept by no cache, told to no other site."""
    response = make_response(page, status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
