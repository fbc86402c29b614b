"""A Davy server as the place where runs are kept: MLflow's calls, over one connection that is kept open."""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401 - else the first connection imports it, and a fork in the middle of that has none for ever
import http.client
import math
import os
import ssl
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from davy.errors import ConfigError, Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from davy.tracking.inputs import CONTEXT_TAG
from davy.tracking.spool import Backlog, Created, Ended, Kept, Logged, Params, Record, Tags, Used

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MOST_METRICS, MOST_PARAMS = 1000, 100
TIMEOUT_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 60.0
_CHUNK = 1 << 20
T = TypeVar("T")
_AWAY = frozenset((408, 425, 429, 500, 502, 503, 504))


class Server:
    """A connection to a server, used by one thread at a time.

    Args:
        url: `http(s)://[user:password@]host[:port][/prefix]`. Without a user in it, `DAVY_TOKEN` is sent where there is one.

    Attributes:
        pause: seconds that the last answer has asked to be left alone for.
    """

    def __init__(self, url: str) -> None:
        self.url, self._authorization = without_user(url), _authorization(url)
        parts = urlsplit(self.url)
        self._secure, self._host, self._prefix = parts.scheme == "https", parts.hostname or "", parts.path
        self._port = parts.port or (443 if self._secure else 80)
        self._connection: http.client.HTTPConnection | None = None
        self.pause = 0.0

    def call(self, method: str, path: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message as JSON, or as the query of a GET; returns the answer's."""
        if method == "GET":
            path += "?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in message.items())
            data = self._exchange(method, path, None, {})
        else:
            data = self._exchange(method, path, msgspec.json.encode(message), {"Content-Type": "application/json"})
        try:
            return msgspec.json.decode(data, type=dict[str, Any]) if data else {}
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{self.url} did not answer {path} with JSON.", "It is no Davy server.", "Correct DAVY_URL.") from error

    def upload(self, path: str, file: BinaryIO, size: int) -> None:
        """Send a file in pieces."""
        self._exchange("PUT", path, file, {"Content-Type": "application/octet-stream", "Content-Length": str(size)})

    def close(self) -> None:
        """Let the connection go; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, path: str, body: bytes | BinaryIO | None, headers: dict[str, str]) -> bytes:
        self.pause = 0.0
        fresh = self._connection is None
        try:
            return self._once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A connection that was kept open may have been closed by the server meanwhile, which says nothing about it.
            if not fresh and not isinstance(error, TimeoutError):
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)
                try:
                    return self._once(method, path, body, headers)
                except (OSError, http.client.HTTPException) as again:
                    self.close()
                    error = again
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Unavailable(f"{self.url} shows a certificate that is not trusted here ({error.verify_message}); SSL_CERT_FILE=cert.pem names one "
                                  "that is.", "", "It is tried again.") from error
            raise Unavailable(f"{self.url} is away: {error or type(error).__name__}.", "", "It is tried again.") from error

    def _once(self, method: str, path: str, body: bytes | BinaryIO | None, headers: dict[str, str]) -> bytes:
        if self._connection is None:
            if self._secure:
                self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context(),
                                                               blocksize=_CHUNK)
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, blocksize=_CHUNK)
        if self._authorization:
            headers = {**headers, "Authorization": self._authorization}
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had read all
            self._connection.request(method, self._prefix + path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.will_close:
            self.close()
        if answer.status // 100 == 2:
            return data
        if answer.status in _AWAY:
            self.pause = _seconds(answer.headers.get("Retry-After"))
        raise _refusal(self.url, path, answer.status, answer.headers.get("Location"), data)


class ServerReceiver:
    """Sends a spool's records to a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def pause(self) -> float:
        """Seconds that the server has asked to be left alone for."""
        return self._server.pause

    def close(self) -> None:
        """Let the connection go; it is made again when it is needed."""
        self._server.close()

    def take(self, backlog: Backlog, record: Record) -> None:
        """Store a record; see `Receiver.take`."""
        run_id = backlog.progress.place.get("run_id", backlog.head.run_id)
        match record:
            case Created():
                backlog.progress.place = self._create(backlog.head.run_id, record)
            case Logged():
                for metrics in _pieces(_metrics(record), MOST_METRICS):
                    self._server.call("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": metrics})
            case Params():
                self._params(run_id, record.values)
            case Tags():
                for tags in _pieces(_pairs(record.values), MOST_PARAMS):
                    self._server.call("POST", f"{API}/runs/log-batch", {"run_id": run_id, "tags": tags})
            case Kept():
                with _opened(backlog.file(record)) as file:
                    size = os.fstat(file.fileno()).st_size
                    self._server.upload(f"{_artifacts(backlog.progress.place)}/{quote(record.path)}", file, size)
            case Used():
                tags = [{"key": CONTEXT_TAG, "value": record.context}] if record.context else []
                self._server.call("POST", f"{API}/runs/log-inputs", {"run_id": run_id, "datasets": [{"tags": tags, "dataset": record.dataset}]})
            case Ended():
                self._server.call("POST", f"{API}/runs/update", {"run_id": run_id, "status": record.status, "end_time": record.ended})

    def _create(self, run_id: str, record: Created) -> dict[str, str]:
        answer = self._server.call("POST", f"{API}/runs/create", {
            "run_id": run_id, "experiment_id": self._experiment(record.experiment), "user_id": record.user, "run_name": record.name,
            "start_time": record.started, "tags": list(_pairs(record.tags))})
        info = answer["run"]["info"]
        self._params(info["run_id"], record.params)
        return {"run_id": info["run_id"], "artifact_uri": info["artifact_uri"]}

    def _experiment(self, name: str) -> str:
        """The id of the experiment of that name, made when there is none."""
        try:
            return str(self._server.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"])
        except NotFound:
            pass
        try:
            return str(self._server.call("POST", f"{API}/experiments/create", {"name": name})["experiment_id"])
        except Conflict:  # another process was faster
            return str(self._server.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"])

    def _params(self, run_id: str, values: Mapping[str, str]) -> None:
        for params in _pieces(_pairs(values), MOST_PARAMS):
            self._server.call("POST", f"{API}/runs/log-batch", {"run_id": run_id, "params": params})


def without_user(url: str) -> str:
    """A server's address without the user and password in it, and without a slash at its end.

    Raises:
        ConfigError: it is none.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise ConfigError(f"{url!r} is no server's address.", "It is http(s)://host[:port], perhaps with user:password@ before the host.",
                          "Correct DAVY_URL, or server=.")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def known_url(url: str) -> str:
    """The address with the user and password that `DAVY_URL` holds for the same server."""
    known = os.environ.get("DAVY_URL", "")
    return known if known and "@" in known and without_user(known) == url else url


def _authorization(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    token = os.environ.get("DAVY_TOKEN", "")
    return f"Bearer {token}" if token else ""


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise NotFound(f"{path}, a file of the run, can't be read: {error.strerror}.", "A spool keeps copies of its own.", "Log the artifact again.") from error


def _metrics(record: Logged) -> Iterator[dict[str, Any]]:
    for key, points in record.points().items():
        for step, time, value in zip(points.steps, points.times, points.values, strict=True):
            told = value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            yield {"key": key, "value": told, "timestamp": time, "step": step}


def _pairs(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    return ({"key": key, "value": value} for key, value in values.items())


def _pieces(items: Iterator[T], most: int) -> Iterator[list[T]]:
    while piece := list(islice(items, most)):
        yield piece


def _artifacts(place: Mapping[str, str]) -> str:
    uri = urlsplit(place["artifact_uri"])
    if uri.scheme != "mlflow-artifacts":
        raise InvalidInput(f"The server keeps this run's artifacts at {place['artifact_uri']}.", "Files are sent to servers that take them themselves.",
                           "Ask whoever runs it for an experiment with a location of mlflow-artifacts:/")
    return f"{ARTIFACTS}{quote(uri.path)}"


def _seconds(text: str | None) -> float:
    """What `Retry-After` says, when it says a number."""
    try:
        return min(max(0.0, float(text or 0)), LONGEST_PAUSE_SECONDS)  # in this order, "nan" is 0
    except ValueError:
        return 0.0


def _refusal(url: str, path: str, status: int, location: str | None, data: bytes) -> Exception:
    """The error that an answer stands for."""
    try:
        said = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        said = {}
    code, message = str(said.get("error_code", "")), str(said.get("message", "")) or data[:200].decode(errors="replace").strip()
    came = f"{url} answered {path.partition('?')[0]} with {status}{f': {message}' if message else ''}"
    if status in _AWAY:
        return Unavailable(came, "", "It is tried again.")
    if status == 401:
        return Forbidden(came, "A server that is shared wants to know who writes.", "Set DAVY_TOKEN, or write user:password@ into DAVY_URL.")
    if status == 403:
        return Forbidden(came, "Writing runs takes the role scientist, and the server's own name in DAVY_URL.", "Take another token: DAVY_TOKEN.")
    if status // 100 == 3:
        return InvalidInput(f"{came}, to {location}" if location else came, "Runs are sent to the address itself.", "Correct DAVY_URL.")
    if code in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
        return Conflict(came)
    return (NotFound if status == 404 else InvalidInput)(came)
