"""Logging in and out: the one form that changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from davy.auth.credentials import COOKIE
from davy.auth.secrets import derived, new_secret, same
from davy.errors import Forbidden, InvalidInput, TooManyAttempts, Unauthenticated
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request

    from davy.auth.guard import Guard
    from davy.errors import DavyError
    from davy.home import Home

FORM_COOKIE = "davy_login"
FORM_SECONDS = 3600
MOST_BYTES = 16 << 10
MOST_FIELDS = 10


def routes(home: Home, guard: Guard) -> list[Route]:
    """`/login` and `/logout` of a server that asks who is there."""
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
        fields = await _fields(request)
        following, name = _local(fields.get("next", "")), fields.get("name", "")
        secret = request.cookies.get(FORM_COOKIE, "")
        if not secret or not same(fields.get("csrf", ""), derived(secret, "login")):
            return self._asked(request, following, name, Forbidden("The form is too old, or the browser keeps no cookies.", "", "Try again."))
        try:
            session = await self._guard.login(name, fields.get("password", ""), request.state.exchange)
        except (Unauthenticated, TooManyAttempts) as error:
            return self._asked(request, following, name, error)
        response = RedirectResponse(following, 303, headers={"cache-control": "no-store"})
        self._set(request, response, COOKIE, session, self._guard.session_seconds)
        response.delete_cookie(FORM_COOKIE, path="/login")
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session; without one there is nothing to end."""
        identity = request.state.identity
        if identity is not None and identity.csrf:
            fields = await _fields(request)
            if not same(fields.get("csrf", ""), identity.csrf):
                raise Forbidden("The request comes with a session's cookie, and without its token.", "The page's own button sends it.", "Reload the page.")
            await self._guard.logout(request.cookies[COOKIE])
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
        self._set(request, response, FORM_COOKIE, secret, FORM_SECONDS, path="/login")
        return response

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
        private = self._guard.is_private(request.state.exchange)
        response.set_cookie(name, value, max_age=seconds, path=path, secure=private, httponly=True, samesite="lax")


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form."""
    body = await request.body()
    if len(body) > MOST_BYTES:
        raise InvalidInput(f"The form has {len(body)} bytes.", f"It has at most {MOST_BYTES}.", "")
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidInput("The form can't be read.", "A browser sends it as application/x-www-form-urlencoded.", "Use the page.") from None
    return {key: values[-1] for key, values in found.items()}


def _local(path: str) -> str:
    """Where to go next: on this server, whatever the link said."""
    plain = path.isprintable() and path.startswith("/") and not path.startswith(("//", "/login", "/logout")) and "\\" not in path
    return path if plain else "/"
