"""A server that speaks what runs on a server need, on loopback, and that can be away, busy or unwilling."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Server:
    """Runs as they were sent: points as a set, because a server takes a point once.

    Attributes:
        answers: statuses to give to the next requests instead of taking them, each with headers.
        refuses: a word; a request whose body has it is answered with 400.
        slams: how many requests are taken and left without an answer, as by a server that dies behind the commit.
        spare: how many requests are answered before.
    """

    def __init__(self, port: int = 0) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.authorizations: set[str | None] = set()
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.refuses = ""
        self.slams = self.spare = 0
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Be there, with all that was stored before."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                stub.handle(self)

            do_POST = do_PUT = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._open: list[Any] = []
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Go away: connections are refused, and open ones cut."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        self._open.append(request.connection)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts = urlsplit(request.path)
        self.requests.append(parts.path)
        self.authorizations.add(request.headers.get("Authorization"))
        if self.answers:
            status, headers = self.answers.pop(0)
            self._answer(request, status, {"error_code": "TEMPORARILY_UNAVAILABLE" if status >= 500 else "UNAUTHENTICATED", "message": "not now"}, headers)
            return
        if self.refuses and self.refuses.encode() in body:
            self._answer(request, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"no {self.refuses} here"})
            return
        if "mlflow-artifacts" in parts.path:
            status, answer = self._artifact(unquote(parts.path), body)
        else:
            call = parts.path.removeprefix("/api/2.0/mlflow/")
            message = {name: values[0] for name, values in parse_qs(parts.query).items()} if request.command == "GET" else json.loads(body)
            status, answer = self._call(call, message)
        self.spare = max(self.spare - 1, 0)
        if self.slams and not self.spare:
            self.slams -= 1
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(request, status, answer)

    def _call(self, call: str, message: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        missing = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}
        if call == "experiments/get-by-name":
            found = self.experiments.get(message["experiment_name"])
            return (200, {"experiment": {"experiment_id": found}}) if found else missing
        if call == "experiments/create":
            self.experiments[message["name"]] = found = str(len(self.experiments) + 1)
            return 200, {"experiment_id": found}
        if call == "runs/create":
            run = self.runs.setdefault(message["run_id"], {"experiment": message["experiment_id"], "name": message["run_name"], "user": message["user_id"],
                                                           "tags": {}, "params": {}, "points": set(), "files": {}, "datasets": [], "status": "RUNNING"})
            run["tags"] |= {tag["key"]: tag["value"] for tag in message["tags"]}
            place = f"mlflow-artifacts:/{message['experiment_id']}/{message['run_id']}/artifacts"
            return 200, {"run": {"info": {"run_id": message["run_id"], "artifact_uri": place}}}
        run = self.runs.get(message["run_id"])
        if run is None:
            return missing
        if call == "runs/log-batch":
            assert len(message.get("metrics", [])) <= 1000
            assert len(message.get("params", [])) <= 100
            run["points"] |= {(item["key"], item["step"], item["timestamp"], item["value"]) for item in message.get("metrics", [])}
            run["params"] |= {item["key"]: item["value"] for item in message.get("params", [])}
            run["tags"] |= {item["key"]: item["value"] for item in message.get("tags", [])}
        elif call == "runs/log-inputs":
            run["datasets"] += [item for item in message["datasets"] if item not in run["datasets"]]
        elif call == "runs/update":
            run["status"], run["ended"] = message["status"], message["end_time"]
        return 200, {}

    def _artifact(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        _, run_id, _, name = path.removeprefix("/api/2.0/mlflow-artifacts/artifacts/").split("/", 3)
        self.runs[run_id]["files"][name] = body
        return 200, {}

    def _answer(self, request: BaseHTTPRequestHandler, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(answer).encode()
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)
