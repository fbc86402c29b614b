"""What forms send, and the cookies that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from davy.auth.secrets import same
from davy.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.auth.guard import Guard

MOST_BYTES = 16 << 10
MOST_FIELDS = 10


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        InvalidInput: it is none, or a huge one.
    """
    body = await request.body()
    if len(body) > MOST_BYTES:
        raise InvalidInput(f"The form has {len(body)} bytes.", f"It has at most {MOST_BYTES}.", "Write less.")
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidInput("The form can't be read.", "A browser sends it as application/x-www-form-urlencoded.", "Use the page.") from None
    return {key: values[-1] for key, values in found.items()}


async def checked_form(request: Request) -> dict[str, str]:
    """The fields of a form that a page of this session has sent.

    Raises:
        Forbidden: it lacks the session's token. InvalidInput: it is no form.
    """
    fields, identity = await read_form(request), request.state.identity
    if identity is None or not identity.csrf or not same(fields.get("csrf", ""), identity.csrf):
        raise Forbidden("The request comes without the token of a session.", "The page's own button sends it.", "Reload the page.")
    return fields


def set_cookie(guard: Guard, request: Request, response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
    """A cookie that no script reads and no other site's form brings along, and that leaves over https alone where it came so."""
    private = guard.is_private(request.state.exchange)
    response.set_cookie(name, value, max_age=seconds, path=path, secure=private, httponly=True, samesite="lax")
