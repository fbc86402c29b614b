"""Files in parts, and URLs by which a file is fetched without asking for it by name: ours, or the object store's own."""

from __future__ import annotations

import asyncio
import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from davy.protocols.mlflow.api import JSON, Call, endpoint
from davy.protocols.mlflow.artifacts import PROXY, both, find, keep, model_uri, run_uri, target
from davy.protocols.mlflow.files import content_length, drain, receive, safe_path, start
from davy.protocols.mlflow.wire import Message, MlflowError, invalid, read_json, required_missing
from davy.tracking.uploads import MOST_PARTS, Uploads

if TYPE_CHECKING:
    from typing import Any

    from davy.home import Home
    from davy.protocols.mlflow.api import Exchange

SIGNED_SECONDS = 900
_LONGEST = 604_800
_completing: dict[str, asyncio.Future[tuple[str, int]]] = {}


class Create(Message):
    path: str | None = None
    num_parts: int | None = None


class Part(Message):
    part_number: int | None = None
    etag: str | None = None
    url: str | None = None


class Complete(Message):
    path: str | None = None
    upload_id: str | None = None
    parts: list[Part] = []


class Credential(Message):
    url: str
    part_number: int
    headers: dict[str, str] = {}


class Created(Message):
    upload_id: str
    credentials: list[Credential] = []


class Sign(Message):
    run_id: str | None = None
    model_id: str | None = None
    path: str | None = None
    expiration: int | None = None


@both("POST", PROXY + "/mpu/create/{path:path}")
async def create(exchange: Exchange, path: str) -> None:
    asked = read_json(Create, await exchange.body(), ("path",))
    where = await target(exchange, _whole(path, asked))
    count = 1 if asked.num_parts is None else asked.num_parts
    if not 1 <= count <= MOST_PARTS:
        raise invalid(f"num_parts is {count}; it is 1 to {MOST_PARTS}.")
    upload_id = await start(uploads(exchange.home).create, where)
    base, own = f"{origin(exchange)}/api/{PROXY}/mpu/part/{upload_id}", credentials(exchange)
    answer = Created(upload_id=upload_id, credentials=[Credential(url=f"{base}/{number}", part_number=number, headers=own) for number in range(1, count + 1)])
    exchange.answer(200, JSON, msgspec.json.encode(answer))


@both("PUT", PROXY + "/mpu/part/{upload_id}/{number}")
async def part(exchange: Exchange, upload_id: str, number: str) -> None:
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        await drain(exchange)
        raise invalid(f"{number!r} is not the number of a part.")
    if not content_length(exchange):
        await drain(exchange)
        raise invalid("A part has a Content-Length of at least one byte.")
    home = exchange.home
    incoming = await start(uploads(home).part, upload_id, int(number))
    digest, _ = await receive(exchange, incoming, home.config.tracking.largest_artifact)
    exchange.answer(200, [("etag", f'"{digest[7:]}"')], b"")


@both("POST", PROXY + "/mpu/complete/{path:path}")
async def complete(exchange: Exchange, path: str) -> None:
    asked = read_json(Complete, await exchange.body(), ("path", "upload_id", "parts"))
    where, upload_id = await _same(exchange, path, asked), asked.upload_id or ""
    parts = [(item.part_number or 0, item.etag or "") for item in asked.parts]
    working = _completing.get(upload_id)
    if working is None:
        home = exchange.home
        working = _completing[upload_id] = start(uploads(home).complete, upload_id, parts, home.blobs, home.config.tracking.largest_artifact)
        working.add_done_callback(lambda _: _completing.pop(upload_id, None))
    await keep(exchange, where, await asyncio.shield(working))
    await start(uploads(exchange.home).indexed, upload_id)
    exchange.answer(200, JSON, b"{}")


@both("POST", PROXY + "/mpu/abort/{path:path}")
async def abort(exchange: Exchange, path: str) -> None:
    asked = read_json(Complete, await exchange.body(), ("path", "upload_id"))
    await _same(exchange, path, asked)
    await start(uploads(exchange.home).abort, asked.upload_id or "")
    exchange.answer(200, JSON, b"{}")


