"""Each process is killed under load; what was accepted is there once, what was not is told, and everything comes back by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from davy.events.client import connect
from davy.home import Home
from davy.serving.predictions import read_predictions
from server_kit import BODY, Load, Running, alive, children, until

if TYPE_CHECKING:
    from pathlib import Path


def logged(root: Path) -> list[str]:
    """The ids of all predictions in the log and its tables."""
    home = Home(root)
    try:
        return [name for frame in read_predictions(home, "fraud").values() for name in frame["prediction"]]
    finally:
        home.close()


def check_nothing_lost(root: Path, answers: list[tuple[int, Any]]) -> None:
    answered = [answer["prediction_id"] for status, answer in answers if status == 200]
    found = logged(root)
    assert len(found) == len(set(found))
    assert set(answered) <= set(found)
    assert len(answered) == len(set(answered)) > 0


def kill(server: Running, word: str) -> None:
    before = until(lambda: server.processes(word))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in before))
    until(lambda: server.processes(word))


def test_a_killed_worker_is_replaced_and_its_requests_are_answered(server: Running) -> None:
    clients = [Load(server) for _ in range(3)]
    for client in clients:
        client.start()
    for _ in range(3):
        time.sleep(0.3)
        kill(server, "fraud@1")
    until(lambda: server.post("/predict/fraud", BODY)[0] == 200)
    answers = [answer for client in clients for answer in client.finish()]
    assert sum(client.broken for client in clients) == 0
    assert {status for status, _ in answers} <= {200, 503}
    assert all(error["retry"] for status, error in answers if status == 503)
    check_nothing_lost(server.root, answers)


def test_a_killed_gateway_is_replaced_and_nothing_answered_is_lost(shop: Path) -> None:
    with Running(shop) as server:
        clients = [Load(server) for _ in range(3)]
        for client in clients:
            client.start()
        for _ in range(2):
            time.sleep(0.5)
            kill(server, "davy.server.gateway")
            until(lambda: server.post("/predict/fraud", BODY)[0] == 200)
        answers = [answer for client in clients for answer in client.finish()]
        assert {status for status, _ in answers} <= {200, 503}
        check_nothing_lost(shop, answers)
    check_nothing_lost(shop, answers)
    assert list((shop / ".davy" / "wal" / "predictions").glob("*/")) == []


def test_a_killed_keeper_is_replaced_and_every_acknowledged_event_counts_once(server: Running) -> None:
    acknowledged, told = 0, 0
    for number in range(60):
        if number in (15, 40):
            os.kill(until(lambda: server.processes("davy.events.keeper"))[0], signal.SIGKILL)
        status, answer = server.post("/events/payments", [{"card": "k", "amount": 1.0, "at": "2026-11-01T00:00:00Z"}])
        assert status in (200, 503), answer
        acknowledged += status == 200
        told += status == 503
        assert server.post("/predict/fraud", BODY)[0] == 200
    home = Home(server.root)
    with connect(home, hold=False) as log:
        log.flush()
    height = home.table("events/payments").scan().collect().height
    home.close()
    assert acknowledged <= height <= acknowledged + told
    assert acknowledged > 50


def test_sigterm_ends_everything_and_requests_in_flight_are_answered(shop: Path) -> None:
    server = Running(shop)
    load = Load(server)
    load.start()
    time.sleep(0.5)
    everything = [server.process.pid, *children(server.process.pid)]
    assert server.stop() == 0
    answers = load.finish()
    assert {status for status, _ in answers} == {200}, answers[-1]
    check_nothing_lost(shop, answers)
    assert not any(alive(pid) for pid in everything)
    assert not (shop / ".davy" / "run" / "up.json").exists()


def test_a_killed_supervisor_takes_its_children_along_and_can_be_started_again(shop: Path) -> None:
    server = Running(shop)
    answer = server.post("/predict/fraud", BODY)
    everything = children(server.process.pid)
    assert len(everything) >= 4
    server.process.kill()
    server.process.communicate()
    until(lambda: not any(alive(pid) for pid in everything))
    with Running(shop) as again:
        assert again.post("/predict/fraud", BODY)[0] == 200
        check_nothing_lost(shop, [answer])


def test_a_second_server_on_one_home_is_refused(server: Running) -> None:
    found = subprocess.run([sys.executable, "-m", "davy", "up", "--port", "0"], cwd=server.root, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert f"is served already at http://127.0.0.1:{server.port}" in found.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (["--host", "0.0.0.0"], "will not listen on 0.0.0.0"),
    (["--host", "example.com"], "davy user add NAME --role admin"),
    (["--port", "70000"], "not a port"),
    (["--port", "taken"], "can't be had"),
])
def test_addresses_that_cannot_be_had_are_refused(shop: Path, arguments: list[str], message: str) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        arguments = [str(other.getsockname()[1]) if word == "taken" else word for word in arguments]
        found = subprocess.run([sys.executable, "-m", "davy", "up", *arguments], cwd=shop, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert message in found.stderr


def test_a_part_that_never_comes_up_is_explained(shop: Path) -> None:
    wal = shop / ".davy" / "wal" / "events"
    wal.mkdir(parents=True)
    (wal / f"{1:020d}.wal").write_bytes(b"this is no write-ahead log" * 10)
    found = subprocess.run([sys.executable, "-m", "davy", "up", "--port", "0"], cwd=shop, capture_output=True, text=True, check=False)
    assert found.returncode == 3
    assert "keeper does not come up" in found.stderr
    assert "is damaged at byte 0" in found.stderr


def test_the_predict_and_traffic_verbs(shop: Path, server: Running) -> None:
    def davy(*words: str, root: Path = server.root) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "davy", *words], cwd=root, capture_output=True, text=True, check=False)

    request = ["card=c1", "amount=12.5", "shop=books", "asked=2026-01-01T00:00:00Z"]
    assert davy("predict", "fraud", *request, root=shop).returncode == 3
    found = davy("predict", "fraud@3", *request, "--json")
    assert found.returncode == 0, found.stderr
    assert '"arm":"pinned"' in found.stdout
    wrong = davy("predict", "fraud", "card=c1")
    assert wrong.returncode == 2
    assert "'amount' is missing" in wrong.stderr
    assert "fraud@2" in davy("traffic", "fraud").stdout
    assert davy("traffic", "fraud", "fraud@1=0.9", "fraud@2=0.2").returncode == 2
    assert '"revision":2' in davy("traffic", "fraud", "fraud@1=0.9", "fraud@2=0.1", "--json").stdout
    until(lambda: server.health()["models"]["fraud"]["revision"] == 2)
