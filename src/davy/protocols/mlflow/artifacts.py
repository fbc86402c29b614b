"""Artifacts: the proxy at `mlflow-artifacts`, and the files of runs, logged models and versions as browsers ask for them."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
import sqlalchemy as sa

from davy.protocols.mlflow.api import JSON, Call, endpoint, streaming
from davy.protocols.mlflow.files import Source, blob_source, content_length, drain, is_folder, missing_artifact, receive, safe_path, send
from davy.protocols.mlflow.wire import Message, MlflowError, invalid, missing, required_missing
from davy.schema.tables import logged_models, model_versions, runs
from davy.store import journal
from davy.tracking.artifacts import add_artifacts, get_artifact, list_artifacts, remove_artifacts
from davy.tracking.places import check_model, list_place, locate, uri_path, writable_place
from davy.tracking.records import Artifact
from davy.tracking.roots import Root, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from davy.home import Home
    from davy.protocols.mlflow.api import Exchange

PROXY = "2.0/mlflow-artifacts"
LARGEST_BY_PAGE = 10 << 20


class FileInfo(Message):
    path: str
    is_dir: bool
    file_size: int | None = None


class Files(Message):
    root_uri: str | None = None
    files: list[FileInfo] = []


class ListRun(Message):
    run_id: str | None = None
    run_uuid: str | None = None
    path: str | None = None
    page_token: str | None = None


class ListModel(Message):
    model_id: str | None = None
    artifact_directory_path: str | None = None
    page_token: str | None = None


def both(method: str, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register under `/api/` and the browser's `/ajax-api/`."""
    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        for prefix in ("api", "ajax-api"):
            streaming(method, f"/{prefix}/{path}")(handler)
        return handler
    return register


@both("GET", PROXY + "/artifacts")
async def list_proxy(exchange: Exchange) -> None:
    path = safe_path(query(exchange).get("path", ""))
    found = await exchange.read(lambda connection: list_place(connection, path))
    exchange.answer(200, JSON, msgspec.json.encode(Files(files=infos(found))))


@both("GET", PROXY + "/artifacts/{path:path}")
async def download(exchange: Exchange, path: str) -> None:
    await send_path(exchange, safe_path(path))


@both("PUT", PROXY + "/artifacts/{path:path}")
async def upload(exchange: Exchange, path: str) -> None:
    path = await target(exchange, path)
    await keep(exchange, path, await receive(exchange, exchange.home.blobs.incoming(), exchange.home.config.tracking.largest_artifact))
    exchange.answer(200, JSON, b"{}")


@both("DELETE", PROXY + "/artifacts/{path:path}")
async def delete(exchange: Exchange, path: str) -> None:
    path = safe_path(path)

    def work(connection: sa.Connection) -> None:
        place = locate(connection, path)
        if place.kind in ("experiment", "nobody"):
            leading = [item.path for item in list_place(connection, path) if item.is_dir]
            own = {item.path.rsplit("/", 1)[-1] for item in list_artifacts(connection, place.owner, place.path)}
            if set(leading) - own:
                raise invalid(f"Artifacts of runs or logged models lie beneath '{path}'. Delete those of one run or logged model at a time.")
        gone = remove_artifacts(connection, place.owner, place.path)
        if gone:
            journal.append(connection, clock=exchange.home.clock, actor=exchange.actor, action="artifacts.delete", subject=place.owner,
                           details={"path": place.path, "files": gone})

    await exchange.write(work)
    exchange.answer(200, JSON, b"{}")


@endpoint("GET", "artifacts/list", ListRun)
def list_run(call: Call, asked: ListRun) -> Files:
    run_id = asked.run_id or asked.run_uuid
    if not run_id:
        raise required_missing("run_id")
    return _listed(call, run_uri(call.connection, run_id), safe_path(asked.path or ""))


@endpoint("GET", "logged-models/{model_id}/artifacts/directories", ListModel)
def list_model(call: Call, asked: ListModel) -> Files:
    uri = model_uri(call.connection, asked.model_id or "")
    return _listed(call, uri, safe_path(asked.artifact_directory_path or ""))


@streaming("GET", "/get-artifact")
async def get_run_artifact(exchange: Exchange) -> None:
    asked = query(exchange)
    run_id, path = asked.get("run_id") or asked.get("run_uuid"), safe_path(_given(asked, "path"))
    if not run_id:
        raise required_missing("run_id")
    uri = await exchange.read(lambda connection: run_uri(connection, run_id))
    await _send_below(exchange, uri, path)


@streaming("GET", "/model-versions/get-artifact")
async def get_version_artifact(exchange: Exchange) -> None:
    asked = query(exchange)
    name, version, path = _given(asked, "name"), _given(asked, "version"), safe_path(_given(asked, "path"))
    row = await exchange.read(lambda connection: connection.execute(sa.select(model_versions).where(
        model_versions.c.name == name, model_versions.c.version == (int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1),
        model_versions.c.deleted.is_(False))).first())
    if row is None:
        raise missing(f"Model Version (name={name}, version={version}) not found")
    files = msgspec.json.decode(row.files, type=dict[str, str]) if row.files else {}
    if path in files:
        size = await exchange.thread(lambda: exchange.home.blobs.size(files[path]))
        await send(exchange, blob_source(exchange.home.blobs, path, files[path], size or 0))
        return
    await _send_below(exchange, row.storage_location or row.source or "", path)


