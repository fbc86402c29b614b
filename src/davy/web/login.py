"""Logging in and out: the one form that changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from davy.auth.credentials import COOKIE
from davy.auth.secrets import derived, new_secret, same
from davy.errors import Forbidden, TooManyAttempts, Unauthenticated
from davy.web.forms import checked_form, read_form, set_cookie
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request

    from davy.auth.guard import Guard
    from davy.errors import DavyError
    from davy.home import Home

FORM_COOKIE = "davy_login"
FORM_SECONDS = 3600


def routes(home: Home, guard: Guard) -> list[Route]:
    """`/login` and `/logout`, of a server that asks who is there."""
    pages = _Login(home, guard)
    return [Route("/login", pages.form, methods=["GET"]), Route("/login", pages.log_in, methods=["POST"]), Route("/logout", pages.log_out, methods=["POST"])]


class _Login:
    def __init__(self, home: Home, guard: Guard) -> None:
        self._home, self._guard = home, guard

    async def form(self, request: Request) -> Response:
        """Ask for name and password; whoever is logged in goes on at once."""
        following = _local(request.query_params.get("next", ""))
        if request.state.identity is not None:
            return RedirectResponse(following, 303)
        return self._asked(request, following)

    async def log_in(self, request: Request) -> Response:
        """Begin a session, and go where the person was going."""
        fields = await read_form(request)
        following, name = _local(fields.get("next", "")), fields.get("name", "")
        secret = request.cookies.get(FORM_COOKIE, "")
        if not secret or not same(fields.get("csrf", ""), derived(secret, "login")):
            return self._asked(request, following, name, Forbidden("The form is too old, or the browser keeps no cookies.", "", "Try again."))
        try:
            session = await self._guard.login(name, fields.get("password", ""), request.state.exchange)
        except (Unauthenticated, TooManyAttempts) as error:
            return self._asked(request, following, name, error)
        response = RedirectResponse(following, 303, headers={"cache-control": "no-store"})
        set_cookie(self._guard, request, response, COOKIE, session, self._guard.session_seconds)
        response.delete_cookie(FORM_COOKIE, path="/login")
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session; without one there is nothing to end."""
        identity = request.state.identity
        if identity is not None and identity.csrf:
            await checked_form(request)
            await self._guard.logout(request.state.exchange)
        response = RedirectResponse("/login", 303, headers={"cache-control": "no-store"})
        response.delete_cookie(COOKIE, path="/")
        return response

    def _asked(self, request: Request, following: str, name: str = "", error: DavyError | None = None) -> Response:
        """The form, bound to a cookie that all tabs share, so that no other site can log a person in as somebody else."""
        secret = request.cookies.get(FORM_COOKIE, "")
        if len(secret) != len(new_secret()):
            secret = new_secret()
        response = page(request, "login.html", status=200 if error is None else error.status, project=self._home.config.project, csrf=derived(secret, "login"),
                        following=following, name=name, error=error)
        if isinstance(error, TooManyAttempts):
            response.headers["retry-after"] = str(error.after)
        set_cookie(self._guard, request, response, FORM_COOKIE, secret, FORM_SECONDS, path="/login")
        return response


def _local(path: str) -> str:
    """Where to go next: on this server, whatever the link said."""
    plain = path.isprintable() and path.startswith("/") and not path.startswith(("//", "/login", "/logout")) and "\\" not in path
    return path if plain else "/"
