"""Releases through a running server: the controller decides by itself, by hand one may say otherwise, and no crash leaves traffic in between."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest

from databases import write_settings
from davy.home import Home
from davy.release.releases import Release, ask, get_release, start_release, timeline
from davy.release.traffic import get_traffic, set_traffic
from davy.serving.predictions import read_predictions
from davy.store import journal
from server.conftest import make_shop
from server_kit import BODY, Load, Running, until
from serving_kit import RAISES, add_moody, add_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOML = """
project = "shop"
[serving]
timeout = "2s"
allow_globals = ["moody.Moody"]
[release]
steps = [20, 50]
min_time = "0s"
min_requests = 30
latency_slack = "50ms"
delta = {{ errors = 1.0, latency = 4.0 }}
tolerated = {{ errors = 0.05 }}
{more}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Running]]:
    root = make_shop(tmp_path_factory.mktemp("release") / "shop")
    configure(root)
    home = Home(root)
    with Running(root) as running:
        yield home, running
    home.close()


@pytest.fixture
def server(up: tuple[Home, Running]) -> Running:
    return up[1]


@pytest.fixture
def stand(up: tuple[Home, Running]) -> Home:
    """The running server's home, in which no release is under way and the first version has all traffic."""
    home, running = up
    wanted = set_traffic(home, "fraud", {"fraud@1": 1.0}).revision
    until(lambda: running.health()["models"]["fraud"]["revision"] == wanted)
    return home


def configure(root: Path, more: str = "") -> None:
    write_settings(root, TOML.format(more=more))


def now(home: Home, release: Release) -> Release:
    with home.database.read() as connection:
        return get_release(connection, release.id)


def until_phase(home: Home, release: Release, *phases: str, seconds: float = 60) -> Release:
    deadline = time.monotonic() + seconds
    while (found := now(home, release)).state.phase not in phases:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def weights(home: Home) -> dict[str, float]:
    found = get_traffic(home, "fraud")
    assert found is not None
    return found.weights


class Bad(Load):
    """A load in which every request is one that the moody version raises on."""

    def run(self) -> None:
        client = self.server.client()
        for number in itertools.count():
            if self._stopped.is_set():
                break
            self.answers.append(client.post("/predict/fraud", {**BODY, "card": f"c{number}", "amount": RAISES}))
        client.connection.close()


def test_a_good_version_is_promoted_on_evidence(stand: Home, server: Running) -> None:
    good = add_version(stand, seed=1)
    release = start_release(stand, good.reference)
    load = Load(server)
    load.start()
    done = until_phase(stand, release, "promoted")
    answers = load.finish()
    assert {status for status, _ in answers} == {200}
    assert load.broken == 0
    assert weights(stand) == {good.reference: 1.0}
    assert done.findings.fine
    assert all("ln E" in reason for reason in done.state.reasons)
    with stand.database.read() as connection:
        entries = [entry for entry in journal.entries(connection, subject="fraud", action="release.") if entry.details["release"] == release.id]
        points = timeline(connection, release.id)
    assert [entry.action for entry in reversed(entries)] == ["release.started", "release.step", "release.step", "release.promoted"]
    assert entries[0].details["evidence"]["metrics"]["errors"]["verdict"] == "fine"
    assert [point.share for point in points if point.reasons] == [0.2, 0.5, 1.0]
    until(lambda: server.post("/predict/fraud", BODY)[1]["version"] == good.version)


def test_a_version_that_raises_is_rolled_back_at_once_and_nobody_notices(stand: Home, server: Running) -> None:
    bad = add_moody(stand)
    release = start_release(stand, bad.reference)
    load = Bad(server)
    load.start()
    done = until_phase(stand, release, "rolled back")
    until(lambda: bad.version not in server.health()["models"]["fraud"]["versions"])
    answers = load.finish()
    assert {(status, answer["version"]) for status, answer in answers} == {(200, 1)}
    assert weights(stand) == {"fraud@1": 1.0}
    assert done.findings.worse == ("errors",)
    frame = pl.concat([frame.filter(pl.col("release") == release.id).select("logged_time", "status") for frame in read_predictions(stand, "fraud").values()])
    errors = frame.filter(pl.col("status") == "error").sort("logged_time")["logged_time"].dt.epoch("us").to_list()
    deciding = errors[done.findings.canary - 1]
    assert errors[-1] - deciding < 10_000_000  # benchmarks/rollback.py measures it: about a twentieth of a second
    assert done.updated - deciding < 10_000_000


