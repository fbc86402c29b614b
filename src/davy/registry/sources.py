"""Where a version may come from: a source's URI is checked and resolved before anything is registered from it.

A client names the source, and the server may later read from it, so that the checks are about what a client could make
the server do: a local path must lie in the artifacts of the run or logged model that is named beside it, a proxied one
too; nothing may climb with `..`, however it is encoded; and no URI may choose a host for the server to connect to.
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from davy.errors import InvalidInput, NotFound
from davy.registry.models import PROMPT_TAG, ModelVersion, find_alias, find_newest, find_version
from davy.registry.stages import latest_versions
from davy.schema.tables import logged_models, registered_model_tags, registered_models, runs

if TYPE_CHECKING:
    from collections.abc import Mapping

PROMPT_SOURCES = frozenset(("dummy-source", "prompt-template"))
LONGEST_SOURCE, LONGEST_RUN = 2000, 32
_HOSTS = frozenset(("ftp", "sftp", "hdfs", "viewfs", "http", "https", "mlflow-artifacts", "r2", "b2", "abfss"))
_LOCAL_HOSTS = ("localhost", "127.0.0.1")
_ROUTE = ("api", "2.0", "mlflow-artifacts", "artifacts")
_artifacts_of_run = sa.select(runs.c.artifact_uri).where(runs.c.run_id == sa.bindparam("id"))
_logged = sa.select(logged_models.c.artifact_uri, logged_models.c.source_run_id).where(
    logged_models.c.model_id == sa.bindparam("id"), logged_models.c.lifecycle_stage == "active")
_prompt = sa.select(registered_models.c.name, registered_model_tags.c.value).outerjoin(
    registered_model_tags, sa.and_(registered_model_tags.c.name == registered_models.c.name, registered_model_tags.c.key == PROMPT_TAG)).where(
    registered_models.c.name == sa.bindparam("name"))


class Source(msgspec.Struct, frozen=True):
    """A source that was checked.

    Attributes:
        uri: as it is registered: `models:/late@production` as the number that it meant.
        location: where the files are, when the URI refers to a version or a logged model.
    """

    uri: str
    run_id: str | None = None
    model_id: str | None = None
    location: str | None = None


class _Meant(msgspec.Struct, frozen=True):
    """What a `models:/` URI names: a logged model by its id, or a version by number, stage or alias (none of them: the newest)."""

    model_id: str | None = None
    name: str = ""
    version: int | None = None
    stage: str | None = None
    alias: str | None = None


def check_source(connection: sa.Connection, uri: str, *, run_id: str | None = None, model_id: str | None = None,
                 tags: Mapping[str, str] | None = None) -> Source:
    """Check a source, and find the run and the logged model behind it.

    Args:
        run_id, model_id: what the request names; None when it names none, which is not the same as "".
        tags: those of the version that is to be made; a prompt's version has a placeholder for a source.

    Raises:
        InvalidInput: the source is no place to register from. NotFound: it names a version that isn't there.
    """
    if len(uri) > LONGEST_SOURCE or len(run_id or "") > LONGEST_RUN:
        raise InvalidInput(f"Invalid model version source: '{uri[:200]}'. It has at most {LONGEST_SOURCE} characters, and a run's id {LONGEST_RUN}.")
    try:
        urllib.parse.urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(f"Invalid model version source: '{uri}'. It is not a URI: {error}.") from error
    prompt = (tags or {}).get(PROMPT_TAG, "false").lower() == "true"
    if prompt and uri not in PROMPT_SOURCES:
        raise InvalidInput(f"Invalid prompt source: '{uri}'. Prompt sources must use an MLflow placeholder.")
    _refuse_host(uri)
    if prompt:
        return Source(uri, run_id, model_id)
    found = _through_registry(connection, uri, run_id, model_id) or Source(uri, run_id, model_id)
    if found.model_id:
        _check_logged(connection, found)
    else:
        _check_run(connection, found)
    return _located(connection, found)


def _through_registry(connection: sa.Connection, uri: str, run_id: str | None, model_id: str | None) -> Source | None:
    """The source for a URI that names a version of a registered model; None for any other."""
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme != "models":
        return None
    if parsed.netloc:
        raise InvalidInput(f"Invalid model version source: '{uri}'. Registered model sources must use the active model registry.")
    meant = _parse(uri)
    if meant.model_id is not None:
        return None
    row = connection.execute(_prompt, {"name": meant.name}).first()
    if row is None:
        raise NotFound(f"Registered Model with name={meant.name} not found")
    if row.value is not None and row.value.lower() == "true":
        raise InvalidInput(f"Invalid model version source: '{uri}'. Prompt versions cannot be used as model version sources.")
    version = _version(connection, meant)
    if (run_id is not None and run_id != (version.run_id or "")) or (model_id is not None and model_id != (version.model_id or "")):
        raise InvalidInput(f"Invalid model version source: '{uri}'. The run_id and model_id request parameters must match the referenced model version.")
    if version.download_uri is None:
        raise InvalidInput(f"Invalid model version source: '{uri}'. The referenced model version has no files that MLflow's clients could read.")
    return Source(f"models:/{version.name}/{version.version}", run_id if run_id is not None else version.run_id,
                  model_id if model_id is not None else version.model_id, version.download_uri)


def _version(connection: sa.Connection, meant: _Meant) -> ModelVersion:
    name = meant.name
    if meant.version is not None:
        found, told = find_version(connection, name, meant.version), f"Model Version (name={name}, version={meant.version}) not found"
    elif meant.alias is not None:
        found = find_alias(connection, name, meant.alias)
        if found is None:
            raise InvalidInput(f"Registered model alias {meant.alias} not found.")
        return found
    elif meant.stage is not None:
        staged = latest_versions(connection, name, [meant.stage])
        found, told = (staged[-1] if staged else None), f"No versions of model with name '{name}' and stage '{meant.stage}' found"
    else:
        found, told = find_newest(connection, name), f"No versions of model with name '{name}' found"
    if found is None:
        raise NotFound(told)
    return found


def _check_run(connection: sa.Connection, source: Source) -> None:
    """A source beside which a run is named, or nothing."""
    uri = source.uri
    if _is_local(uri):
        root = connection.scalar(_artifacts_of_run, {"id": source.run_id}) if source.run_id else None
        if source.run_id and root is None:
            raise _unowned(uri, "run_id")
        if root is None or not _contains(root, uri):
            raise InvalidInput(f"Invalid model version source: '{uri}'. To use a local path as a model version source, the run_id request parameter has to be "
                               "specified and the local path has to be contained within the artifact directory of the run specified by the run_id.")
        return
    _refuse_climbing(uri)
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme == "runs" and (parsed.netloc or not source.run_id or _run_of(parsed.path) != source.run_id):
        raise _unowned(uri, "run_id")
    if parsed.scheme == "models" and (parsed.netloc or _parse(uri).model_id is not None):
        raise _unowned(uri, "model_id")
    if _is_proxied(uri) and not (source.run_id and _within(uri, connection.scalar(_artifacts_of_run, {"id": source.run_id}))):
        raise _unowned(uri, "run_id")


def _check_logged(connection: sa.Connection, source: Source) -> None:
    """A source beside which a logged model is named."""
    uri = source.uri
    found = connection.execute(_logged, {"id": source.model_id}).first()
    root = None if found is None else found.artifact_uri
    if _is_local(uri):
        if root is None:
            raise _unowned(uri, "model_id")
        if not _contains(root, uri):
            raise InvalidInput(f"Invalid model version source: '{uri}'. To use a local path as a model version source, the model_id request parameter has to "
                               "be specified and the local path has to be contained within the artifact directory of the run specified by the "
                               "model_id.")
        return
    _refuse_climbing(uri)
    scheme = urllib.parse.urlparse(uri).scheme
    if scheme == "runs" or (scheme == "models" and (meant := _parse(uri).model_id) is not None and meant != source.model_id):
        raise _unowned(uri, "model_id")
    if _is_proxied(uri) and not _within(uri, root):
        raise _unowned(uri, "model_id")


def _located(connection: sa.Connection, source: Source) -> Source:
    """The source with the place of its files, and the run that made its logged model."""
    if not source.model_id:
        return source
    found = connection.execute(_logged, {"id": source.model_id}).first()
    if found is None:
        raise NotFound(f"Logged model with ID '{source.model_id}' not found.")
    meant = _parse(source.uri).model_id if urllib.parse.urlparse(source.uri).scheme == "models" else None
    return Source(source.uri, source.run_id or found.source_run_id, source.model_id, found.artifact_uri if meant is not None else source.location)


def _parse(uri: str) -> _Meant:
    """What a `models:/` URI names."""
    path = urllib.parse.urlparse(uri, allow_fragments=False).path
    parts = path.lstrip("/").split("/")
    if not path.startswith("/") or len(parts) > 2 or not parts[0].strip():
        raise _unowned(uri, "model_id")
    if len(parts) == 2:
        name, suffix = parts
        if not suffix.strip():
            raise _unowned(uri, "model_id")
        if suffix.isdecimal():
            return _Meant(name=name, version=min(int(suffix), 2**31 - 1))
        return _Meant(name=name) if suffix.lower() == "latest" else _Meant(name=name, stage=suffix)
    if "@" in parts[0]:
        name, _, alias = parts[0].rpartition("@")
        if not alias.strip():
            raise _unowned(uri, "model_id")
        return _Meant(name=name, alias=alias)
    return _Meant(model_id=parts[0])


def _run_of(path: str) -> str:
    return path[1:].split("/")[0] if path.startswith("/") else ""


def _is_local(uri: str) -> bool:
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return False
    host = parsed.hostname
    if parsed.scheme == "file" and host and host != "." and not host.startswith(_LOCAL_HOSTS):
        raise InvalidInput(f"{uri} is not a valid remote uri. For remote access on windows, please consider using a different scheme "
                           "such as SMB (e.g. smb://<hostname>/<path>).")
    return True


def _path(uri: str) -> Path:
    text = urllib.request.url2pathname(urllib.parse.urlparse(uri).path if uri.startswith("file:") else uri)
    if "\x00" in text:
        raise InvalidInput(f"Invalid model version source: {uri!r}. A path has no NUL character.")
    return Path(text).resolve()


def _contains(root: str, uri: str) -> bool:
    """Whether a local source lies in a local artifact root, symbolic links followed."""
    return _is_local(root) and _path(uri).is_relative_to(_path(root))


def _refuse_host(uri: str) -> None:
    """Refuse a scheme by which the URI chooses whom the server connects to."""
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme.lower() in _HOSTS and (parsed.scheme.lower() != "mlflow-artifacts" or parsed.netloc):
        raise InvalidInput(f"'source' cannot use the '{parsed.scheme.lower()}' scheme: the '{parsed.scheme.lower()}' scheme addresses a host other than the "
                           "tracking server's configured artifact storage, so the server would connect to the host named in the URI.")


def _refuse_climbing(uri: str) -> None:
    """Refuse `..`, NUL and what is no normal path, however often it is encoded."""
    decoded = _decoded(uri, plus=True)
    path = re.sub(r"/+", "/", urllib.parse.urlparse(decoded).path.rstrip("/"))
    absolute = path if path.startswith("/") else f"/{path}"
    if "\x00" in decoded or ".." in decoded.split("/") or (path and posixpath.normpath(absolute) != path):
        raise InvalidInput(f"Invalid model version source: '{uri}'. If supplying a source as an http, https, local file path, ftp, objectstore, or "
                           "mlflow-artifacts uri, an absolute path must be provided without relative path references present. "
                           "Please provide an absolute path.")


def _decoded(text: str, *, plus: bool = False) -> str:
    unquote = urllib.parse.unquote_plus if plus else urllib.parse.unquote
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _parts(uri: str) -> tuple[str, str, tuple[str, ...]]:
    parsed = urllib.parse.urlsplit(uri)
    return parsed.scheme.lower(), parsed.netloc.lower(), tuple(_decoded(part) for part in parsed.path.split("/") if part)


def _is_proxied(uri: str) -> bool:
    """Whether the artifact proxy of a tracking server is meant."""
    scheme, _, parts = _parts(uri)
    routed = any(parts[start:start + len(_ROUTE)] == _ROUTE for start in range(len(parts) - len(_ROUTE) + 1))
    return scheme == "mlflow-artifacts" or (scheme in ("http", "https") and routed)


def _within(uri: str, root: str | None) -> bool:
    if root is None:
        return False
    (scheme, host, parts), (wanted, at, base) = _parts(uri), _parts(root)
    return (scheme, host) == (wanted, at) and bool(base) and parts[:len(base)] == base


def _unowned(uri: str, parameter: str) -> InvalidInput:
    return InvalidInput(f"Invalid model version source: '{uri}'. The {parameter} request parameter must identify the resource that contains the source.")
