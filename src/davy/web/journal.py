"""The journal: who changed what, when, on which evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.store.journal import entries
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home

PAGE = 100


def journal(home: Home, request: Request) -> Response:
    """`/journal?before=SEQ&subject=NAME`: a page of entries, the newest first."""
    before = request.query_params.get("before", "")
    subject = request.query_params.get("subject") or None
    with home.database.read() as connection:
        found = entries(connection, subject=subject, before=int(before) if before.isdecimal() and len(before) < 18 else None, limit=PAGE + 1)
    older = found[PAGE - 1].seq if len(found) > PAGE else None
    return page(request, "journal.html", project=home.config.project, now=home.clock.now(), entries=found[:PAGE], older=older, subject=subject)
