"""Records with arrays as few bytes: MessagePack, integers in the narrowest type that holds them, deflated."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

import msgspec
import numpy as np

from davy.errors import CorruptData

T = TypeVar("T")


def pack(value: Any) -> bytes:
    """The bytes of a msgspec Struct that may hold numpy arrays."""
    return zlib.compress(msgspec.msgpack.encode(value, enc_hook=_plain), 1)


def unpack(data: bytes, kind: type[T]) -> T:
    """The record that `pack` wrote.

    Raises:
        CorruptData: it is not such a record.
    """
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=kind, dec_hook=_array)
    except (zlib.error, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptData(f"A stored {kind.__name__} can't be read: {error}.", "", "Make it anew: davy monitor --rebuild") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        narrow = _narrow(value)
        return [narrow.dtype.str, list(narrow.shape), value.dtype.str, narrow.tobytes()]
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value))


def _narrow(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "i" or not value.size:
        return value
    for kind in (np.int8, np.int16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= value.min() and value.max() <= limits.max:
            return value.astype(kind)
    return value


def _array(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        stored, shape, dtype, data = value
        return np.frombuffer(data, dtype=np.dtype(stored)).reshape(shape).astype(np.dtype(dtype))
    raise NotImplementedError(kind)
