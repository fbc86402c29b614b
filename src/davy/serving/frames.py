"""The bytes between the gateway and a worker, on a socket of this machine.

A request is a header (u32 bytes that follow, u32 request id, u32 rows) and rows x columns little-endian float64, row by row;
to a model that takes texts, a msgpack array for each row, of floats, texts and nulls.
With DERIVE added to the rows, what follows is msgpack instead: per row the inputs of the version's derived features.
An answer is a header (u32 bytes that follow, u32 request id, u32 rows, u32 columns) and float64 values, or JSON when
columns is LABELS (a list of answers) or ERROR (an error's parts), or msgpack when it is DERIVED (per row its derived values).
"""

from __future__ import annotations

import struct

REQUEST = struct.Struct("<III")
ANSWER = struct.Struct("<IIII")
LENGTH = struct.Struct("<I")
LABELS = 0xFFFF_FFFF
ERROR = 0xFFFF_FFFE
DERIVED = 0xFFFF_FFFD
DERIVE = 0x8000_0000
WARM_UP = 0
REQUEST_REST = REQUEST.size - LENGTH.size
ANSWER_REST = ANSWER.size - LENGTH.size
LARGEST = 256 << 20


def request(number: int, rows: int, values: bytes) -> bytes:
    """One request as bytes."""
    return REQUEST.pack(REQUEST_REST + len(values), number, rows) + values


def answer(number: int, rows: int, columns: int, body: bytes) -> bytes:
    """One answer as bytes."""
    return ANSWER.pack(ANSWER_REST + len(body), number, rows, columns) + body
