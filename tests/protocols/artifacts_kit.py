"""A tracking server of one's own, asked over plain HTTP."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from davy.home import Home
from davy.store.journal import Entry, entries
from server_kit import Running

API, PROXY = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts"


class Answer(msgspec.Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        return self.status, self.json["error_code"], self.json["message"]


class Tracking(Running):
    """`davy up --only tracking`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "--only", "tracking")

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def call(self, path: str, **given: Any) -> Any:
        answer = self.ask("POST", f"{API}/{path}", msgspec.json.encode(given), {"content-type": "application/json"})
        assert answer.status == 200, answer
        return answer.json

    def journal(self, subject: str) -> list[Entry]:
        """What the journal has of it, the newest first."""
        home = Home(self.root)
        with home.database.read() as connection:
            found = entries(connection, subject=subject)
        home.close()
        return found

    def run(self, experiment: str = "0") -> str:
        return str(self.call("runs/create", experiment_id=experiment)["run"]["info"]["run_id"])

    def experiment(self, name: str, **more: str) -> str:
        return str(self.call("experiments/create", name=name, **more)["experiment_id"])

    def put(self, path: str, body: bytes | Any, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("PUT", f"{PROXY}/artifacts/{path}", body, headers)

    def fetch(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", f"{PROXY}/artifacts/{path}", headers=headers)

    def listed(self, path: str) -> Any:
        answer = self.ask("GET", f"{PROXY}/artifacts?path={path}")
        assert answer.status == 200, answer
        return answer.json.get("files", [])

    def blobs(self, part: str = "sha256") -> list[Path]:
        return [path for path in (self.root / ".davy" / "blobs" / part).rglob("*") if path.is_file()]

    def memory(self) -> int:
        """Bytes of memory that are the server's own."""
        total = 0
        for pid in (self.process.pid, *self.processes()):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                total += int(line.split()[1]) * 1024 if line.startswith("RssAnon") else 0
        return total

    def dies(self, path: str, head: bytes, body: bytes) -> None:
        """A client that goes away in the middle of an upload."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"PUT {PROXY}/artifacts/{path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n".encode() + head + b"\r\n\r\n" + body)
            time.sleep(0.05)
