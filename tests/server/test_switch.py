"""Weights change under load: every request is answered, by a version that had traffic, and the old one drains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from davy.home import Home
from davy.release.traffic import set_traffic
from server.conftest import make_shop
from server_kit import BODY, Load, Running, until
from serving_kit import add_version

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Running]]:
    """A server that the tests share, each with a model of its own."""
    root = make_shop(tmp_path_factory.mktemp("switch") / "shop")
    home = Home(root)
    with Running(root) as running:
        yield home, running
    home.close()


def give(up: tuple[Home, Running], name: str, weights: dict[str, float]) -> None:
    """Let it answer by these weights, and wait until it does."""
    home, server = up
    now = set_traffic(home, name, weights).revision
    until(lambda: server.health()["models"].get(name, {}).get("revision") == now)


def ask(name: str) -> str:
    return f"/predict/{name}"


def test_twenty_switches_drop_no_request(up: tuple[Home, Running]) -> None:
    server = up[1]
    clients = [Load(server) for _ in range(4)]
    for client in clients:
        client.start()
    for number in range(20):
        give(up, "fraud", {"fraud@1": 1.0} if number % 2 else {"fraud@2": 0.3, "fraud@1": 0.7} if number % 4 else {"fraud@2": 1.0})
    answers = [answer for client in clients for answer in client.finish()]
    assert {status for status, _ in answers} == {200}, answers[-1]
    assert sum(client.broken for client in clients) == 0
    assert {answer["version"] for _, answer in answers} == {1, 2}
    assert len(answers) > 100


def test_a_new_version_answers_only_once_it_is_warm_and_the_old_ones_go(up: tuple[Home, Running]) -> None:
    home, server = up
    old = [add_version(home, "renewed", seed=seed).reference for seed in (0, 1)]
    give(up, "renewed", {old[0]: 0.5, old[1]: 0.5})
    load = Load(server, ask("renewed"))
    load.start()
    until(lambda: load.answers)
    new = add_version(home, "renewed", seed=7)
    give(up, "renewed", {new.reference: 1.0})
    assert server.post(ask("renewed"), BODY)[1]["version"] == new.version
    until(lambda: not any(server.processes(reference) for reference in old))
    answers = load.finish()
    assert {status for status, _ in answers} == {200}, answers[-1]
    assert load.broken == 0
    versions = [answer["version"] for _, answer in answers]
    first = versions.index(new.version)
    assert first > 0
    assert set(versions[first:]) == {new.version}


def test_a_version_that_cannot_be_loaded_takes_no_traffic(up: tuple[Home, Running]) -> None:
    home, server = up
    good = add_version(home, "unsafe")
    give(up, "unsafe", {good.reference: 1.0})
    unsafe = add_version(home, "unsafe", format="pickle", data=b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    set_traffic(home, "unsafe", {good.reference: 0.5, unsafe.reference: 0.5})
    problem = until(lambda: server.health()["problems"].get("unsafe"))
    assert "os.system" in problem
    status, answer = server.post(ask("unsafe"), BODY)
    assert status == 200
    assert answer["version"] == good.version
    status, error = server.post(f"{ask('unsafe')}/versions/{unsafe.version}", BODY)
    assert status == 400
    assert error["error"] == "UnsafeModel"
    assert 'allow_globals = ["os.system"]' in error["fix"]
    give(up, "unsafe", {good.reference: 1.0})
    assert "unsafe" not in server.health()["problems"]


def test_a_model_whose_file_was_damaged_is_told_and_its_neighbour_served(up: tuple[Home, Running]) -> None:
    home, server = up
    damaged = add_version(home, "rotten", seed=3)
    digest = damaged.files["model.txt"].removeprefix("sha256:")
    blob = next(path for path in (home.path / "blobs").rglob(f"*{digest}"))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"tree", b"twig", 1))
    set_traffic(home, "rotten", {damaged.reference: 1.0})
    assert "damaged" in until(lambda: server.health()["problems"].get("rotten"))
    status, error = server.post(ask("rotten"), BODY)
    assert status == 503
    assert "damaged" in error["message"]
    assert server.post("/predict/fraud", BODY)[0] == 200


def test_a_model_without_traffic_says_how_to_give_it_some(up: tuple[Home, Running]) -> None:
    home, server = up
    add_version(home, "idle")
    status, error = server.post("/predict/idle", BODY)
    assert status == 404
    assert error["fix"] == "Give it some: davy traffic idle idle@1=1"
    set_traffic(home, "idle", {"idle@1": 1.0})
    until(lambda: server.post("/predict/idle", BODY)[0] == 200)


def test_versions_with_different_requests_ask_for_what_all_need(up: tuple[Home, Running]) -> None:
    home, server = up
    narrow, wide = add_version(home, "wide"), add_version(home, "wide", more=True)
    give(up, "wide", {narrow.reference: 0.5, wide.reference: 0.5})
    found = {server.post(ask("wide"), {**BODY, "items": 3, "card": f"c{number}"})[1]["version"] for number in range(20)}
    assert found == {narrow.version, wide.version}
    status, error = server.post(ask("wide"), BODY)
    assert status == 400
    assert "'items' is missing" in error["message"]
    assert server.post(f"{ask('wide')}/versions/{narrow.version}", BODY)[0] == 200


def test_a_request_keeps_its_version_to_the_end(up: tuple[Home, Running]) -> None:
    """Long arrays that are on their way when the weights change are each answered whole, by the version that had traffic when they came."""
    server = up[1]
    give(up, "fraud", {"fraud@1": 1.0})
    rows = [{**BODY, "card": f"c{number}"} for number in range(5000)]
    clients = [Arrays(server, rows) for _ in range(2)]
    for client in clients:
        client.start()
    for number in range(8):
        told = [len(client.answers) for client in clients]
        give(up, "fraud", {"fraud@1" if number % 2 else "fraud@2": 1.0})
        until(lambda told=told: all(len(client.answers) > before for client, before in zip(clients, told, strict=True)))
    answers = [answer for client in clients for answer in client.finish()]
    assert {status for status, _ in answers} == {200}
    by = [{answer["version"] for answer in array} for _, array in answers]
    assert all(len(versions) == 1 for versions in by)
    assert set.union(*by) == {1, 2}


class Arrays(Load):
    """A load of one long array after another."""

    def __init__(self, server: Running, rows: list[dict[str, object]]) -> None:
        super().__init__(server)
        self.rows = rows

    def body(self, number: int) -> list[dict[str, object]]:
        return self.rows
