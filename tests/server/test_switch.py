"""Weights change under load: every request is answered, by a version that had traffic, and the old one drains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from davy.home import Home
from davy.release.traffic import set_traffic
from server_kit import BODY, Load, Running, until
from serving_kit import add_version

if TYPE_CHECKING:
    from pathlib import Path


def revision(server: Running) -> int:
    return int(server.health()["models"]["fraud"]["revision"])


def test_twenty_switches_drop_no_request(shop: Path) -> None:
    home = Home(shop)
    with Running(shop) as server:
        clients = [Load(server) for _ in range(4)]
        for client in clients:
            client.start()
        for number in range(20):
            weights = {"fraud@1": 1.0} if number % 2 else {"fraud@2": 0.3, "fraud@1": 0.7} if number % 4 else {"fraud@2": 1.0}
            now = set_traffic(home, "fraud", weights).revision
            until(lambda now=now: revision(server) == now)
        answers = [answer for client in clients for answer in client.finish()]
        assert {status for status, _ in answers} == {200}, answers[-1]
        assert sum(client.broken for client in clients) == 0
        assert {answer["version"] for _, answer in answers} == {1, 2}
        assert len(answers) > 100
    home.close()


def test_a_new_version_answers_only_once_it_is_warm_and_the_old_one_goes(shop: Path) -> None:
    home = Home(shop)
    with Running(shop) as server:
        load = Load(server)
        load.start()
        add_version(home, seed=7)
        now = set_traffic(home, "fraud", {"fraud@4": 1.0}).revision
        until(lambda: revision(server) == now)
        assert server.post("/predict/fraud", BODY)[1]["version"] == 4
        until(lambda: not server.processes("fraud@1") and not server.processes("fraud@2"))
        answers = load.finish()
        assert {status for status, _ in answers} == {200}, answers[-1]
        assert load.broken == 0
        versions = [answer["version"] for _, answer in answers]
        assert 4 not in versions[: versions.index(4)]
        assert set(versions[versions.index(4) :]) == {4}
    home.close()


def test_a_version_that_cannot_be_loaded_takes_no_traffic(shop: Path) -> None:
    gadget = b"cos\nsystem\n(X\x04\x00\x00\x00truetR."
    home = Home(shop)
    unsafe = add_version(home, format="pickle", data=gadget)
    with Running(shop) as server:
        set_traffic(home, "fraud", {"fraud@1": 0.5, unsafe.reference: 0.5})
        problem = until(lambda: server.health()["problems"].get("fraud"))
        assert "os.system" in problem
        status, answer = server.post("/predict/fraud", BODY)
        assert status == 200
        assert answer["version"] in (1, 2)
        status, error = server.post(f"/predict/fraud/versions/{unsafe.version}", BODY)
        assert status == 400
        assert error["error"] == "UnsafeModel"
        assert 'allow_globals = ["os.system"]' in error["fix"]
        now = set_traffic(home, "fraud", {"fraud@2": 1.0}).revision
        until(lambda: revision(server) == now)
        assert server.health()["problems"] == {}
    home.close()


def test_a_model_whose_file_was_damaged_is_told_and_its_neighbour_served(shop: Path) -> None:
    home = Home(shop)
    damaged = add_version(home, "other", seed=3)
    set_traffic(home, "other", {damaged.reference: 1.0})
    digest = damaged.files["model.txt"].removeprefix("sha256:")
    blob = next(path for path in (shop / ".davy" / "blobs").rglob(f"*{digest}"))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"tree", b"twig", 1))
    with Running(shop) as server:
        assert "damaged" in server.health()["problems"]["other"]
        status, error = server.post("/predict/other", BODY)
        assert status == 503
        assert "damaged" in error["message"]
        assert server.post("/predict/fraud", BODY)[0] == 200
    home.close()


def test_a_model_without_traffic_says_how_to_give_it_some(shop: Path) -> None:
    home = Home(shop)
    add_version(home, "idle")
    with Running(shop) as server:
        status, error = server.post("/predict/idle", BODY)
        assert status == 404
        assert error["fix"] == "Give it some: davy traffic idle idle@1=1"
        set_traffic(home, "idle", {"idle@1": 1.0})
        until(lambda: server.post("/predict/idle", BODY)[0] == 200)
    home.close()


def test_versions_with_different_requests_ask_for_what_all_need(shop: Path) -> None:
    home = Home(shop)
    wider = add_version(home, more=True)
    with Running(shop) as server:
        set_traffic(home, "fraud", {"fraud@1": 0.5, wider.reference: 0.5})
        until(lambda: server.post("/predict/fraud", {**BODY, "items": 3})[0] == 200)
        found = {server.post("/predict/fraud", {**BODY, "items": 3, "card": f"c{number}"})[1]["version"] for number in range(20)}
        assert found == {1, wider.version}
        status, error = server.post("/predict/fraud", BODY)
        assert status == 400
        assert "'items' is missing" in error["message"]
        assert server.post("/predict/fraud/versions/1", BODY)[0] == 200
    home.close()


def test_a_request_keeps_its_version_to_the_end(shop: Path) -> None:
    """A long array that is on its way when the weights change is answered whole, by the versions that had traffic when it came."""
    home = Home(shop)
    set_traffic(home, "fraud", {"fraud@1": 1.0})
    with Running(shop) as server:
        load = Load(server, pause=0.01)
        load.start()
        rows = [{**BODY, "card": f"c{number}"} for number in range(5000)]
        with server.client() as client:
            import threading

            threading.Timer(0.05, lambda: set_traffic(home, "fraud", {"fraud@2": 1.0})).start()
            status, answers = client.post("/predict/fraud", rows)
        time.sleep(0.1)
        assert status == 200
        assert {answer["version"] for answer in answers} == {1}
        until(lambda: server.post("/predict/fraud", BODY)[1]["version"] == 2)
        assert {status for status, _ in load.finish()} == {200}
    home.close()
