"""What was really asked: replayed features, the last requests through both versions, rollback under load, and rows of another feature set."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest

from databases import write_settings
from davy.features.training_set import frame_digest
from davy.gate.check import FAIL, NO_DATA, PASS
from davy.home import Home
from davy.project import load_project
from davy.registry.definitions import get_feature_set
from davy.registry.models import get_version, register
from davy.tracking import run as start_run
from davy.tracking.artifacts import read_artifact
from davy.training.record import ARTIFACT, ROWS, TrainingRecord
from davy.training.train import train
from gate.kit import SPLIT, ask, judged, make_shop, result, serving, trained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.registry.models import ModelVersion


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A shop whose stable version has answered 120 requests."""
    home = make_shop(tmp_path_factory.mktemp("asked") / "shop", "[gate]\nrequests = 100\n")
    ask(home, serving(home, trained(home)), 120)
    yield home
    home.close()


def with_other_rows(home: Home, version: ModelVersion, change: pl.Expr) -> ModelVersion:
    """The same model, registered with a training set in which a feature was computed otherwise than the log says."""
    with home.database.read() as connection:
        frame = pl.read_parquet(io.BytesIO(read_artifact(connection, home.blobs, str(version.run_id), ROWS))).with_columns(change)
        kept = TrainingRecord.from_json(read_artifact(connection, home.blobs, str(version.run_id), ARTIFACT))
        features = get_feature_set(connection, str(version.feature_set))
    data = msgspec.structs.replace(kept.data, columns={name: frame_digest(frame.select(name)) for name in frame.columns})
    content = io.BytesIO()
    frame.write_parquet(content)
    with start_run("planted", home=home) as run:
        run.artifact(content.getvalue(), ROWS)
        run.artifact(msgspec.structs.replace(kept, data=data).to_json(), ARTIFACT)
    assert version.signature is not None
    with home.database.begin() as connection:
        return register(connection, clock=home.clock, actor="tester", name=version.name, format=str(version.format), files=version.files,
                        signature=version.signature, feature_set=features, run_id=run.id, training_set=version.training_set)


def test_the_last_requests_go_through_both_versions(asked: Home) -> None:
    report = judged(asked, trained(asked, weight=0.131), "requests", "features", "rollback")
    found = {item.check: item for item in report.results}
    assert {item.verdict for item in found.values()} == {PASS}, report
    assert found["requests"].evidence["requests"] == 100
    assert found["requests"].evidence["only_the_candidate_errs"] == 0
    assert found["features"].evidence["logged"] == {"checked": 100, "different": [], "features": []}
    assert found["features"].evidence["learned"]["checked"] == 200
    assert found["rollback"].evidence["failed"] == 0
    assert found["rollback"].evidence["by_candidate"] > 0
    assert found["rollback"].evidence["back_ms"] >= 0


def test_answers_that_moved_as_a_whole(asked: Home) -> None:
    found = result(asked, trained(asked, "shifted"), "requests")
    assert (found.verdict, found.evidence["shift"] > 0.1) == (PASS, True)
    found = result(asked, trained(asked, weight=0.0), "requests")
    assert found.verdict == FAIL
    assert found.evidence["mean"] < found.evidence["mean_of_stable"] - 0.2
    assert "a shift of -" in found.summary


def test_an_error_where_stable_answers_is_charged_to_the_candidate(asked: Home, tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop")
    ask(home, serving(home, trained(home)), 20, alter=lambda number, values: [*values[:4], None if number == 7 else values[4], values[5]])
    found = result(home, trained(home, "brittle"), "requests")
    home.close()
    assert found.verdict == FAIL
    assert found.evidence["only_the_candidate_errs"] == 1
    assert "no size" in found.summary


def test_a_model_that_hangs_is_not_waited_for_again_and_again(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop")
    write_settings(home.root, '[serving]\nallow_globals = ["models.Rule"]\ntimeout = "100ms"\n')
    home.close()
    home = Home(home.root)
    ask(home, serving(home, trained(home)), 60)
    report = judged(home, trained(home, "hangs"))
    home.close()
    found = {item.check: item for item in report.results}
    assert {"quality", "batches", "requests", "latency", "rollback"} <= {item.check for item in report.failed}
    assert "did not answer within 0.1 s" in found["quality"].summary
    assert found["requests"].evidence["errors"] > 40


def test_a_feature_that_disagrees_with_its_replay(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop")
    ask(home, serving(home, trained(home)), 20, alter=lambda number, values: [values[0], (values[1] or 0) + 0.5 * (number == 3), *values[2:]])
    found = result(home, trained(home, weight=0.131), "features")
    home.close()
    assert found.verdict == FAIL
    assert found.evidence["logged"]["features"] == ["mean_7d"]
    assert found.evidence["learned"]["different"] == []


def test_a_training_set_that_serving_would_not_compute(asked: Home) -> None:
    found = result(asked, with_other_rows(asked, trained(asked), pl.col("sales_1d") + 1), "features")
    assert found.verdict == FAIL
    assert found.evidence["learned"]["features"] == ["sales_1d"]
    assert "row " in found.summary


def test_hindsight_can_not_be_served(asked: Home) -> None:
    made = train(load_project(asked.root), asked, "returns", end=SPLIT, as_known="event")
    with asked.database.read() as connection:
        version = get_version(connection, "returns", made.version)
    found = result(asked, version, "features")
    assert "hindsight" in found.evidence["learned"]


def test_versions_of_other_features_are_compared_on_the_same_rows(asked: Home) -> None:
    path = asked.root / "models.py"
    before = path.read_text()
    changed = before.replace('features=[Shop, pace, "size", "shop"]', 'features=[Shop.latest, Shop.sales_1d, pace, "shop", "size", Shop.mean_7d]')
    path.write_text(changed.replace("matrix[:, SIZE], matrix[:, SHOP]", "matrix[:, 4], matrix[:, 3]"))
    try:
        version = trained(asked)
        report = judged(asked, version)
    finally:
        path.write_text(before)
    found: dict[str, Any] = {item.check: item for item in report.results}
    assert found["quality"].verdict == PASS
    assert found["quality"].evidence["against"]["gain"] == pytest.approx(0, abs=0.02)
    assert found["quality"].evidence["held_out_by"] == version.reference
    assert found["requests"].evidence["requests"] == 100
    assert found["features"].evidence["logged"].startswith("No request has been logged with the features of")
    assert report.passed, [item.summary for item in report.failed]


def test_without_held_out_rows_those_of_stable_are_taken_if_it_has_not_learned_from_them(asked: Home) -> None:
    version = trained(asked, weight=0.131, test=False)
    found = result(asked, version, "quality")
    assert (found.verdict, found.evidence["held_out_by"]) == (PASS, "returns@1")


def test_without_any_there_is_not_enough_data(empty: Home) -> None:
    report = judged(empty, trained(empty, test=False))
    verdicts = {item.check: item.verdict for item in report.results}
    assert {name for name, verdict in verdicts.items() if verdict == NO_DATA} == {"quality", "slices", "baseline", "calibration", "requests", "rollback"}
    assert (report.passed, report.stable, report.alone) == (True, None, "no version is stable yet")
