"""Group commit: what waits to be written at one moment is written in one transaction, each piece under a savepoint of its own.

One thread writes, so that hundreds of clients neither queue for the database's lock nor pay a commit each. A piece
that fails takes nothing else with it, and nobody is answered before the transaction that holds his piece is committed.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from davy.errors import CorruptData, StorageFull, Unavailable
from davy.store.database import callbacks, direct

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from davy.store.database import Database

T = TypeVar("T")
MOST_TOGETHER = 128


class GroupWriter:
    """Writes for many.

    Args:
        lazy: a committed piece survives the end of every process at once, and the loss of power within 100 ms; else both at once.
    """

    def __init__(self, database: Database, *, lazy: bool) -> None:
        self._database, self._lazy = database, lazy
        self._waiting: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Have `work` done in a write transaction; the future holds what it returns once that is committed, or what it raised.

        `work` may be called twice when a neighbour's failure ends the transaction; only the last call counts.

        Raises:
            Unavailable: the writer is closed, or in the fork of the process that it belongs to.
        """
        if self._closed:
            raise Unavailable("The writer is closed.", "", "Try again with the next server.")
        piece = _Piece(work)
        self._waiting.put(piece)
        return piece.future

    def close(self) -> None:
        """Write what waits, then end. Closing twice is a no-op."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            pieces, ended = [first], False
            while len(pieces) < MOST_TOGETHER and not ended:
                try:
                    found = self._waiting.get_nowait()
                except queue.Empty:
                    break
                ended = found is None
                if found is not None:
                    pieces.append(found)
            self._write(pieces)
            if ended:
                return

    def _write(self, pieces: list[_Piece]) -> None:
        pieces = [piece for piece in pieces if piece.future.set_running_or_notify_cancel()]
        if len(pieces) > 1 and self._together(pieces):
            return
        for piece in pieces:
            self._alone(piece)

    def _together(self, pieces: list[_Piece]) -> bool:
        """Whether all pieces have been answered; if not, none has been and nothing is written."""
        try:
            with self._database.begin(lazy=self._lazy) as connection:
                for piece in pieces:
                    self._attempt(piece, connection)
        except Exception:  # noqa: BLE001 - each piece is tried again alone, and hears of its own fault
            return False
        for piece in pieces:
            piece.answer()
        return True

    def _attempt(self, piece: _Piece, connection: sa.Connection) -> None:
        """Do the work under a savepoint; what it raises is kept and undone, unless the database itself has failed."""
        piece.error = None
        after = callbacks(connection)
        before = len(after)
        direct(connection, "SAVEPOINT piece")
        try:
            with self._database.translated():
                piece.result = piece.work(connection)
        except (StorageFull, Unavailable, CorruptData):
            raise
        except Exception as error:  # noqa: BLE001 - kept for the caller
            piece.error = error
            del after[before:]
            direct(connection, "ROLLBACK TO SAVEPOINT piece")
        direct(connection, "RELEASE SAVEPOINT piece")

    def _alone(self, piece: _Piece) -> None:
        try:
            with self._database.begin(lazy=self._lazy) as connection:
                result = piece.work(connection)
        except BaseException as error:  # noqa: BLE001 - it is the caller's to see
            piece.future.set_exception(error)
        else:
            piece.future.set_result(result)


class _Piece:
    def __init__(self, work: Callable[[sa.Connection], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.result: Any = None
        self.error: Exception | None = None

    def answer(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)
