"""Tracking and registry beside a stock MLflow server on SQLite: the same client, the same machine, the same run.

    python benchmarks/tracking.py [--runs 10000] [--without-stock] [--filled mlflow.db] [--fsync] [--repeats 3]

Stock gets fewer runs to create and one repeat, because it would take an hour; the store of 10,000 runs that it is searched in
is filled through MLflow's own embedded store. Prints one JSON object: for each phase what Davy and what MLflow reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".venv-mlflow3" / "bin"
CLIENT = Path(__file__).parent / "clients" / "tracking.py"
FILL = """
import sys
sys.path.insert(0, sys.argv[1])
from mlflow import MlflowClient
from tracking import make_runs
client = MlflowClient(tracking_uri=sys.argv[2])
make_runs(client, client.create_experiment("filled"), int(sys.argv[3]), 100)
"""


class Server:
    """A server in a process tree of its own, on a free port of loopback."""

    def __init__(self, command: list[str], folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        command = [word.format(port=self.port, folder=folder) for word in command]
        began = time.perf_counter()
        with (folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/api/2.0/mlflow/experiments/search?max_results=1", timeout=5).read()
                break
            except OSError:
                assert self.process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.005)
        self.cold = time.perf_counter() - began

    def memory(self) -> float:
        """The proportional memory of the whole tree, in MB."""
        total, waiting = 0, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                total += sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return round(total / 1024, 1)

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def measure(command: list[str], folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Cold starts (an existing database), memory, and all phases."""
    Server(command, folder).stop()
    colds = []
    for _ in range(3):
        server = Server(command, folder)
        colds.append(server.cold)
        server.stop()
    server = Server(command, folder)
    time.sleep(3)
    idle = server.memory()
    done = subprocess.run([PEER / "python", CLIENT, server.uri, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {"cold start to the first answer, s": round(sorted(colds)[1], 3), "memory idle, MB": idle, **json.loads(done.stdout.splitlines()[-1]),
             "memory after the load, MB": server.memory()}
    server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--create", type=int, default=300)
    parser.add_argument("--without-stock", action="store_true")
    parser.add_argument("--filled", type=Path, help="a mlflow.db that a run before has filled; it is copied")
    parser.add_argument("--fsync", action="store_true", help="each answer waits for the disk")
    given = parser.parse_args()
    subprocess.run([ROOT / "scripts" / "peers", "mlflow3"], check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = Path(place) / "davy", Path(place) / "mlflow"
        ours.mkdir()
        theirs.mkdir()
        if given.fsync:
            (ours / "davy.toml").write_text('[tracking]\ndurability = "fsync"\n')
        davy = measure([sys.executable, "-m", "davy", "up", "--only", "tracking", "--port", "{port}"], ours,
                       ["--runs", str(given.runs), "--repeats", str(given.repeats), "--create", str(given.create)])
        print(json.dumps(davy), file=sys.stderr, flush=True)
        stock: dict[str, Any] = {}
        if not given.without_stock:
            if given.filled:
                shutil.copy(given.filled, theirs / "m.db")
            else:
                subprocess.run([PEER / "python", "-c", FILL, str(CLIENT.parent), f"sqlite:///{theirs}/m.db", str(given.runs)], check=True, stdout=sys.stderr)
            stock = measure([str(PEER / "mlflow"), "server", "--host", "127.0.0.1", "--port", "{port}", "--backend-store-uri", "sqlite:///{folder}/m.db",
                             "--artifacts-destination", "{folder}/artifacts"], theirs,
                            ["--runs", str(given.runs), "--repeats", "1", "--create", "30", "--experiment", "filled"])
    print(json.dumps({name: {"davy": value, "mlflow": stock.get(name)} for name, value in davy.items()}, indent=1))


if __name__ == "__main__":
    main()
