"""Users, tokens and sessions in memory, so that a request is admitted without asking the database.

What is held is at most `FRESH_SECONDS` old at a request: then the database's own counter is looked at, and only when
the tables of users have changed are they read again. While the database does not answer, what is held counts for
`STALE_SECONDS` more; a change is never ignored for longer.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import sqlalchemy as sa

from davy.auth.sessions import note_seen
from davy.auth.tokens import note_used
from davy.errors import DavyError, Unavailable
from davy.schema.tables import auth_revision, sessions, tokens, users

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.auth.permissions import Role
    from davy.home import Home

T = TypeVar("T")
FRESH_SECONDS = 0.1
STALE_SECONDS = 10.0
PATIENCE_SECONDS = 0.5
NOTE_SECONDS = 60.0


class HeldUser(msgspec.Struct, frozen=True):
    """What is needed to admit a user."""

    name: str
    role: Role
    record: str | None
    disabled: bool


class HeldToken(msgspec.Struct, frozen=True):
    """What is needed to admit a token; revoked ones are not held."""

    id: str
    owner: str
    role: Role | None
    expires: int | None


class HeldSession(msgspec.Struct, frozen=True):
    """What is needed to admit a session."""

    owner: str
    used: int
    expires: int


class Directory:
    """What is held.

    Attributes:
        users: by name. tokens, sessions: by the digest of their secret.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.users: dict[str, HeldUser] = {}
        self.tokens: dict[str, HeldToken] = {}
        self.sessions: dict[str, HeldSession] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="directory")
        self._version: int | None = None
        self._revision = -1
        self._read_at = self._noted_at = float("-inf")
        self._reading: asyncio.Future[None] | None = None
        self._tokens_used: dict[str, int] = {}
        self._sessions_seen: dict[str, int] = {}

    @property
    def is_fresh(self) -> bool:
        """Whether what is held may be used without asking."""
        return time.monotonic() - self._read_at < FRESH_SECONDS

    async def refresh(self) -> None:
        """Bring what is held up to date.

        Raises:
            Unavailable: the database does not answer, and what is held is too old.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        reading = self._reading
        await asyncio.wait([reading], timeout=PATIENCE_SECONDS)
        error = reading.exception() if reading.done() else None
        if time.monotonic() - self._read_at < STALE_SECONDS:
            return
        if isinstance(error, DavyError):
            raise error
        raise Unavailable("The database with the users does not answer.", "", "Try again.") from error

    async def change(self, work: Callable[[sa.Connection], T]) -> T:
        """Change something in a write transaction; what `work` returns. The next request sees it."""
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._change, work)
        await self.refresh()
        return found

    def later(self, work: Callable[[sa.Connection], None]) -> None:
        """Write something that nobody waits for."""
        self._thread.submit(self._quietly, work)

    def token_used(self, token_id: str, now: int) -> None:
        """Remember it for the next note."""
        self._tokens_used[token_id] = now

    def session_seen(self, digest: str, now: int) -> None:
        """Remember it for the next note."""
        self._sessions_seen[digest] = now

    def last_seen(self, digest: str, session: HeldSession) -> int:
        """When this session was last used."""
        return max(session.used, self._sessions_seen.get(digest, 0))

    def close(self) -> None:
        """Note what was used, and let go."""
        self._thread.submit(self._note)
        self._thread.shutdown()

    def _change(self, work: Callable[[sa.Connection], T]) -> T:
        with self._home.database.begin() as connection:
            found = work(connection)
        self._version = None
        return found

    def _quietly(self, work: Callable[[sa.Connection], None]) -> None:
        try:
            with self._home.database.begin() as connection:
                work(connection)
        except DavyError:
            return  # it is written when the database is there again, or not at all: no request hangs on it

    def _look(self) -> None:
        began = time.monotonic()
        version = self._home.database.version()
        if version != self._version:
            with self._home.database.read() as connection:
                revision = connection.execute(sa.select(auth_revision.c.revision)).scalar() or 0
                if revision != self._revision:
                    self._hold(connection)
                    self._revision = revision
            self._version = version
        self._read_at = began
        if began - self._noted_at > NOTE_SECONDS and (self._tokens_used or self._sessions_seen):
            self._noted_at = began
            self._thread.submit(self._note)

    def _hold(self, connection: sa.Connection) -> None:
        """Each table is put in place as a whole, so that a request sees the old or the new one."""
        self.users = {row.name: HeldUser(row.name, cast("Role", row.role), row.password, row.disabled is not None)
                      for row in connection.execute(sa.select(users))}
        self.tokens = {row.digest: HeldToken(row.token_id, row.owner, cast("Role | None", row.role), row.expires)
                       for row in connection.execute(sa.select(tokens).where(tokens.c.revoked.is_(None)))}
        self.sessions = {row.digest: HeldSession(row.owner, row.used, row.expires) for row in connection.execute(sa.select(sessions))}
        for digest, moment in list(self._sessions_seen.items()):
            held = self.sessions.get(digest)
            if held is None or held.used >= moment:
                self._sessions_seen.pop(digest, None)

    def _note(self) -> None:
        """Keep when tokens and sessions were used: to the minute, so that reading costs no write each time."""
        used, self._tokens_used = self._tokens_used, {}
        seen = dict(self._sessions_seen)  # these stay until the table that holds them is read again: they keep sessions alive
        if used or seen:

            def write(connection: sa.Connection) -> None:
                note_used(connection, used)
                note_seen(connection, seen)

            self._quietly(write)
            self._version = None
