"""One artifact of a run. Whoever can log a run chooses its bytes, so a browser is never let to run them in the pages' name."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response

from davy.tracking.artifacts import find_artifact, list_artifacts
from davy.tracking.runs import get_run

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from starlette.requests import Request

    from davy.home import Home
    from davy.tracking.records import Artifact

IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml"}
TEXTS = {".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".log", ".toml", ".yaml", ".yml", ".py", ".diff", ".patch", ".lock", ".sql", ""}
# A sandboxed document has an origin of its own and runs nothing; an SVG may style itself.
SEALED = {"content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:", "x-content-type-options": "nosniff",
          "cross-origin-resource-policy": "same-origin", "cache-control": "no-store"}
LONGEST_TEXT, LARGEST_IMAGE, MOST_TEXTS = 20_000, 8 << 20, 12


def artifact(home: Home, request: Request) -> Response:
    """`/runs/ID/artifacts/PATH`: its bytes; images and texts to look at, everything else to download. What is large is sent by who streams it."""
    path = request.path_params["path"]
    with home.database.read() as connection:
        run = get_run(connection, request.path_params["run"])
        found = find_artifact(connection, run.id, path)
    if (found.size or 0) > LARGEST_IMAGE:
        return RedirectResponse(f"/get-artifact?{urlencode({'run_id': run.id, 'path': path})}", 307, SEALED)
    body = home.blobs.get(str(found.digest))
    kind = kind_of(path)
    name = quote(PurePosixPath(path).name, safe="")
    if kind == "image":
        return Response(body, headers=SEALED | {"content-type": IMAGES[_ending(path)]})
    if kind == "text":
        return Response(body, headers=SEALED | {"content-type": "text/plain; charset=utf-8"})
    return Response(body, headers=SEALED | {"content-type": "application/octet-stream", "content-disposition": f"attachment; filename*=UTF-8''{name}"})


def kind_of(path: str) -> str:
    """`image`, `text`, or `file` for what is only downloaded."""
    ending = _ending(path)
    return "image" if ending in IMAGES else "text" if ending in TEXTS else "file"


def previews(connection: Connection, home: Home, run: str) -> list[dict[str, Any]]:
    """All files of a run by path: kind, size, and the beginning of the first few texts."""
    found = []
    texts = 0
    for item in list_artifacts(connection, run, deep=True):
        entry: dict[str, Any] = {"path": item.path, "size": item.size, "kind": kind_of(item.path), "text": None, "cut": False}
        if entry["kind"] == "image" and (item.size or 0) > LARGEST_IMAGE:
            entry["kind"] = "file"
        if entry["kind"] == "text" and texts < MOST_TEXTS:
            texts += 1
            entry["text"], entry["cut"] = _beginning(home, item)
        found.append(entry)
    return found


def _beginning(home: Home, item: Artifact) -> tuple[str | None, bool]:
    if item.digest is None or (item.size or 0) > LARGEST_IMAGE:
        return None, False
    text = home.blobs.get(item.digest).decode("utf-8", "replace")
    return text[:LONGEST_TEXT], len(text) > LONGEST_TEXT


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
