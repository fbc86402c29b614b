"""Streams: how far each log has been applied, and the views that are kept up to date from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.features.describe import describe_view
from davy.features.online import OnlineFeatures
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home


def watermarks(home: Home) -> list[dict[str, Any]]:
    """Per stream that some view reads: its declaration, its mark and those views, by name."""
    online = OnlineFeatures(home.online)
    found: dict[str, dict[str, Any]] = {}
    for stream, view in online.views():
        entry = found.setdefault(stream.name, {"stream": stream, "mark": online.mark(stream.name), "views": []})
        entry["views"].append({"spec": view, "features": describe_view(view)})
    return [found[name] for name in sorted(found)]


def streams(home: Home, request: Request) -> Response:
    """`/streams`: all of them."""
    return page(request, "streams.html", project=home.config.project, now=home.clock.now(), streams=watermarks(home))