def test_a_version_that_cannot_be_loaded_is_rolled_back_and_says_so(stand: Home) -> None:
    unsafe = add_version(stand, format="pickle", data=b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    release = start_release(stand, unsafe.reference)
    done = until_phase(stand, release, "rolled back")
    assert "can't be loaded" in done.state.reasons[0]
    assert weights(stand) == {"fraud@1": 1.0}


def test_blue_green_switches_at_once_and_back_at_once(stand: Home, server: Running) -> None:
    good, bad = add_version(stand, seed=1), add_moody(stand)
    warm = Load(server)
    warm.start()
    until(lambda: len(warm.answers) > 300)
    warm.finish()
    release = start_release(stand, good.reference, strategy="blue-green")
    load = Load(server)
    load.start()
    assert until_phase(stand, release, "step", "promoted").weights == {good.reference: 1.0}
    until_phase(stand, release, "promoted")
    assert {status for status, _ in load.finish()} == {200}
    assert ask(stand, "fraud", "roll back").state.phase == "rolled back"
    assert weights(stand) == {"fraud@1": 1.0}
    until(lambda: server.post("/predict/fraud", BODY)[1]["version"] == 1)
    second = start_release(stand, bad.reference, strategy="blue-green")
    load = Bad(server)
    load.start()
    until_phase(stand, second, "rolled back")
    assert {(status, answer["version"]) for status, answer in load.finish()} == {(200, 1)}


def test_a_shadow_answers_nobody_and_goes_on_as_canary_or_back(stand: Home, server: Running) -> None:
    good, bad = add_version(stand, seed=1), add_moody(stand)
    release = start_release(stand, bad.reference, strategy="shadow")
    load = Bad(server)
    load.start()
    until_phase(stand, release, "rolled back")
    assert {(status, answer["version"]) for status, answer in load.finish()} == {(200, 1)}
    release = start_release(stand, good.reference, strategy="shadow")
    assert until_phase(stand, release, "shadow").weights == {"fraud@1": 1.0}
    quiet = Load(server)
    quiet.start()
    found = until_phase(stand, release, "step")
    assert found.weights == {"fraud@1": 0.8, good.reference: 0.2}
    quiet.finish()
    ask(stand, "fraud", "abort")


def test_a_controller_that_is_killed_goes_on_where_it_was(stand: Home, server: Running) -> None:
    good = add_version(stand, seed=1)
    release = start_release(stand, good.reference)
    load = Load(server)
    load.start()
    seen: list[dict[str, float]] = []
    deadline = time.monotonic() + 60
    kills = 0
    while now(stand, release).state.phase != "promoted":
        assert time.monotonic() < deadline
        seen.append(weights(stand))
        if kills < 6 and len(seen) % 5 == 0:
            for pid in server.processes("davy.release.controller"):
                os.kill(pid, signal.SIGKILL)
                kills += 1
        time.sleep(0.05)
    answers = load.finish()
    assert kills >= 3
    assert {status for status, _ in answers} == {200}
    allowed = [{"fraud@1": 1.0}, {"fraud@1": 0.8, good.reference: 0.2}, {"fraud@1": 0.5, good.reference: 0.5}, {good.reference: 1.0}]
    assert all(found in allowed for found in seen)
    done = now(stand, release)
    frames = [frame.filter(pl.col("release") == release.id) for frame in read_predictions(stand, "fraud").values()]
    counted = done.findings.stable + done.findings.canary
    logged = pl.concat([frame.select("logged_time") for frame in frames]).filter(pl.col("logged_time").dt.epoch("us") <= done.updated).height
    assert logged * 0.9 <= counted <= logged


def test_hands(shop: Path) -> None:
    from davy.errors import Conflict, NotFound

    configure(shop, "approval = true")
    home = Home(shop)
    set_traffic(home, "fraud", {"fraud@1": 1.0})
    good = add_version(home, seed=1)
    with pytest.raises(NotFound, match="has had no release"):
        ask(home, "fraud", "pause")
    with Running(shop) as server:
        release = start_release(home, good.reference)
        with pytest.raises(Conflict, match="One version of a model"):
            start_release(home, "fraud@2")
        with pytest.raises(Conflict, match="davy abort fraud"):
            set_traffic(home, "fraud", {"fraud@1": 1.0})
        until_phase(home, release, "step")
        paused = ask(home, "fraud", "pause", reason="lunch")
        assert paused.state.reasons == ("lunch",)
        with pytest.raises(Conflict, match="can't be asked to pause"):
            ask(home, "fraud", "pause")
        load = Load(server)
        load.start()
        until(lambda: len(load.answers) > 200)
        assert now(home, release).state.phase == "paused"
        ask(home, "fraud", "resume")
        waiting = until(lambda: (found := now(home, release)) and "approval" in "".join(found.state.reasons) and found)
        assert waiting.weights == {"fraud@1": 0.5, good.reference: 0.5}
        load.finish()
        assert ask(home, "fraud", "promote").state.phase == "promoted"
        assert weights(home) == {good.reference: 1.0}
        assert ask(home, "fraud", "roll back").state.phase == "rolled back"
        assert weights(home) == {"fraud@1": 1.0}
        with pytest.raises(Conflict):
            ask(home, "fraud", "roll back")
    home.close()


