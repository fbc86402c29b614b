"""`/account`: what a person who is logged in can do about their own password and tokens. With a token one can't: it would outlive itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from davy.auth.credentials import COOKIE
from davy.auth.permissions import PERMISSIONS, RANK, ROLES, parse_role
from davy.auth.tokens import get_token, list_tokens, new_token, revoke_token
from davy.auth.users import set_password
from davy.core.time import parse_duration
from davy.errors import DavyError, Forbidden, InvalidInput, TooManyAttempts
from davy.web.forms import checked_form, set_cookie
from davy.web.render import page

if TYPE_CHECKING:
    import sqlalchemy as sa
    from starlette.requests import Request

    from davy.auth.guard import Guard
    from davy.auth.tokens import Token
    from davy.home import Home

LASTS = {"7d": "a week", "30d": "a month", "90d": "three months", "365d": "a year", "never": "for always"}


def routes(home: Home, guard: Guard) -> list[Route]:
    """The page and its forms, of a server that asks who is there."""
    pages = _Account(home, guard)
    return [Route("/account", pages.show, methods=["GET"]), Route("/account/tokens", pages.make_token, methods=["POST"]),
            Route("/account/revoke", pages.revoke, methods=["POST"]), Route("/account/password", pages.change_password, methods=["POST"])]


class _Account:
    def __init__(self, home: Home, guard: Guard) -> None:
        self._home, self._guard = home, guard

    async def show(self, request: Request) -> Response:
        """Who one is, and one's tokens."""
        changed = "The password is changed. Wherever else you were logged in, you are not any more; your tokens stay."
        return await self._page(request, done=changed if "changed" in request.query_params else None)

    async def make_token(self, request: Request) -> Response:
        """A new token, whose secret this page shows and no other does."""
        fields, who = await checked_form(request), self._who(request)
        try:
            role, lasts = parse_role(fields.get("role", "")), fields.get("expires", "")
            if lasts not in LASTS:
                raise InvalidInput(f"{lasts!r} is not one of the durations.", "", "Choose one from the list.")

            micros = None if lasts == "never" else parse_duration(lasts)

            def make(connection: sa.Connection) -> tuple[Token, str]:
                return new_token(connection, **who, owner=who["actor"], name=fields.get("name", ""), role=role, lasts=micros)

            return await self._page(request, made=await self._guard.change(make))
        except DavyError as error:
            return await self._page(request, error)

    async def revoke(self, request: Request) -> Response:
        """Take a token back."""
        fields, who = await checked_form(request), self._who(request)

        def take(connection: sa.Connection) -> Token:
            found = get_token(connection, fields.get("token", ""))
            if found.owner != who["actor"]:
                raise Forbidden("The token is somebody else's.", "An admin may revoke it.", "davy token revoke")
            return revoke_token(connection, **who, token_id=found.id)

        try:
            found = await self._guard.change(take)
        except DavyError as error:
            return await self._page(request, error)
        return await self._page(request, done=f"The token {found.name} is revoked.")

    async def change_password(self, request: Request) -> Response:
        """Another password, which ends all sessions but gives this browser a new one."""
        fields, who, scope = await checked_form(request), self._who(request), request.state.exchange
        name, new = who["actor"], fields.get("new", "")
        try:
            if new != fields.get("again", ""):
                raise InvalidInput("The two new passwords are not the same.", "", "Type them again.")
            await self._guard.confirm(name, fields.get("old", ""), scope)
            record = await self._guard.passwords.record(name, new)

            def keep(connection: sa.Connection) -> str:
                set_password(connection, **who, name=name, record=record)
                return self._guard.start(connection, name, scope)

            secret = await self._guard.change(keep)
        except DavyError as error:
            return await self._page(request, error)
        response = Response(status_code=303, headers={"location": "/account?changed", "cache-control": "no-store"})
        set_cookie(self._guard, request, response, COOKIE, secret, self._guard.session_seconds)
        return response

    def _who(self, request: Request) -> dict[str, Any]:
        return {"clock": self._home.clock, "actor": request.state.identity.name}

    async def _page(self, request: Request, error: DavyError | None = None, **context: Any) -> Response:
        identity = request.state.identity

        def read() -> list[Token]:
            with self._home.database.read() as connection:
                return list_tokens(connection, owner=identity.name)

        may = [found.says for found in PERMISSIONS.values() if RANK[found.role] <= RANK[identity.role]]
        response = page(request, "account.html", status=200 if error is None else error.status, project=self._home.config.project, now=self._home.clock.now(),
                        tokens=await run_in_threadpool(read), roles=[role for role in ROLES if RANK[role] <= RANK[identity.role]], lasts=LASTS, may=may,
                        error=error, **{"made": None, "done": None, **context})
        if isinstance(error, TooManyAttempts):
            response.headers["retry-after"] = str(error.after)
        return response
