"""A stock MLflow server beside Davy: the same calls to both, and what may differ between their answers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from databases import write_settings
from server_kit import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "tests" / "stock" / "programs"
START_SECONDS = 110
# A client that meets a 5xx would try again for minutes; here it says so at once.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def peer(lock: str) -> Path:
    """The Python of an environment that `scripts/peers` makes."""
    path = ROOT / f".venv-{lock}" / "bin" / "python"
    assert path.exists(), f"{path} is not there. Make it: scripts/peers {lock}"
    return path


def environment() -> dict[str, str]:
    """What a program in a peer's environment inherits: nothing that would lead it elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON", "DAVY_")) and name not in _PROXIES}
    return {**kept, **QUIET}


class StockServer:
    """`mlflow server` on SQLite with the artifact proxy, as its manual starts it; jobs, which nothing here uses, are off."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = folder / "server.log"
        python = peer("mlflow3")
        command = [
            python,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**environment(), "PATH": f"{python.parent}:{os.environ['PATH']}", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )

    def wait(self) -> StockServer:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                try:
                    connection.request("GET", "/health")
                    if connection.getresponse().status == 200:
                        return self
                finally:
                    connection.close()
            time.sleep(0.1)
        raise AssertionError(f"stock MLflow is not up: {self.log()[-2000:]}")

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def davy(root: Path, settings: str = "") -> Running:
    """`davy up` on an empty project, in no one's environment."""
    root.mkdir(exist_ok=True)
    write_settings(root, f'project = "shop"\n{settings}')
    inherited = {name: os.environ.pop(name) for name in ("DAVY_HOME", "DAVY_PROJECT") if name in os.environ}
    try:
        return Running(root)
    finally:
        os.environ.update(inherited)


