"""The gate beside a server that answers: neither disturbs the other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from davy.events.client import connect
from davy.gate.check import PASS
from davy.home import Home
from davy.serving.predictions import read_predictions
from gate.kit import make_shop, serving, trained
from server_kit import Load, Running

if TYPE_CHECKING:
    from pathlib import Path


def test_the_gate_judges_by_live_traffic_and_leaves_it_alone(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop")
    stable, candidate = serving(home, trained(home)), trained(home, weight=0.131)
    home.close()
    with Running(home.root) as server:
        with server.client() as client:
            for number in range(40):
                assert client.post("/predict/returns", {"shop": "abcd"[number % 4], "size": number % 9})[0] == 200
        load = Asking(server, "/predict/returns", pause=0.002)
        load.start()
        command = [sys.executable, "-m", "davy", "gate", candidate.reference, "--json"]
        judged = subprocess.run(command, cwd=home.root, capture_output=True, text=True, check=False)
        answers = load.finish()
        workers = server.processes("davy.serving.worker")
    found = {item["check"]: item for item in json.loads(judged.stdout)["results"]}
    assert judged.returncode == 0, [item["summary"] for item in found.values() if item["blocks"]]
    assert found["requests"]["verdict"] == found["features"]["verdict"] == found["rollback"]["verdict"] == PASS
    assert found["requests"]["evidence"]["requests"] >= 40
    assert found["features"]["evidence"]["logged"]["checked"] >= 40
    assert {status for status, _ in answers} == {200}
    assert {answer["version"] for _, answer in answers} == {stable.version}
    assert len(workers) == 1
    opened = Home(home.root)
    with connect(opened) as log:
        log.flush()
    logged = sum(frame.height for frame in read_predictions(opened, "returns").values())
    opened.close()
    assert logged == 40 + len(answers)


class Asking(Load):
    """A client of the shop."""

    def body(self, number: int) -> dict[str, object]:
        return {"shop": "abc"[number % 3], "size": number % 7}
