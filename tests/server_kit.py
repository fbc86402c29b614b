"""A real server in processes of its own, and clients for it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

BODY = {"card": "c1", "amount": 12.5, "shop": "books", "asked": "2026-01-01T00:00:00Z"}
START_SECONDS = 90


class Running:
    """`davy up --port 0` in a project, from its ready line to its end."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.root = root
        self.process = subprocess.Popen([sys.executable, "-m", "davy", "up", "--port", "0", *arguments], cwd=root, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "DAVY_ACTOR": "tester"})
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if not self.line:
            out, error = self.process.communicate(timeout=30)
            raise AssertionError(f"not up: {out}{error}{self.log()}")
        self.port = int(self.line.rsplit(":", 1)[1])

    def log(self) -> str:
        """What the parts have said."""
        path = self.root / ".davy" / "run" / "up.log"
        return path.read_text() if path.exists() else ""

    def client(self, timeout: float = 30) -> Client:
        return Client(self.port, timeout)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.post(path, body, headers)

    def get(self, path: str) -> tuple[int, Any]:
        with self.client() as client:
            return client.request("GET", path)

    def health(self) -> Any:
        return self.get("/health")[1]

    def processes(self, word: str = "") -> list[int]:
        """The server's children whose command line has this word."""
        return [pid for pid in children(self.process.pid) if word in command_line(pid)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.communicate(timeout=40)
        finally:
            if self.process.poll() is None:
                self.process.kill()
        return self.process.returncode

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return self.request("POST", path, data, headers)

    def request(self, method: str, path: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        self.connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        response = self.connection.getresponse()
        raw = response.read()
        try:
            return response.status, msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return response.status, raw.decode()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


class Load(threading.Thread):
    """A client that asks until told to stop, and remembers every answer. A connection that breaks is opened again and counted."""

    def __init__(self, server: Running, path: str = "/predict/fraud", pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.server, self.path, self.pause = server, path, pause
        self.answers: list[tuple[int, Any]] = []
        self.broken = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        client = self.server.client()
        number = 0
        while not self._stopped.is_set():
            number += 1
            try:
                self.answers.append(client.post(self.path, self.body(number)))
            except (OSError, http.client.HTTPException):
                self.broken += 1
                client.connection.close()
                time.sleep(0.01)
            time.sleep(self.pause)
        client.connection.close()

    def body(self, number: int) -> Any:
        """What is asked in this turn."""
        return {**BODY, "card": f"c{number}"}

    def finish(self) -> list[tuple[int, Any]]:
        self._stopped.set()
        self.join(60)
        return self.answers


def children(pid: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = path.read_text()
            if int(text[text.rindex(")") + 2 :].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def alive(pid: int) -> bool:
    """Whether it runs (a zombie doesn't)."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text[text.rindex(")") + 2] not in "ZX"
    return False


def until(condition: Any, seconds: float = 30) -> Any:
    """Wait for it to be true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found
