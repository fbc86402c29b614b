"""Admits or refuses each request to a server that asks for a login.

A token or a session is looked up in memory, which costs microseconds. A password is hashed on a thread, once: a client
that sends it with each request is known again for `KNOWN_SECONDS` by a digest under a key that only this process has.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from davy.auth.attempts import ADDRESS, USER, Attempts
from davy.auth.credentials import Basic, Bearer, read_credentials
from davy.auth.directory import Directory
from davy.auth.permissions import OPEN, Identity, action_of_request, is_form, lesser, require
from davy.auth.secrets import PREFIX, derived, digest_of, random_bytes, same, verify_password
from davy.auth.sessions import end_session, start_session
from davy.core.time import parse_duration
from davy.errors import Forbidden, Unauthenticated, Unavailable
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from davy.auth.directory import HeldUser
    from davy.home import Home

T = TypeVar("T")
KNOWN_SECONDS = 600.0
MOST_KNOWN = 4096
HASHES_AT_ONCE = 2
MOST_WAITING = 100
CSRF = "davy-csrf"
JOURNALED = frozenset(10**power // 2 for power in range(1, 8))
MOST_JOURNALED_AN_HOUR = 60
_READING = frozenset(("GET", "HEAD", "OPTIONS"))


class Guard:
    """Who is behind a request, and whether they may.

    The login's own pages are open, and check the token of their forms by themselves.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._clock = home, home.clock
        self._session, self._idle = parse_duration(home.config.auth.session), parse_duration(home.config.auth.idle)
        self._proxies = frozenset(home.config.server.proxies)
        self._directory = Directory(home)
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="scrypt")
        self._key = random_bytes()
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[bool]] = {}
        self._users, self._addresses = Attempts(USER), Attempts(ADDRESS)
        self._journaled: deque[float] = deque(maxlen=MOST_JOURNALED_AN_HOUR)

    async def admit(self, scope: Any) -> Identity | None:
        """Who asks; None for somebody unknown who asks what is open to all.

        Raises:
            Unauthenticated: nobody that is known. Forbidden: their role does not suffice, or a page's request lacks its token.
            TooManyAttempts: logins have failed too often. Unavailable: the users can't be read, or too many log in at once.
        """
        action = action_of_request(scope.method, scope.path)
        if not self._directory.is_fresh:
            await self._directory.refresh()
        if action == OPEN:
            return self._known_already(scope)
        identity = await self._identify(scope)
        require(identity, action)
        if identity.csrf and scope.method not in _READING and not is_form(scope.path) and not same(scope.headers.get(CSRF) or "", identity.csrf):
            raise Forbidden("The request comes with a session's cookie, and without its token.", f"A page sends the token as {CSRF}.",
                            "Reload the page; a program sends a token of its own: davy token new")
        return identity

    async def login(self, name: str, password: str, scope: Any) -> str:
        """The secret of a new session.

        Raises:
            Unauthenticated: the name or the password is wrong. TooManyAttempts: that has been so too often.
        """
        identity = await self.confirm(name, password, scope)
        return str(await self.change(lambda connection: self.start(connection, identity.name, scope)))

    async def confirm(self, name: str, password: str, scope: Any) -> Identity:
        """Whose name and password these are.

        Raises:
            Unauthenticated: the name or the password is wrong. TooManyAttempts: that has been so too often.
        """
        if not self._directory.is_fresh:
            await self._directory.refresh()
        return await self._by_password(Basic(name.strip().lower(), password), scope)

    def start(self, connection: sa.Connection, name: str, scope: Any) -> str:
        """Start a session within a transaction; its secret."""
        return start_session(connection, clock=self._clock, owner=name, address=self._address(scope), lasts=self._session, idle=self._idle)

    async def change(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, done in a write transaction that the next request sees."""
        return await self._directory.change(work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns: for making a password's record, on the threads that are for hashing."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def logout(self, secret: str) -> None:
        """End the session."""
        def end(connection: sa.Connection) -> None:
            end_session(connection, clock=self._clock, secret=secret)

        await self.change(end)

    def is_private(self, scope: Any) -> bool:
        """Whether the request came encrypted, as far as this server or its proxy knows."""
        return scope.scheme == "https" or (_peer(scope) in self._proxies and scope.headers.get("x-forwarded-proto") == "https")

    @property
    def session_seconds(self) -> int:
        """How long a session lasts."""
        return int(self._session / 1e6)

    def close(self) -> None:
        """Let go of threads."""
        self._threads.shutdown(cancel_futures=True)
        self._directory.close()

    async def _identify(self, scope: Any) -> Identity:
        found = read_credentials(scope.headers)
        if isinstance(found, Basic) and not found.secret.startswith(PREFIX):
            return await self._by_password(found, scope)
        try:
            return self._at_once(found)
        except Unauthenticated:
            if found is None:
                raise
        await self._directory.refresh()  # it may be newer than what is held
        return self._at_once(found)

    def _known_already(self, scope: Any) -> Identity | None:
        try:
            return self._at_once(read_credentials(scope.headers))
        except Unauthenticated:
            return None

    def _at_once(self, found: Any) -> Identity:
        """By a token or a session, which take no time."""
        if found is None:
            raise Unauthenticated("This server asks who you are.", "It takes a name and a password, or a token.",
                                  "Log in, or make a token: davy token new")
        if isinstance(found, Basic):
            return self._by_token(found.secret, found.name)
        return self._by_token(found.secret) if isinstance(found, Bearer) else self._by_session(found.secret)

    def _by_token(self, secret: str, owner: str | None = None) -> Identity:
        held, now = self._directory.tokens.get(digest_of(secret)), self._clock.now()
        user = self._directory.users.get(held.owner) if held is not None else None
        if held is None or user is None or user.disabled or (held.expires is not None and held.expires <= now) or owner not in (None, user.name):
            raise Unauthenticated("The token is not a valid one.", "It may have expired or been revoked.", "Make a new one: davy token new")
        self._directory.token_used(held.id, now)
        return Identity(user.name, lesser(user.role, held.role), "token")

    def _by_session(self, secret: str) -> Identity:
        digest, now = digest_of(secret), self._clock.now()
        held = self._directory.sessions.get(digest)
        user = self._directory.users.get(held.owner) if held is not None else None
        if held is None or user is None or user.disabled or held.expires <= now or self._directory.last_seen(digest, held) + self._idle <= now:
            raise Unauthenticated("The session is over.", "It ends when it is old or idle, and at logout.", "Log in again.")
        self._directory.session_seen(digest, now)
        return Identity(user.name, user.role, "session", derived(secret, "csrf"))

    async def _by_password(self, given: Basic, scope: Any) -> Identity:
        user, record, key = self._held(given)
        if record is None or self._known.get(key, 0.0) < time.monotonic():
            await self._directory.refresh()
            user, record, key = self._held(given)
            check = self._checking.get(key)
            if check is None:
                if len(self._checking) >= MOST_WAITING:
                    raise Unavailable("Too many logins come at once.", "", "Try again in a moment.")
                check = asyncio.create_task(self._check(given, record, key, self._address(scope)))
                self._checking[key] = check
                check.add_done_callback(lambda _: self._checking.pop(key, None))
            if not await asyncio.shield(check):
                raise _wrong()
            user = self._directory.users.get(given.name)
        if user is None or user.disabled or user.record != record:
            raise _wrong()
        return Identity(user.name, user.role, "password")

    def _held(self, given: Basic) -> tuple[HeldUser | None, str | None, bytes]:
        """The user, the record that the password must fit, and the digest by which the two are known."""
        user = self._directory.users.get(given.name)
        record = user.record if user is not None and not user.disabled else None
        return user, record, hmac.digest(self._key, "\0".join((given.name, given.secret, record or "")).encode("utf-8", "surrogatepass"), "sha256")

    async def _check(self, given: Basic, record: str | None, key: bytes, address: str) -> bool:
        """Hash the password; the same for a user who is not there. It counts as failed meanwhile."""
        now, network = self._clock.now() / 1e6, _network(address)
        by_address = self._addresses.begin(network, now)  # first: an address that must wait does not make a user wait too
        by_user = self._users.begin(given.name[:64], now)
        good = await asyncio.get_running_loop().run_in_executor(self._threads, verify_password, given.secret, record)
        if good:
            self._users.succeed(given.name[:64])
            self._addresses.take_back(network)
            self._known[key] = time.monotonic() + KNOWN_SECONDS
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        elif by_user in JOURNALED or by_address in JOURNALED:
            self._journal(given.name if given.name in self._directory.users else "(unknown)", address, by_user, by_address)
        return good

    def _journal(self, name: str, address: str, by_user: int, by_address: int) -> None:
        """Tell of logins that failed in a row. The name of nobody is left out: it may be a password in the wrong field."""
        now = self._clock.now() / 1e6
        if len(self._journaled) == MOST_JOURNALED_AN_HOUR and now - self._journaled[0] < 3600:
            return
        self._journaled.append(now)

        def write(connection: sa.Connection) -> None:
            journal.append(connection, clock=self._clock, actor="davy", action="login.failed", subject=name,
                           details={"address": address, "of_this_user": by_user, "from_this_address": by_address})

        self._directory.later(write)

    def _address(self, scope: Any) -> str:
        """Where the request comes from: what a proxy says only if it is one of ours."""
        address = _peer(scope)
        if address in self._proxies:
            for told in reversed(",".join(scope.headers.get_all("x-forwarded-for")).split(",")):
                if not told.strip() or address not in self._proxies:
                    break
                address = told.strip()[:64]
        return address


def _peer(scope: Any) -> str:
    return str(scope.client).rpartition(":")[0].strip("[]")


def _network(address: str) -> str:
    """What one client can choose from freely is counted as one: of IPv6 the first 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _wrong() -> Unauthenticated:
    return Unauthenticated("The name or the password is wrong.", "", "Try again, or ask an admin for a new password: davy user password NAME")
