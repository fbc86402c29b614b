"""What a kind of database does in its own way. `Database` does the rest, the same for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from davy.errors import DavyError

BUSY_SECONDS, LAZY_SECONDS = 30.0, 0.1

Mode = Literal["read", "write", "lazy"]
MODE = "davy_mode"


class Backend(Protocol):
    """One database of a kind. Its methods may be called from any thread.

    Attributes:
        place: what messages call it, without a password.
        file: the file that it is, if a file it is.
    """

    place: str
    file: Path | None

    def engine(self) -> sa.Engine:
        """A pool of connections. Called once; nothing is connected yet."""

    def start(self, connection: sa.Connection) -> None:
        """Begin the transaction that the execution option `MODE` asks for.

        `read` is one snapshot that refuses to write. `write` and `lazy` wait for each other, in every process, for
        `BUSY_SECONDS` at least and twice that at most, and see all that was committed when their turn has come: what they read stays true until they end.
        """

    def committed(self, mode: Mode) -> None:
        """A transaction of that mode was committed. What was `lazy` must be safe from a loss of power within `LAZY_SECONDS`."""

    def version(self) -> int:
        """A number that changes when anybody has committed; it may change more often."""

    def explain(self, error: BaseException) -> DavyError | None:
        """Our error for the driver's: what happened to which database, and what to do. None: it is no error of a database."""

    def close(self) -> None:
        """Make safe what was committed lazily, and let go of all but the engine. Closing twice is a no-op; it may be used again."""

    def forget(self) -> None:
        """In a forked child: drop what the parent has opened without touching it."""
