"""Secrets: how they are made, and what is kept of them instead.

A password is kept as scrypt's record with its parameters, so that they can be raised later. A token or a session is
256 random bits, of which the SHA-256 is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from base64 import b64decode, b64encode, urlsafe_b64encode
from typing import NamedTuple

from davy.core.clock import SystemClock
from davy.core.digest import digest_bytes
from davy.errors import InvalidInput

PREFIX = "davy_"
SHORTEST, LONGEST = 10, 1024
_MEMORY = 1 << 28
_SYSTEM = SystemClock()  # a driven clock's randomness is for tests


class _Cost(NamedTuple):
    n: int
    r: int
    p: int


# OWASP's choice for 32 MB: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
COST = _Cost(1 << 15, 8, 3)


def random_bytes(size: int = 32) -> bytes:
    """From the machine's source, under any clock."""
    return _SYSTEM.token(size)


def new_secret(prefix: str = "") -> str:
    """256 random bits as text."""
    return prefix + urlsafe_b64encode(random_bytes()).decode().rstrip("=")


def digest_of(secret: str) -> str:
    """What is kept of a token or a session."""
    return digest_bytes(secret.encode("utf-8", "surrogatepass"))


def derived(secret: str, purpose: str) -> str:
    """A text that only who knows the secret can make, and that does not tell it."""
    return hmac.digest(secret.encode(), purpose.encode(), "sha256").hex()[:40]


def same(one: str, other: str) -> bool:
    """Whether they are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def password_record(name: str, password: str) -> str:
    """What is kept of a user's new password; made before the transaction that keeps it, because it takes 0.2 s.

    Raises:
        InvalidInput: too short, too long, the user's own name, or what reads as a token.
    """
    found = unicodedata.normalize("NFKC", password)
    if not SHORTEST <= len(found) <= LONGEST:
        raise InvalidInput(f"The password has {len(found)} characters.", f"It has {SHORTEST} to {LONGEST}.", "Take a longer one; a few words are easy to keep."
                           if len(found) < SHORTEST else "Take a shorter one.")
    name = name.strip().lower()
    if name in found.lower() and len(found) < len(name) + SHORTEST:
        raise InvalidInput("The password is little more than the user's name.", "It must not be guessed from the name.", "Take another.")
    if found.startswith(PREFIX):
        raise InvalidInput(f"The password begins with {PREFIX!r}.", "So do tokens, and one that is sent with a name would be taken for one.", "Take another.")
    salt = random_bytes(16)
    return f"scrypt${COST.n}${COST.r}${COST.p}${b64encode(salt).decode()}${b64encode(_scrypt(found, salt, COST)).decode()}"


def verify_password(password: str, record: str | None) -> bool:
    """Whether this is the record of the password. Without a record it takes as long, and is False."""
    text = unicodedata.normalize("NFKC", password)
    if record is None:
        _scrypt(text, b"no such user ...", COST)
        return False
    _, n, r, p, salt, expected = record.split("$")
    found = _scrypt(text, b64decode(salt), _Cost(int(n), int(r), int(p)))
    return hmac.compare_digest(found, b64decode(expected))


def _scrypt(password: str, salt: bytes, cost: _Cost) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=_MEMORY, dklen=32)
