"""E-mail addresses: which we take, and when two are the same."""

from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email


class AddressRefused(ValueError):
    """An address that we do not take; the message says what to change."""


def normalise(address: str) -> str:
    """The address as we write to it: Unicode-normalised, its domain in lower case.

    Raises:
        AddressRefused: it is not an address, or its domain gives out throw-away addresses.
    """
    try:
        checked = validate_email(address.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise AddressRefused(str(error)) from None
    if "=?" in checked.local_part:  # an encoded word: mail programs would read another address in it
        raise AddressRefused("The part before the @ must not contain '=?'.")
    domain = checked.ascii_domain.lower()
    labels = domain.split(".")
    if any(".".join(labels[i:]) in blocklist for i in range(len(labels) - 1)):
        raise AddressRefused("Addresses of disposable mail services cannot sign up; give a lasting one.")
    return checked.normalized


def fold(address: str) -> str:
    """What makes two normalised addresses the same customer: all but the case of letters.

    Not `casefold`, which makes straße.de and strasse.de one: they are two domains, with two owners.
    """
    return address.lower()
