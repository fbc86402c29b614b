"""A version that raises, hangs, answers the wrong number of rows or dies: stable answers, and the version is charged."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from databases import write_settings
from davy.home import Home
from davy.release.traffic import get_traffic, move_traffic
from davy.serving.assignment import Assignment
from davy.serving.predictions import read_predictions
from server.conftest import make_shop
from server_kit import BODY, Running, until
from serving_kit import DIES, HANGS, LEAKS, RAISES, ROWS, add_moody, add_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.registry.models import ModelVersion

SHARE = 0.3


def settle(root: Path) -> tuple[Home, ModelVersion]:
    """Give the shop a version that may misbehave within two seconds."""
    write_settings(root, 'project = "shop"\n[serving]\ntimeout = "2s"\nallow_globals = ["moody.Moody"]\n')
    home = Home(root)
    return home, add_moody(home)


@pytest.fixture
def moody(shop: Path) -> Iterator[tuple[Home, ModelVersion]]:
    """A shop of one's own, not yet up."""
    home, bad = settle(shop)
    yield home, bad
    home.close()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, ModelVersion, Running]]:
    home, bad = settle(make_shop(tmp_path_factory.mktemp("moody") / "shop"))
    with Running(home.root) as server:
        yield home, bad, server
    home.close()


class Stage:
    """A running server that tests share: each has a release of its own, and sees the predictions of that alone."""

    numbers = itertools.count(1)

    def __init__(self, home: Home, bad: ModelVersion, server: Running) -> None:
        self.home, self.bad, self.server, self.release = home, bad, server, f"r{next(self.numbers)}"

    def give(self, weights: dict[str, float], **more: Any) -> None:
        """Have it answer by these weights, with the bad version well again, whatever was asked of it before."""
        give(self.home, weights, release=self.release, **more)
        traffic = get_traffic(self.home, "fraud")
        assert traffic is not None
        until(lambda: self.server.health()["models"]["fraud"]["revision"] == traffic.revision)
        until(lambda: self.server.post(f"/predict/fraud/versions/{self.bad.version}", BODY)[0] == 200)

    def logged(self) -> pl.DataFrame:
        return logged(self.home).filter(pl.col("release") == self.release)

    def wait_for(self, wanted: pl.Expr, count: int) -> pl.DataFrame:
        return wait_for(self.home, wanted & (pl.col("release") == self.release), count)

    def shadow(self) -> dict[str, int]:
        return dict(self.server.health()["shadow"])


@pytest.fixture
def stage(up: tuple[Home, ModelVersion, Running]) -> Stage:
    return Stage(*up)


def give(home: Home, weights: dict[str, float], *, release: str = "r1", **more: Any) -> None:
    with home.database.begin() as connection:
        move_traffic(connection, "fraud", weights, clock=home.clock, actor="tester", release=release, **more)


def logged(home: Home) -> pl.DataFrame:
    frames = [frame.select("prediction", "version", "arm", "share", "status", "release", "answered", "output", "routing_key", "model_us", "kernel")
              for frame in read_predictions(home, "fraud").values()]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"status": pl.String, "arm": pl.String, "release": pl.String, "model_us": pl.Int64})


def wait_for(home: Home, wanted: pl.Expr, count: int) -> pl.DataFrame:
    """The log's rows of this kind, once there are so many."""
    found: list[pl.DataFrame] = []

    def there() -> bool:
        found[:] = [logged(home).filter(wanted)]
        return found[0].height == count

    until(there)
    return found[0]


def keys_of(bad: ModelVersion, version: int, count: int) -> list[str]:
    """Routing keys that fall on this version when the bad one has its share."""
    assignment = Assignment("fraud", {1: 1 - SHARE, bad.version: SHARE})
    return [key for number in range(10_000) if assignment.version(key := f"c{number}") == version][:count]


@pytest.mark.parametrize(("amount", "status"), [(RAISES, "error"), (ROWS, "error"), (HANGS, "timeout"), (DIES, "error")])
def test_stable_answers_what_another_version_fails_to_and_that_one_is_charged(stage: Stage, amount: float, status: str) -> None:
    bad, server = stage.bad, stage.server
    stage.give({"fraud@1": 1 - SHARE, bad.reference: SHARE}, stable=1)
    key = keys_of(bad, bad.version, 1)[0]
    assert server.post("/predict/fraud", {**BODY, "card": key})[1]["version"] == bad.version
    code, answer = server.post("/predict/fraud", {**BODY, "card": key, "amount": amount})
    assert (code, answer["version"], answer["arm"]) == (200, 1, "stable")
    found = stage.wait_for(pl.col("status") != "ok", 2)
    failure = found.filter(pl.col("status") == status).row(0, named=True)
    assert (failure["version"], failure["arm"], failure["share"], failure["release"], failure["output"]) == (bad.version, "canary", SHARE, stage.release, None)
    assert failure["answered"] == answer["prediction_id"]
    rescue = found.filter(pl.col("status") == "fallback").row(0, named=True)
    assert (rescue["prediction"], rescue["version"], rescue["share"]) == (answer["prediction_id"], 1, SHARE)
    assert rescue["output"] == answer["prediction"]
    assert f"{bad.reference} failed to answer a request: " in server.log()
    until(lambda: server.post("/predict/fraud", {**BODY, "card": key})[1]["version"] == bad.version)  # it comes back by itself


