"""Entity keys as bytes: equal keys give equal bytes, different keys different ones."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 400
_INT = struct.Struct(">BQ")
_TEXT = struct.Struct(">BH")
_SIGN = 1 << 63


def encode_key(values: Sequence[Any]) -> bytes | None:
    """The bytes of stored key values (int or str), or None where one of them is null: such an event is about no entity.

    Parts are tagged and length-prefixed, so that ("a", "bc") and ("ab", "c") differ. Longer keys than `LONGEST`
    become their SHA-256.
    """
    parts = []
    for value in values:
        if value is None:
            return None
        if isinstance(value, str):
            raw = value.encode()
            if len(raw) > 0xFFFF:
                raw = hashlib.sha256(raw).digest()
                parts.append(b"\x03" + raw)
                continue
            parts.append(_TEXT.pack(2, len(raw)) + raw)
        else:
            parts.append(_INT.pack(1, value + _SIGN))
    key = parts[0] if len(parts) == 1 else b"".join(parts)
    return key if len(key) <= LONGEST else b"\x00" + hashlib.sha256(key).digest()


def encode_id(identity: str) -> bytes:
    """The 16 bytes under which an event's identity is remembered."""
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()
