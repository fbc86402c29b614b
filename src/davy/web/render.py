"""From a context to a page: templates, the filters they use, links, and the headers that confine what a page may do."""

from __future__ import annotations

import math
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from davy.core.time import format_time

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER = Path(__file__).parent
STATIC = {
    "davy.css": "text/css; charset=utf-8",
    "davy.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot.css": "text/css; charset=utf-8",
    "uplot.js": "text/javascript; charset=utf-8",
    "uplot.LICENSE": "text/plain; charset=utf-8",
}
CONFINED = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
                               "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
LONG_NAME = 40
_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"))


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """A whole page. `context` reaches the template escaped."""
    identity, alone = request.scope.get("state", {}).get("identity"), getattr(request.app.state, "alone", False)
    text = _environment().get_template(template).render(request=request, identity=identity, alone=alone, **context)
    return HTMLResponse(text, status, headers=CONFINED | {"cache-control": "no-store"})


def static(request: Request) -> Response:
    """One of the few files that pages load; their address carries a digest, so they may be kept for good."""
    name = request.path_params["name"]
    if name not in STATIC:
        return Response("Not found", 404, headers=CONFINED, media_type="text/plain")
    return Response((FOLDER / "static" / name).read_bytes(), headers=CONFINED | {"content-type": STATIC[name], "cache-control": "max-age=31536000, immutable"})


def to(*parts: Any, **query: Any) -> str:
    """The address of a page: `to("models", "late", 2)`. Every part is quoted, so that any name is one segment; a list is a repeated parameter."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    if not query:
        return path
    pairs = [(name, value) for name, values in query.items() for value in (values if isinstance(values, list) else [values]) if value not in (None, "")]
    return path + "?" + "&".join(f"{quote(name)}={quote(str(value), safe='')}" for name, value in pairs)


@cache
def _asset(name: str) -> str:
    return f"/static/{name}?{sha256((FOLDER / 'static' / name).read_bytes()).hexdigest()[:12]}"


def _moment(micros: int | None, figures: int = 19) -> Markup:
    if micros is None:
        return Markup('<span class="soft">–</span>')
    text = format_time(micros)
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(text, text[:figures].replace("T", " "))


def _ago(micros: int | None, now: int) -> str:
    if micros is None:
        return ""
    span = abs(now - micros)
    size, unit = next(((size, unit) for size, unit in _UNITS if span >= size), (1_000_000, "s"))
    return f"{span // size} {unit} {'ago' if now >= micros else 'ahead'}"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return str(value)


def _percent(share: float | None) -> str:
    """A share to three digits, and never 0 % or 100 % for what is not quite that."""
    if share is None:
        return "–"
    value = 100 * share
    if 0 < value < 0.001:
        return "< 0.001 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.3g} %"


def _amount(value: float | None) -> str:
    """A measured number to three digits, in full where it is large."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0.0:.3g}"


def _measured(value: float, error: float | None) -> str:
    """A mean to the decimals that its standard error leaves a meaning: 5.67 ± 0.09."""
    if not error or not math.isfinite(error):
        return _amount(value)
    places = max(0, -math.floor(math.log10(error)) + (error < 10 ** math.floor(math.log10(error)) * 2))
    return f"{value:,.{places}f} ± {error:,.{places}f}"


def _plain(value: Any) -> str:
    """A piece of evidence as text: digests short, objects as JSON."""
    if isinstance(value, str):
        return _short(value) if value.startswith("sha256:") else value
    return msgspec.json.encode(value).decode()


def _pretty(value: Any) -> str:
    """Evidence as JSON with a line for each part."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _short(digest: str | None) -> str:
    return "" if digest is None else digest.removeprefix("sha256:")[:12]


def _clipped(name: str) -> str:
    """A long name without its middle: names of one sweep differ at their ends."""
    return name if len(name) <= LONG_NAME else f"{name[:LONG_NAME // 2]}…{name[1 - LONG_NAME // 2:]}"


def _duration(micros: float | None) -> str:
    if micros is None:
        return "–"
    if micros < 1000:
        return f"{micros:.0f} µs"
    if micros < 1_000_000:
        return f"{micros / 1000:.3g} ms"
    if micros < 120_000_000:
        return f"{micros / 1_000_000:.3g} s"
    if micros >= 172_800_000_000:
        return f"{micros // 86_400_000_000:.0f} d {micros // 3_600_000_000 % 24:.0f} h"
    return f"{micros // 3_600_000_000:.0f} h {micros // 60_000_000 % 60:.0f} min" if micros >= 3_600_000_000 else f"{micros // 60_000_000:.0f} min"


def _ms(millis: float | None) -> str:
    return _duration(None if millis is None else millis * 1000)


def _span(micros: float) -> str:
    """A length of time as it was set: whole days, hours or minutes where it is some."""
    size, unit = next(((size, unit) for size, unit in _UNITS if micros >= size and micros % size == 0), (1_000_000, "s"))
    return f"{micros / size:g} {unit}"


def _size(count: int | None) -> str:
    if count is None:
        return "–"
    for limit, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


@cache
def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"moment": _moment, "ago": _ago, "number": _number, "short": _short, "duration": _duration, "size": _size, "plain": _plain,
                            "pretty": _pretty, "clipped": _clipped, "percent": _percent, "amount": _amount, "span": _span, "ms": _ms, "measured": _measured}
    environment.globals |= {"to": to, "asset": _asset}
    return environment
