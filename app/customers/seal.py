"""Sealing: what must be kept readable for a while is kept encrypted, under keys that can be rotated."""

import base64
import hashlib
from functools import cache

from cryptography.fernet import Fernet, MultiFernet

from app.settings import get_settings


@cache
def _box() -> MultiFernet:
    """SECRET_KEYS are passphrases of any form; Fernet wants 32 bytes. The first seals, all open."""
    return MultiFernet(
        [
            Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"seal:" + key.get_secret_value().encode()).digest()))
            for key in get_settings().secret_keys
        ]
    )


def seal(secret: str) -> bytes:
    """`secret`, encrypted and authenticated."""
    return _box().encrypt(secret.encode())


def unseal(sealed: bytes) -> str:
    """The secret again.

    Raises:
        cryptography.fernet.InvalidToken: none of SECRET_KEYS sealed it.
    """
    return _box().decrypt(sealed).decode()
