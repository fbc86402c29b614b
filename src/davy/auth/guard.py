"""Admits or refuses each request to a server that asks for a login.

A token or a session is looked up in memory, which costs microseconds; so is a password that was right a moment ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from davy.auth.credentials import Basic, Bearer, Cookie, read_credentials
from davy.auth.directory import Directory
from davy.auth.origin import plain_address
from davy.auth.passwords import Passwords
from davy.auth.permissions import OPEN, Identity, action_of_request, is_form, lesser, require
from davy.auth.secrets import PREFIX, derived, digest_of, same
from davy.auth.sessions import end_session, start_session
from davy.core.time import parse_duration
from davy.errors import Forbidden, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from davy.home import Home

T = TypeVar("T")
CSRF = "davy-csrf"
_READING = frozenset(("GET", "HEAD", "OPTIONS"))


class Guard:
    """Who is behind a request, and whether they may.

    The login's own pages are open, and check the token of their forms by themselves.

    Attributes:
        passwords: what is known of them.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._clock = home, home.clock
        self._session, self._idle = parse_duration(home.config.auth.session), parse_duration(home.config.auth.idle)
        self._proxies = frozenset(map(plain_address, home.config.server.proxies))
        self._directory = Directory(home)
        self.passwords = Passwords(self._directory, home.clock)

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
        found = await self.passwords.confirm(name.strip().lower(), password, self._address(scope))
        return Identity(found.name, found.role, "password")

    def start(self, connection: sa.Connection, name: str, scope: Any) -> str:
        """Start a session within a transaction; its secret."""
        return start_session(connection, clock=self._clock, owner=name, address=self._address(scope), lasts=self._session, idle=self._idle)

    async def change(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, done in a write transaction that the next request sees."""
        return await self._directory.change(work)

    async def logout(self, scope: Any) -> None:
        """End the session that the request comes with; without one this is a no-op."""
        found = read_credentials(scope.headers)

        def end(connection: sa.Connection) -> None:
            if isinstance(found, Cookie):
                end_session(connection, clock=self._clock, secret=found.secret)

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
        self.passwords.close()
        self._directory.close()

    async def _identify(self, scope: Any) -> Identity:
        found = read_credentials(scope.headers)
        if isinstance(found, Basic) and not found.secret.startswith(PREFIX):
            return await self.confirm(found.name, found.secret, scope)
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

    def _address(self, scope: Any) -> str:
        """Where the request comes from: what a proxy says only if it is one of ours."""
        address = _peer(scope)
        if address in self._proxies:
            for told in reversed(",".join(scope.headers.get_all("x-forwarded-for")).split(",")):
                if not told.strip() or address not in self._proxies:
                    break
                address = plain_address(told.strip()[:64])
        return address


def _peer(scope: Any) -> str:
    return plain_address(str(scope.client).rpartition(":")[0].strip("[]"))
