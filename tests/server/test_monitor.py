"""What a running server watches by itself."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from server_kit import BODY, Running, until

pytestmark = pytest.mark.slow


def counted(server: Running) -> int:
    text = server.get("/metrics")[1] or ""
    return sum(int(float(value)) for value in re.findall(r'^davy_predictions_total\{[^}]*status="ok"\} (\S+)$', text, re.M))


def test_metrics_count_every_prediction_once_also_when_the_monitor_is_killed(shop: Path) -> None:
    toml = shop / "davy.toml"
    toml.write_text(toml.read_text() + '[monitoring]\nevery = "200ms"\nevaluate_every = "1s"\n')
    with Running(shop) as server:
        for number in range(30):
            assert server.post("/predict/fraud", {**BODY, "card": f"c{number}"})[0] == 200
        until(lambda: counted(server) == 30)
        (monitor,) = server.processes("davy.server.monitor")
        os.kill(monitor, signal.SIGKILL)
        for number in range(30):
            assert server.post("/predict/fraud", {**BODY, "card": f"d{number}"})[0] == 200
        until(lambda: counted(server) == 60)
        text = server.get("/metrics")[1]
        assert re.search(r'^davy_prediction_latency_seconds_bucket\{model="fraud",version="[12]",arm="\w+",le="\+Inf"\} \d+$', text, re.M)
        sums = re.findall(r"^davy_prediction_latency_seconds_count\S+ (\d+)$", text, re.M)
        assert sum(map(int, sums)) == 60
        assert server.stop() == 0
        assert "Traceback" not in server.log()
