"""One version's process: it loads the model, answers a warm-up, then predicts whatever its gateways send.

Run as `python -m davy.serving.worker SPEC FD PARENT`: a file that says what to load, a listening socket it inherits (so that
connections wait, and are not refused, while a dead worker is replaced), and the process it ends with. Everything that is queued on its sockets is
predicted as one batch. It imports only what the model's format needs.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numpy is loaded, and only in a process of its own
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import msgspec
import numpy as np

from davy.code import use_code
from davy.errors import DavyError, InvalidInput
from davy.serving import frames
from davy.serving.logged import Matrix
from davy.serving.models import LightGBM, Model, load, verify
from davy.serving.worker_spec import Problem, WorkerSpec

RECEIVE = 1 << 20
LARGEST_BATCH = 1024
PARENT_SECONDS = 1.0
MEMORY_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROWS = msgspec.msgpack.Decoder(list[list[float | str | None]])


class _Peer:
    """One connected gateway: bytes that came, and answers not yet taken."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()
        self.blocked = False

    def receive(self) -> bool:
        """Take what has come; False when the other side is gone."""
        try:
            data = self.connection.recv(RECEIVE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        return bool(data)

    def send(self) -> bool:
        """Give what can be taken; False when the other side is gone."""
        try:
            while self.unsent:
                del self.unsent[: self.connection.send(self.unsent)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Worker:
    """Serves one model over a listening socket until its parent is gone.

    Args:
        kernel: of the version's derived features, when it computes them here.
        memory: megabytes beyond which it ends, 0 for three quarters of the machine's: a model that leaks must not take others with it.
        texts: whether rows hold texts.
    """

    def __init__(self, model: Model, width: int, listener: socket.socket, parent: int, kernel: Any = None, memory: int = 0, *, texts: bool = False) -> None:
        self._kernel, self._texts = kernel, texts
        self._most, self._weighed = memory << 20 or os.sysconf("SC_PHYS_PAGES") * _PAGE // 4 * 3, 0.0
        self._model, self._width, self._listener, self._parent = model, width, listener, parent
        self._poll = select.poll()
        self._peers: dict[int, _Peer] = {}
        listener.setblocking(False)
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Answer until the process that started this one is gone, or this one has grown too large."""
        listening = self._listener.fileno()
        while os.getppid() == self._parent:
            for descriptor, _ in self._poll.poll(PARENT_SECONDS * 1000):
                if descriptor == listening:
                    self._accept()
                    continue
                peer = self._peers[descriptor]
                if not peer.receive():
                    self._drop(descriptor)
            self._answer()
            if self._is_too_large():
                print(f"A worker holds more than {self._most >> 20} MB, the limit of serving.memory_mb, and ends.", file=sys.stderr, flush=True)
                return

    def _is_too_large(self) -> bool:
        """Weighed a few times a second, where the system tells."""
        now = time.monotonic()
        if now - self._weighed < MEMORY_SECONDS:
            return False
        self._weighed = now
        try:
            with open("/proc/self/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE > self._most
        except OSError:
            return False

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._peers[connection.fileno()] = _Peer(connection)
            self._poll.register(connection, select.POLLIN)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._peers.pop(descriptor).connection.close()

    def _answer(self) -> None:
        for descriptor, peer in list(self._peers.items()):
            if peer.received:
                taken, requests = split(peer.received, self._width)
                if requests:
                    if self._kernel is not None:
                        peer.unsent += b"".join(derive(self._kernel, request) for request in requests if request[1] & frames.DERIVE)
                        requests = [request for request in requests if not request[1] & frames.DERIVE]
                    if requests:
                        peer.unsent += predict_batch(self._model, self._width, requests, texts=self._texts)
                    del requests
                    del peer.received[:taken]
            if not peer.unsent:
                continue
            if not peer.send():
                self._drop(descriptor)
            elif bool(peer.unsent) != peer.blocked:
                peer.blocked = bool(peer.unsent)
                self._poll.modify(descriptor, select.POLLIN | (select.POLLOUT if peer.blocked else 0))


def split(received: bytearray, width: int) -> tuple[int, list[tuple[int, int, bytes]]]:
    """(bytes used, whole requests as (id, rows, values)) of what has come so far, up to a batch."""
    at, rows_taken, found = 0, 0, []
    while len(received) - at >= frames.REQUEST.size and rows_taken < LARGEST_BATCH:
        length, number, rows = frames.REQUEST.unpack_from(received, at)
        end = at + frames.LENGTH.size + length
        if len(received) < end:
            break
        found.append((number, rows, bytes(received[at + frames.REQUEST.size : end])))
        rows_taken += rows & ~frames.DERIVE
        at = end
    return at, found


def derive(kernel: Any, request: tuple[int, int, bytes]) -> bytes:
    """The derived values of one request's rows, or the error of the first that fails."""
    from davy.features.rows import Failed, compute

    number, rows, body = request
    found = compute(kernel, msgspec.msgpack.decode(body))
    if isinstance(found, Failed):
        error = found.error(0 if rows & ~frames.DERIVE > 1 else None)
        return frames.answer(number, rows, frames.ERROR, msgspec.json.encode(Problem.of(error)))
    return frames.answer(number, rows, frames.DERIVED, msgspec.msgpack.encode(found.rows))


def predict_batch(model: Model, width: int, requests: list[tuple[int, int, bytes]], *, texts: bool = False) -> bytes:
    """The answers of all requests. When the batch as a whole raises, each is tried alone, so that only the guilty one fails."""
    if len(requests) == 1:
        return _predict_alone(model, width, requests[0], texts)
    total = sum(rows for _, rows, _ in requests)
    try:
        if not texts and any(len(values) != rows * width * 8 for _, rows, values in requests):
            raise ValueError("a request whose bytes are not its rows")
        found = _checked(model.predict(_matrix(b"".join(values for _, _, values in requests), total, width, texts)), total)
    except Exception:  # noqa: BLE001 - a user's model may raise anything; the rows are tried one request at a time
        return b"".join(_predict_alone(model, width, request, texts) for request in requests)
    out, start = [], 0
    for number, rows, _ in requests:
        out.append(_encode(number, rows, found[start : start + rows]))
        start += rows
    return b"".join(out)


def _predict_alone(model: Model, width: int, request: tuple[int, int, bytes], texts: bool) -> bytes:
    number, rows, values = request
    try:
        if rows == 1 and isinstance(model, LightGBM) and len(values) == width * 8:
            answer = model.predict_row(values)
            return frames.answer(number, 1, len(answer) // 8, answer)
        return _encode(number, rows, _checked(model.predict(_matrix(values, rows, width, texts)), rows))
    except Exception as error:  # noqa: BLE001 - a user's model may raise anything; the error is that request's answer
        return frames.answer(number, rows, frames.ERROR, msgspec.json.encode(Problem.of(error)))


def _matrix(values: bytes, rows: int, width: int, texts: bool) -> Matrix:
    """Rows as a model takes them: float64, or objects where texts are among them."""
    if not texts:
        return np.frombuffer(values, dtype="<f8").reshape(rows, width)
    found = _ROWS.decode(b"\xdd" + rows.to_bytes(4, "big") + values)  # an array of that many
    return np.array(found, dtype=object).reshape(rows, width)


def _checked(found: Matrix | list[Any], rows: int) -> Matrix | list[Any]:
    if len(found) != rows:
        raise ValueError(f"{len(found)} answers for {rows} rows")
    return found


def _encode(number: int, rows: int, found: Matrix | list[Any]) -> bytes:
    if isinstance(found, list):
        return frames.answer(number, rows, frames.LABELS, msgspec.json.encode(found))
    return frames.answer(number, rows, 1 if found.ndim == 1 else found.shape[1], np.ascontiguousarray(found, dtype="<f8").tobytes())


def open_model(spec: WorkerSpec) -> Model:
    """The model, its files checked against their digests first, then warmed up with one row of zeros (and empty texts) and one of nulls.

    Raises:
        CorruptData, UnsafeModel, MissingExtra, InvalidInput: it can't be served; says why.
    """
    folder = Path(spec.folder)
    verify(folder, spec.files)
    use_code(folder, Path(spec.project))
    model = load(folder, spec.format, output=spec.output, allow_globals=spec.allow_globals, columns=spec.columns, kinds=spec.kinds)
    if model.width is not None and model.width != spec.width:
        raise DavyError(f"The model {spec.model}@{spec.version} takes {model.width} columns, but its signature lists {spec.width}.",
                        "They are written together when a version is registered.", "Train and register the version again.")
    rows = np.array([[0.0] * spec.width, [np.nan] * spec.width])
    if spec.texts:
        is_text = [kind == "str" for kind in spec.kinds]
        rows = np.array([["" if text else 0.0 for text in is_text], [None if text else np.nan for text in is_text]], dtype=object)
    for row in (rows[:1], rows[1:], rows):
        with contextlib.suppress(Exception):  # a model may refuse nulls; that is its answer to such a request
            model.predict(row)
    try:
        model.predict(rows[:1])
    except (InvalidInput, ValueError):
        if not spec.columns:  # one that was logged elsewhere may know neither zeros nor empty texts
            raise
    return model


def open_kernel(spec: WorkerSpec) -> Any:
    """The kernel of the derived features that this process computes, if any."""
    if not spec.derived:
        return None
    from davy.features.expression import compile_kernel

    return compile_kernel(spec.derived, spec.inputs, udfs_here=True)


def main(arguments: list[str]) -> int:
    """Load, then serve. What keeps it from serving is written beside the specification, for the gateway to tell."""
    path, descriptor, parent = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    trouble = path.with_suffix(".error")
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=WorkerSpec)
        model, kernel = open_model(spec), open_kernel(spec)
    except Exception as error:  # noqa: BLE001 - a user's model may raise anything while it loads or warms up
        scratch = path.with_suffix(f".error.{os.getpid()}")
        scratch.write_bytes(msgspec.json.encode(Problem.of(error)))
        scratch.rename(trouble)
        return 1
    trouble.unlink(missing_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        Worker(model, spec.width, socket.socket(fileno=descriptor), parent, kernel, spec.memory, texts=spec.texts).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
