"""Derived features with udfs, row by row in a process of its own, so that a user's code never runs in one of ours.

Run as `python -m davy.features.rows`: it reads messages on stdin and answers on stdout, each a u32 length and msgpack. The
first message says what to compute; every other is a list of rows, answered by a list of results or by an error's parts.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import IO, Any

import msgspec

from davy import errors
from davy.errors import DavyError, UdfFailed
from davy.features.definition import DerivedSpec

LENGTH = struct.Struct("<I")
CHUNK = 4096
SAMPLE = 500
_SEEDS = ("0", "1")
_PACK, _UNPACK = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()


class Setup(msgspec.Struct, frozen=True):
    """What a process computes: derived features from inputs in this order."""

    derived: tuple[DerivedSpec, ...]
    inputs: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error's parts, and the row (from 0) that it is about."""

    code: str
    came: str
    allowed: str
    fix: str
    row: int | None = None

    def error(self, first: int | None = None) -> DavyError:
        """The error; with `first`, the position of the first row asked, it names the row."""
        kind = getattr(errors, self.code, UdfFailed)
        came = f"Row {first + self.row}: {self.came}" if first is not None and self.row is not None else self.came
        made: DavyError = kind(came, self.allowed, self.fix)
        return made


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Per row its derived values."""

    rows: list[list[Any]]


_REPLY = msgspec.msgpack.Decoder(Failed | Done)


class RowsProcess:
    """A kernel (see features/expressions/compiler.py) whose rows are computed elsewhere. It starts with the first row and ends with its owner.

    Args:
        seed: of the hashes of texts in that process.
    """

    source = ""

    def __init__(self, derived: Sequence[DerivedSpec], inputs: Sequence[str], *, seed: str = _SEEDS[0]) -> None:
        self.inputs, self.names = tuple(inputs), tuple(spec.name for spec in derived)
        self._setup = Setup(tuple(derived), self.inputs)
        self._seed, self._lock = seed, threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, values: Sequence[Any], /) -> tuple[Any, ...]:
        """One row; see `many`."""
        return tuple(self._ask([values], None)[0])

    def many(self, rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
        """The derived values of every row.

        Raises:
            UdfFailed: a udf raised, or returned what it may not; names the row. InvalidInput: an int beyond 64 bits.
        """
        found: list[list[Any]] = []
        waiting: list[Sequence[Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == CHUNK:
                found += self._ask(waiting, len(found))
                waiting = []
        return found + self._ask(waiting, len(found)) if waiting else found

    def check_repeatable(self, rows: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> None:
        """Compute a sample of rows again: in another process with other hashes, and in the opposite order.

        Raises:
            UdfFailed: a value came out otherwise; names the udf, the row and both values.
        """
        sample = list(range(0, len(rows), max(len(rows) // SAMPLE, 1)))[::-1]
        again = RowsProcess(self._setup.derived, self.inputs, seed=_SEEDS[1]).many([rows[position] for position in sample])
        for position, values in zip(sample, again, strict=True):
            for spec, first, second in zip(self._setup.derived, found[position], values, strict=True):
                if repr(first) != repr(second):
                    given = {name: rows[position][self.inputs.index(name)] for name in spec.inputs if name in self.inputs}
                    raise UdfFailed(f"The udf {spec.name!r} gave {first!r} and then {second!r} for the same row {position} ({given}).",
                                    "A udf's result depends on its arguments alone: neither on chance, the time, earlier calls, nor the order of a set.",
                                    "Remove what changes; sort what has no order.")

    def _ask(self, rows: list[Sequence[Any]], first: int | None) -> list[list[Any]]:
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                _send(process.stdin, _PACK.encode(rows))
                reply = _receive(process.stdout)
            except BrokenPipeError:
                reply = b""
            except BaseException:  # interrupted: what it still answers belongs to nobody
                self._process = None
                process.kill()
                raise
            if not reply:
                self._process = None
                code = process.wait()
                raise UdfFailed(f"The process of the udfs {self._udfs()} ended with {code} while it computed a row.", "A udf may not end its process.",
                                "Call it with the row's values in a test, and mend it.")
        answer: Done | Failed = _REPLY.decode(reply)
        if isinstance(answer, Failed):
            raise answer.error(first)
        return answer.rows

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-P", "-m", "davy.features.rows"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env={**os.environ, "PYTHONHASHSEED": self._seed})
        weakref.finalize(self, _end, process)
        self._process = process
        assert process.stdin is not None
        _send(process.stdin, _PACK.encode(self._setup))
        return process

    def _udfs(self) -> str:
        return ", ".join(spec.name for spec in self._setup.derived if spec.program is not None)


def _send(pipe: IO[bytes], body: bytes) -> None:
    pipe.write(LENGTH.pack(len(body)) + body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """The next message; empty when the other side is gone."""
    head = pipe.read(LENGTH.size)
    return pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.kill()
    process.wait()


def compute(kernel: Any, rows: Sequence[Sequence[Any]]) -> Done | Failed:
    """The derived values of these rows, or what went wrong with the first that fails."""
    found = []
    for position, row in enumerate(rows):
        try:
            found.append(list(kernel(row)))
        except DavyError as error:
            return Failed(error.code, error.came, error.allowed, error.fix, position)
    return Done(found)


def main() -> None:
    """Answer until stdin ends. What a udf prints goes to stderr."""
    from davy.features.expression import compile_kernel

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends this process
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    setup = msgspec.msgpack.decode(_receive(asked), type=Setup)
    trouble: Failed | None = None
    kernel: Any = None
    try:
        kernel = compile_kernel(setup.derived, setup.inputs, udfs_here=True)
    except DavyError as error:
        trouble = Failed(error.code, error.came, error.allowed, error.fix)
    while body := _receive(asked):
        _send(answers, _PACK.encode(trouble or compute(kernel, _UNPACK.decode(body))))


if __name__ == "__main__":
    main()
