"""Errors as answers: in the shape that the asked path's clients read, with the headers that say how to go on."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from davy.errors import DavyError, Forbidden, InvalidInput, TooManyAttempts, Unauthenticated, Unavailable

JSON = [("content-type", "application/json")]
CHALLENGE = ("www-authenticate", 'Basic realm="mlflow"')
_MLFLOW_PATHS = ("/api/", "/ajax-api/")
_MLFLOW_CODES: tuple[tuple[type[DavyError], str], ...] = (
    (Unauthenticated, "UNAUTHENTICATED"), (Forbidden, "PERMISSION_DENIED"), (TooManyAttempts, "REQUEST_LIMIT_EXCEEDED"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"), (InvalidInput, "INVALID_PARAMETER_VALUE"),
)


def refusal(scope: Any, error: DavyError) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body. A person's browser that asks for a page without being logged in is sent to the login."""
    if isinstance(error, Unauthenticated):
        if scope.method == "GET" and "text/html" in (scope.headers.get("accept") or "") and not scope.path.startswith(_MLFLOW_PATHS):
            where = scope.path + (f"?{scope.query_string}" if scope.query_string else "")
            return 303, [("location", f"/login?next={quote(where, safe='')}"), ("cache-control", "no-store")], b""
        # A script of a page must not make the browser open a window that asks for a password.
        headers = JSON if "sec-fetch-mode" in scope.headers else [*JSON, CHALLENGE]
    elif isinstance(error, TooManyAttempts):
        headers = [*JSON, ("retry-after", str(error.after))]
    else:
        headers = JSON
    if scope.path.startswith(_MLFLOW_PATHS):
        code = next((code for kind, code in _MLFLOW_CODES if isinstance(error, kind)), "INTERNAL_ERROR")
        return error.status, headers, msgspec.json.encode({"error_code": code, "message": str(error).replace("\n", " ")})
    return error.status, headers, error_body(error)


def error_body(error: DavyError) -> bytes:
    """An error as every part of the server answers it."""
    return msgspec.json.encode({"error": error.code, "message": error.came, "allowed": error.allowed, "fix": error.fix, "retry": error.retry})