def test_an_array_with_one_bad_row_is_answered_whole(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({"fraud@1": 1 - SHARE, bad.reference: SHARE}, stable=1)
    theirs = keys_of(bad, bad.version, 3)
    rows = [{**BODY, "card": card} for card in (*theirs, *keys_of(bad, 1, 4))]
    rows[1]["amount"] = RAISES
    code, answers = server.post("/predict/fraud", rows)
    assert code == 200
    assert [answer["version"] for answer in answers][:3] == [1, 1, 1]  # the batch was one call, so all of its rows fell back
    assert len({answer["prediction_id"] for answer in answers}) == 7
    assert stage.wait_for(pl.col("status") == "error", 3).height


def test_a_model_that_leaks_is_ended_before_the_machine_is_full_and_stable_answers_meanwhile(moody: tuple[Home, ModelVersion]) -> None:
    home, bad = moody
    with (home.root / "davy.toml").open("a") as file:
        file.write("memory_mb = 400\n")
    give(home, {"fraud@1": 1 - SHARE, bad.reference: SHARE}, stable=1)
    with Running(home.root) as server:
        key, answers = keys_of(bad, bad.version, 1)[0], []

        def charged() -> bool:
            answers.append(server.post("/predict/fraud", {**BODY, "card": key, "amount": LEAKS}))
            return "limit of serving.memory_mb" in server.log() and answers[-1][1]["version"] == 1

        until(charged)
        assert {status for status, _ in answers} == {200}
        assert logged(home).filter((pl.col("status") != "ok") & (pl.col("version") == bad.version)).height > 0
        until(lambda: server.post("/predict/fraud", {**BODY, "card": key})[1]["version"] == bad.version)


def test_while_a_version_hangs_only_the_first_request_waits_for_it(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({"fraud@1": 1 - SHARE, bad.reference: SHARE}, stable=1)
    for key in keys_of(bad, bad.version, 20):
        assert server.post("/predict/fraud", {**BODY, "card": key, "amount": HANGS})[1]["version"] == 1
    found = stage.wait_for(pl.col("status") == "timeout", 20)
    assert found.filter(pl.col("model_us") > 1_600_000).height <= 2


def test_a_failure_without_anyone_to_answer_is_an_error_and_logged(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({bad.reference: 1.0})
    assert server.post("/predict/fraud", {**BODY, "amount": RAISES})[0] == 500
    assert server.post("/predict/fraud", {**BODY, "amount": HANGS})[0] == 504
    found = stage.wait_for(pl.lit(True), 2)
    assert sorted(found["status"]) == ["error", "timeout"]
    assert found["share"].to_list() == [1.0, 1.0]
    assert set(found["answered"]) == {""}


def test_a_version_without_weight_answers_for_the_one_that_has_it_all(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({bad.reference: 1.0}, stable=2)
    assert server.post("/predict/fraud", BODY)[1]["version"] == bad.version
    code, answer = server.post("/predict/fraud", {**BODY, "amount": RAISES})
    assert (code, answer["version"], answer["arm"]) == (200, 2, "stable")


def test_a_server_that_starts_while_a_version_cannot_be_loaded_lets_stable_answer(moody: tuple[Home, ModelVersion]) -> None:
    home, _ = moody
    unsafe = add_version(home, format="pickle", data=b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    give(home, {"fraud@1": 1 - SHARE, unsafe.reference: SHARE}, stable=1)
    with Running(home.root) as server:
        assert "os.system" in until(lambda: server.health()["problems"].get("fraud"))
        until(lambda: server.post("/predict/fraud", BODY)[0] == 200)
        answers = [server.post("/predict/fraud", {**BODY, "card": f"c{number}"}) for number in range(20)]
        assert {status for status, _ in answers} == {200}
        assert {answer["version"] for _, answer in answers} == {1}


def test_a_shadow_is_asked_the_same_and_answers_nobody(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({"fraud@1": 1.0}, stable=1, shadow=bad.version)
    well = (pl.col("arm") == "shadow") & (pl.col("status") == "ok")
    until(lambda: server.post("/predict/fraud", BODY)[0] == 200 and stage.logged().filter(well).height)
    before = stage.shadow()
    answers = [server.post("/predict/fraud", {**BODY, "card": f"c{number}"})[1] for number in range(20)]
    answers.append(server.post("/predict/fraud", {**BODY, "amount": RAISES})[1])
    answers.append(server.post("/predict/fraud", {**BODY, "amount": HANGS})[1])
    assert {answer["version"] for answer in answers} == {1}
    found = stage.wait_for((pl.col("arm") == "shadow") & pl.col("answered").is_in([answer["prediction_id"] for answer in answers]), 22)
    assert set(found["answered"]) == {answer["prediction_id"] for answer in answers}
    assert set(found["version"]) == {bad.version}
    assert set(found["share"]) == {0.0}
    assert sorted(found["status"].value_counts().rows()) == [("error", 1), ("ok", 20), ("timeout", 1)]
    assert stage.shadow() == {"asked": before["asked"] + 22, "dropped": before["dropped"]}


def test_a_shadow_that_hangs_is_dropped_and_counted_and_slows_nobody(stage: Stage) -> None:
    bad, server = stage.bad, stage.server
    stage.give({"fraud@1": 1.0}, stable=1, shadow=bad.version)
    before = stage.shadow()
    with server.client() as client:
        client.post("/predict/fraud", {**BODY, "amount": HANGS})
        answers = [client.post("/predict/fraud", {**BODY, "card": f"c{number}"}) for number in range(400)]
        assert {(status, answer["version"]) for status, answer in answers} == {(200, 1)}
        found = stage.shadow()
        assert found["asked"] - before["asked"] + found["dropped"] - before["dropped"] == 401
        assert found["dropped"] > before["dropped"]
        slowest = stage.logged().filter(pl.col("arm") == "stable")["model_us"].max()
        assert isinstance(slowest, int)
        assert slowest < 1_600_000  # none has waited for the shadow, which takes two seconds to be given up
