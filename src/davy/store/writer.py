"""Group commit: what waits to be written at one moment is written in one transaction, each piece under a savepoint of its own.

One thread writes, so that hundreds of clients neither queue for the database's lock nor pay a commit each. A piece
that fails takes nothing else with it, and nobody is answered before the transaction that holds his piece is committed.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from davy.errors import CorruptData, StorageFull, Unavailable
from davy.store.database import callbacks, direct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        self._door, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Have `work` done in a write transaction; the future holds what it returns once that is committed, or what it raised.

        `work` may be called twice when a neighbour's failure ends the transaction; only the last call counts.

        Raises:
            Unavailable: the writer is closed, or in the fork of the process that it belongs to.
        """
        if self._thread.is_alive():  # in a fork it isn't, and nobody would ever open the door
            piece = _Piece(work)
            with self._door:
                if not self._closed:
                    self._waiting.put(piece)
                    return piece.future
        raise Unavailable("The writer is closed.", "", "Try again with the next server.")

    def close(self) -> None:
        """Write what waits, then end. Closing twice is a no-op."""
        if self._thread.is_alive():
            with self._door:
                if not self._closed:
                    self._closed = True
                    self._waiting.put(None)
            if threading.current_thread() is not self._thread:
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
        try:
            if len(pieces) < 2 or not self._together(pieces):
                for piece in pieces:
                    self._alone(piece)
        except _NotBegunError as error:
            for piece in pieces:
                if not piece.future.done():
                    piece.future.set_exception(error.cause)

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        begun = False
        try:
            with self._database.begin(lazy=self._lazy) as connection:
                begun = True
                yield connection
        except Exception as error:
            if begun:
                raise
            raise _NotBegunError(error) from error

    def _together(self, pieces: list[_Piece]) -> bool:
        """Whether all pieces have been answered; if not, none has been and nothing is written."""
        done = False
        try:
            with self._begin() as connection:
                for piece in pieces:
                    self._attempt(piece, connection)
                done = True
        except _NotBegunError:
            raise
        except BaseException as error:  # noqa: BLE001 - each piece is tried again alone, and hears of its own fault
            if not done or isinstance(error, StorageFull):
                return False
            for piece in pieces:  # it may have been committed all the same: to do it again might be to do it twice
                piece.future.set_exception(error)
            return True
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
            with self._begin() as connection:
                result = piece.work(connection)
        except _NotBegunError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is the caller's to see
            piece.future.set_exception(error)
        else:
            piece.future.set_result(result)


class _NotBegunError(Exception):
    """The database takes no transaction now; who tries again at once for each piece makes the others wait as often."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


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