def run(program: str, lock: str, port: int, folder: Path, more: dict[str, str] | None = None) -> list[str]:
    """Run a client's program in a peer's environment against this port, to its end; the steps that it names."""
    done = subprocess.run(
        [peer(lock), PROGRAMS / f"{program}.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**environment(), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "TMPDIR": str(folder), "HOME": str(folder), **(more or {})},
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return [line for line in done.stdout.splitlines() if line.startswith("ok ")]


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """Decoded JSON, else the text, else the bytes."""
        for read in (json.loads, bytes.decode):
            with suppress(ValueError):
                return read(self.raw)
        return self.raw


class Side:
    """One of the two servers, with the ids that it gave out so far."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.names: dict[str, str] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        try:
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):  # it had closed the idle connection
            self._connection.close()
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def close(self) -> None:
        self._connection.close()

    def fill(self, value: Any) -> Any:
        """The value with `$name` replaced by what this server calls it."""
        if isinstance(value, str):
            return re.sub(r"\$(\w+)", lambda found: self.names.get(found[1], found[0]), value)
        if isinstance(value, dict):
            return {self.fill(name): self.fill(item) for name, item in value.items()}
        return [self.fill(item) for item in value] if isinstance(value, list) else value

    def generalise(self, value: Any, field: str = "") -> Any:
        """The value with this server's ids replaced by `$name`. An experiment's, a small number, only where one is meant."""
        if isinstance(value, str):
            for name, given in sorted(self.names.items(), key=lambda item: -len(item[1])):
                if len(given) >= 20:
                    value = value.replace(given, f"${name}")
                elif given.isdigit():
                    value = re.sub(
                        rf"(?<=mlflow-artifacts:/){given}(?![^/'])|(?<=id=){given}(?!\w)|(?<=[Ee]xperiment ){given}(?!\w)"
                        rf"|(?<=[Ee]xperiment '){given}(?=')|(?<='){given}(?=/)",
                        f"${name}",
                        value,
                    )
                    value = f"${name}" if field == "experiment_id" and value == given else value
            return value
        if isinstance(value, dict):
            return {name: self.generalise(item, name) for name, item in value.items()}
        return [self.generalise(item, field) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Difference:
    """One place where two answers to a call are not the same; None stands for "not there".

    Attributes:
        call: `POST runs/create`. where: `status`, `header content-type`, or the path in the body, such as `run.info.start_time`.
        known: the allowance that the script of calls names for this call, if it does. statuses: stock's and ours. shapes: the fields of stock's answer.
    """

    call: str
    where: str
    stock: Any
    ours: Any
    sent: str = ""
    known: str | None = None
    statuses: tuple[int, int] = (0, 0)
    shapes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.call}  {self.sent[:300]}\n    {self.where}\n      stock: {str(self.stock)[:600]}\n      ours:  {str(self.ours)[:600]}"


@dataclass
class Pair:
    """Both servers: `ask` sends a call to each, compares the answers, and returns stock's."""

    stock: Side
    ours: Side
    differences: list[Difference] = field(default_factory=list)
    asked: int = 0

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        headers: dict[str, str] | None = None,
        known: str | None = None,
        keep: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        """Send one call to both.

        Args:
            path: beneath `/api/2.0/mlflow/`, or absolute.
            body: JSON, or bytes as they are. query: parameters; a list is repeated.
            known: the allowance under which this call is known to be answered differently; it may stand in the body as well.
            keep: names by paths in the answer, `{"run": "run.info.run_id"}`: from then on `$run` stands for each server's own value.
        """
        if isinstance(body, dict) and "known" in body:
            named = body["known"]
            body = {name: value for name, value in body.items() if name != "known"}
            known = named
        answers = []
        for side in (self.stock, self.ours):
            target = side.fill(path if path.startswith("/") else f"/api/2.0/mlflow/{path}")
            if query:
                target += "?" + urlencode(side.fill(query), doseq=True, quote_via=quote)
            data = body if isinstance(body, bytes) or body is None else json.dumps(side.fill(body)).encode()
            sent = {"Content-Type": "application/json"} if data is not None or method != "GET" else {}
            answers.append(side.send(method, target, data, {name: value for name, value in {**sent, **(headers or {})}.items() if value is not None}))
        if keep:
            for side, answer in zip((self.stock, self.ours), answers, strict=True):
                for name, where in keep.items():
                    found = answer.body
                    for part in where.split("."):
                        found = (found or {}).get(part) if isinstance(found, dict) else found[int(part)] if isinstance(found, list) and found else None
                    if found is not None:
                        side.names[name] = str(found)
        self.asked += 1
        shown = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body or query)
        call = f"{method} {path}"
        stock, ours = (self._seen(side, answer) for side, answer in zip((self.stock, self.ours), answers, strict=True))
        statuses = answers[0].status, answers[1].status
        shapes = frozenset(stock["body"]) if isinstance(stock["body"], dict) else frozenset()
        found_differences = [Difference(call, where, a, b, shown, known, statuses, shapes) for where, a, b in differing(stock, ours)]
        self.differences += found_differences
        if known and not found_differences:
            self.differences.append(Difference(call, "nothing", "answered alike", f"the allowance {known!r} is not needed here", shown))
        return answers[0].body

    @staticmethod
    def _seen(side: Side, answer: Answer) -> dict[str, Any]:
        compared = ("content-type", "content-disposition", "x-content-type-options", "www-authenticate", "location")
        headers = {name: answer.headers[name].partition("; charset")[0] for name in compared if name in answer.headers}
        return {"status": answer.status, "header": side.generalise(headers), "body": side.generalise(answer.body)}

    def close(self) -> None:
        self.stock.close()
        self.ours.close()

    def get(self, path: str, /, **query: Any) -> Any:
        return self.ask("GET", path, **query)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.ask("POST", path, {} if body is None else body, **options)

    def walk(self, path: str, items: str, body: dict[str, Any], *, method: str = "POST", most: int = 50) -> None:
        """All pages: the token is opaque, so each side follows its own."""
        token: dict[str, Any] = {}
        for page in range(most):
            sent = {**body, **token}
            answer = (
                self.ask(method, path, sent, keep={"token": "next_page_token"})
                if method == "POST"
                else self.ask(method, path, keep={"token": "next_page_token"}, **sent)
            )
            assert page == 0 or items in answer, (path, answer)
            if "next_page_token" not in answer:
                return
            token = {"page_token": "$token"}
        raise AssertionError(f"{path} has no last page")


def differing(stock: Any, ours: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two decoded answers differ. Numbers differ by type too: 1 is an int64 and 1.0 a double."""
    if isinstance(stock, dict) and isinstance(ours, dict):
        for name in {**stock, **ours}:
            inner = f"{where} {name}".strip() if where in ("", "header") else f"{where}.{name}"
            yield from differing(stock.get(name), ours.get(name), inner.removeprefix("body."))
    elif isinstance(stock, list) and isinstance(ours, list) and len(stock) == len(ours):
        if [_key(item) for item in stock] != [_key(item) for item in ours] and sorted(map(_key, stock)) == sorted(map(_key, ours)):
            yield f"{where} order", stock, ours
            stock, ours = sorted(stock, key=_key), sorted(ours, key=_key)
        for number, (left, right) in enumerate(zip(stock, ours, strict=True)):
            yield from differing(left, right, f"{where}[{number}]")
    elif stock != ours or type(stock) is not type(ours):
        yield where, stock, ours


def _key(value: Any) -> str:
    """What an item of a list is found by."""
    if isinstance(value, dict):
        if "current_stage" in value:
            value = [value["name"], value["version"]]
        elif "info" in value:
            value = value["info"].get("run_id") or value["info"].get("model_id")
        elif "key" in value and "step" not in value:
            value = value["key"]
    return json.dumps(value, sort_keys=True)


@dataclass
class Allowance:
    """One kind of difference that may be, with the reason. One that never fires fails the tests."""

    name: str
    reason: str
    allows: Callable[[Difference], bool]
    fired: int = 0


def unexplained(differences: list[Difference], policy: list[Allowance]) -> list[Difference]:
    """The differences that no allowance covers; counts what fired."""
    left = []
    for difference in differences:
        reasons = [allowance for allowance in policy if allowance.allows(difference)]
        for allowance in reasons:
            allowance.fired += 1
        if not reasons:
            left.append(difference)
    return left