@both("GET", PROXY + "/presigned/{path:path}")
async def presigned(exchange: Exchange, path: str) -> None:
    where = safe_path(path)
    found = await exchange.read(lambda connection: find(connection, where))
    signed = await start(exchange.home.blobs.sign, str(found.digest), SIGNED_SECONDS)
    answer: dict[str, Any] = {"url": signed, "headers": {}, "file_size": found.size}
    if signed is None:
        answer |= {"url": f"{origin(exchange)}/api/{PROXY}/artifacts/{quote(where)}", "headers": credentials(exchange)}
    exchange.answer(200, JSON, msgspec.json.encode(answer))


@endpoint("POST", "artifacts/presigned-upload-url", Sign, required=("path",))
def sign_upload(call: Call, asked: Sign) -> dict[str, Any]:
    if bool(asked.run_id) == bool(asked.model_id):
        raise invalid("Exactly one of run_id and model_id must be provided.")
    safe_path(asked.path or "")
    raise _unsigned(call, asked, "upload", "Presigned upload is not supported for proxied artifact storage (artifact URI scheme: {}). "
                                           "This endpoint requires a direct cloud storage artifact URI.")


@endpoint("POST", "artifacts/presigned-download-url", Sign, required=("run_id", "path"))
def sign_download(call: Call, asked: Sign) -> dict[str, Any]:
    safe_path(asked.path or "")
    seconds = SIGNED_SECONDS if asked.expiration is None else asked.expiration
    if not 1 <= seconds <= _LONGEST:
        raise invalid(f"expiration must be between 1 and {_LONGEST} seconds (got {seconds}).")
    raise _unsigned(call, asked, "download", "Presigned download is not supported for runs with proxied artifact storage (artifact URI scheme: {}). "
                                             "This endpoint requires a run with a direct cloud storage artifact URI.")


def _unsigned(call: Call, asked: Sign, what: str, proxied: str) -> MlflowError:
    """Why nothing is signed: the server gives out no access to stores that are not its own, and its own is reached through the proxy."""
    uri = run_uri(call.connection, asked.run_id) if asked.run_id else model_uri(call.connection, asked.model_id or "")
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https", "mlflow-artifacts"):
        return invalid(proxied.format(scheme))
    return MlflowError("NOT_IMPLEMENTED", f"Presigned {what} is not supported for the current artifact repository")


def _whole(path: str, asked: Create | Complete) -> str:
    """The path of the file: the folder in the URL, then the file's own name. Clients send its whole path on their machine."""
    return posixpath.join(path, safe_path(re.split(r"[/\\]", asked.path or "")[-1]))


async def _same(exchange: Exchange, path: str, asked: Complete) -> str:
    """The path of the upload, if it is the one that is named."""
    if not asked.upload_id:
        raise required_missing("upload_id")
    where = await target(exchange, _whole(path, asked))
    upload = await start(uploads(exchange.home).get, asked.upload_id)
    if upload.path != where:
        raise invalid(f"The upload {asked.upload_id} is for '{upload.path}', not for '{where}'.")
    return where


def uploads(home: Home) -> Uploads:
    """The uploads in parts of a home."""
    return Uploads(home.path / "uploads")


def origin(exchange: Exchange) -> str:
    """How the client has reached us: what it is told to ask next must lead here again, also through a proxy that says how it was asked."""
    headers = exchange.scope.headers
    scheme = headers.get("x-forwarded-proto")
    prefix = headers.get("x-forwarded-prefix") or ""
    host = headers.get("host") or exchange.scope.authority
    return f"{scheme if scheme in ('http', 'https') else exchange.scope.scheme}://{host}{prefix.rstrip('/') if prefix.startswith('/') else ''}"


def credentials(exchange: Exchange) -> dict[str, str]:
    """What the client has shown, to show it again: it sends nothing of its own to the URLs that it is given."""
    shown = exchange.scope.headers.get("authorization")
    return {"Authorization": shown} if shown else {}
