"""Confirms passwords: hashed once on a thread, then known for a while; and not hashed at all where too many have failed."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from davy.auth.attempts import ADDRESS, USER, Attempts
from davy.auth.origin import network_of
from davy.auth.secrets import password_record, random_bytes, verify_password
from davy.errors import TooManyAttempts, Unauthenticated, Unavailable
from davy.store import journal

if TYPE_CHECKING:
    import sqlalchemy as sa

    from davy.auth.directory import Directory, HeldUser
    from davy.core.clock import Clock

KNOWN_SECONDS = 600.0
MOST_KNOWN = 4096
HASHES_AT_ONCE = 2
MOST_WAITING = 100
JOURNALED = frozenset(10**power // 2 for power in range(1, 8))
MOST_JOURNALED_AN_HOUR = 60


class Passwords:
    """What a server knows of its users' passwords.

    A pair of name and password that was right is known by its digest under a key that only this process has. The digest covers the
    password's record too, so that a changed password is not known any more.
    """

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory, self._clock = directory, clock
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="scrypt")
        self._key = random_bytes()
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[bool]] = {}
        self._users, self._addresses = Attempts(USER), Attempts(ADDRESS)
        self._journaled: dict[str, deque[float]] = {}

    async def confirm(self, name: str, password: str, address: str) -> HeldUser:
        """Whose name and password these are.

        Raises:
            Unauthenticated: nobody's. TooManyAttempts: that has been so too often. Unavailable: too many log in at once.
        """
        user, record, key = self._held(name, password)
        if record is None or self._known.get(key, 0.0) < time.monotonic():
            await self._directory.refresh()
            user, record, key = self._held(name, password)
            check = self._checking.get(key)
            if check is None:
                if len(self._checking) >= MOST_WAITING:
                    raise Unavailable("Too many logins come at once.", "", "Try again in a moment.")
                check = asyncio.create_task(self._check(name, password, record, key, address))
                self._checking[key] = check
                check.add_done_callback(lambda _: self._checking.pop(key, None))
            if not await asyncio.shield(check):
                raise _wrong()
            user = self._directory.users.get(name)
        if user is None or user.disabled or user.record != record:
            raise _wrong()
        return user

    async def record(self, name: str, password: str) -> str:
        """What is kept of a user's new password.

        Raises:
            InvalidInput: it can't be one.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, password_record, name, password)

    def close(self) -> None:
        """Let go of threads."""
        self._threads.shutdown(cancel_futures=True)

    def _held(self, name: str, password: str) -> tuple[HeldUser | None, str | None, bytes]:
        """The user, the record that the password must fit, and the digest by which the two are known."""
        user = self._directory.users.get(name)
        record = user.record if user is not None and not user.disabled else None
        return user, record, hmac.digest(self._key, "\0".join((name, password, record or "")).encode("utf-8", "surrogatepass"), "sha256")

    async def _check(self, name: str, password: str, record: str | None, key: bytes, address: str) -> bool:
        """Hash the password; the same for a user who is not there. It counts as failed meanwhile."""
        now, name, network = self._clock.now() / 1e6, name[:64], network_of(address)
        by_address = self._addresses.begin(network, now)  # first: an address that must wait does not make a user wait too
        try:
            by_user = self._users.begin(name, now)
        except TooManyAttempts:
            self._addresses.take_back(network)  # nothing was looked at: who is held up by others' guesses does not hold up their neighbours
            raise
        good = await asyncio.get_running_loop().run_in_executor(self._threads, verify_password, password, record)
        if good:
            self._users.succeed(name)
            self._addresses.take_back(network)
            self._known[key] = time.monotonic() + KNOWN_SECONDS
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        elif by_user in JOURNALED or by_address in JOURNALED:
            self._journal(name if name in self._directory.users else "(unknown)", address, by_user, by_address)
        return good

    def _journal(self, name: str, address: str, by_user: int, by_address: int) -> None:
        """Tell of logins that failed in a row. The name of nobody is left out: it may be a password in the wrong field.

        Each user has a count of their own, so that noise about others does not hide what is about them.
        """
        now, told = self._clock.now() / 1e6, self._journaled.setdefault(name, deque(maxlen=MOST_JOURNALED_AN_HOUR))
        if len(told) == MOST_JOURNALED_AN_HOUR and now - told[0] < 3600:
            return
        told.append(now)

        def write(connection: sa.Connection) -> None:
            journal.append(connection, clock=self._clock, actor="davy", action="login.failed", subject=name,
                           details={"address": address, "of_this_user": by_user, "from_this_address": by_address})

        self._directory.later(write)


def _wrong() -> Unauthenticated:
    return Unauthenticated("The name or the password is wrong.", "", "Try again, or ask an admin for a new password: davy user password NAME")