@streaming("GET", "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files")
async def get_model_artifact(exchange: Exchange, model_id: str) -> None:
    asked = query(exchange).get("artifact_file_path")
    if not asked:
        raise MlflowError("BAD_REQUEST", 'Request must include the "artifact_file_path" query parameter.')
    path = safe_path(asked)
    uri = await exchange.read(lambda connection: model_uri(connection, model_id))
    await _send_below(exchange, uri, path)


@streaming("POST", "/ajax-api/2.0/mlflow/upload-artifact")
async def upload_by_page(exchange: Exchange) -> None:
    asked = query(exchange)
    if not asked.get("run_uuid"):
        raise invalid("Request must specify run_uuid.")
    if not asked.get("path"):
        raise invalid("Request must specify path.")
    run_id, path = asked["run_uuid"], safe_path(asked["path"])
    if (content_length(exchange) or 0) > LARGEST_BY_PAGE:
        await drain(exchange)
        raise invalid("Artifact size is too large. Max size is 10MB.")
    body = await exchange.body(LARGEST_BY_PAGE)
    if not body:
        raise invalid("Request must specify data.")
    uri = await exchange.read(lambda connection: run_uri(connection, run_id))
    root = uri_path(uri)
    if root is None:
        raise invalid(f"The artifacts of run {run_id} lie at {uri}, where only clients write. Upload it with the client.")
    digest = await exchange.thread(lambda: exchange.home.blobs.put(body))
    await keep(exchange, posixpath.join(root, path), (digest, len(body)))
    exchange.answer(200, JSON, b"{}")


async def keep(exchange: Exchange, path: str, stored: tuple[str, int]) -> None:
    """Index a stored file, in a transaction that sees once more that it may be there."""
    def work(connection: sa.Connection) -> None:
        place = writable_place(connection, path)
        add_artifacts(connection, place.owner, {place.path: stored}, clock=exchange.home.clock, blobs=exchange.home.blobs)

    await exchange.write(work)


async def target(exchange: Exchange, path: str) -> str:
    """The path that is written to, once it is clear that it may be."""
    try:
        if path.endswith("/") or not (path := safe_path(path)):
            raise invalid("Artifact path must include a filename (cannot end with '/').")
        place = await exchange.read(lambda connection: writable_place(connection, path))
        if not place.path:
            raise is_folder(path)
    except Exception:
        await drain(exchange)
        raise
    return path


async def send_path(exchange: Exchange, path: str) -> None:
    """Answer with the file at a path of the proxy."""
    found = await exchange.read(lambda connection: find(connection, path))
    await send(exchange, blob_source(exchange.home.blobs, path, str(found.digest), found.size or 0))


def find(connection: sa.Connection, path: str, name: str | None = None) -> Artifact:
    """The file at a path of the proxy, which messages call `name`.

    Raises:
        MlflowError: there is none, or it is a folder.
    """
    place = locate(connection, path)
    found = get_artifact(connection, place.owner, place.path)
    if found is None:
        raise is_folder(name or path) if list_place(connection, path) else missing_artifact(name or path)
    return found


def _listed(call: Call, uri: str, path: str) -> Files:
    """What lies in a folder beneath an artifact URI, by paths relative to it."""
    root = uri_path(uri)
    found = _root(call.home, uri).files(path) if root is None else list_place(call.connection, posixpath.join(root, path).rstrip("/"))
    if path:
        found = [msgspec.structs.replace(item, path=f"{path}/{item.path}") for item in found]
    return Files(root_uri=uri, files=infos(found))


async def _send_below(exchange: Exchange, uri: str, path: str) -> None:
    root = uri_path(uri)
    if root is None:
        place = _root(exchange.home, uri)
        size = await exchange.thread(lambda: place.size(path))
        if size is None:
            raise is_folder(path) if await exchange.thread(lambda: place.files(path)) else missing_artifact(path)
        await send(exchange, Source(path, size, "", lambda start, end: place.pieces(path, start, end)))
        return
    found = await exchange.read(lambda connection: find(connection, posixpath.join(root, path), path))
    await send(exchange, blob_source(exchange.home.blobs, path, str(found.digest), found.size or 0))


def _root(home: Home, uri: str) -> Root:
    return open_root(uri, home.config.tracking.artifact_roots, home.config.storage.options)


def run_uri(connection: sa.Connection, run_id: str) -> str:
    """Where the run's artifacts lie."""
    uri = connection.scalar(sa.select(runs.c.artifact_uri).where(runs.c.run_id == run_id))
    if uri is None:
        raise missing(f"Run with id={run_id} not found")
    return str(uri)


def model_uri(connection: sa.Connection, model_id: str) -> str:
    """Where the artifacts of an active logged model lie."""
    check_model(connection, model_id)
    return str(connection.scalar(sa.select(logged_models.c.artifact_uri).where(logged_models.c.model_id == model_id)))


def infos(found: Iterable[Artifact]) -> list[FileInfo]:
    """Files and folders as a client reads them."""
    return [FileInfo(path=item.path, is_dir=item.is_dir, file_size=None if item.is_dir else item.size) for item in found]


def query(exchange: Exchange) -> dict[str, str]:
    """The parameters of the query; of one that comes twice, the first."""
    try:
        return {name: values[0] for name, values in parse_qs(exchange.scope.query_string, keep_blank_values=True, errors="strict", max_num_fields=100).items()}
    except ValueError as error:
        raise invalid(f"The query can't be read: {error}.") from None


def _given(asked: dict[str, str], name: str) -> str:
    if not asked.get(name):
        raise required_missing(name)
    return asked[name]
