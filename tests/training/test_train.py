"""`davy train` from events to a registered version, and what is left when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest

from databases import write_settings
from davy.cli.main import run as davy
from davy.errors import Conflict, DavyError, DefinitionError, InvalidInput, NotFound, UnsafeModel
from davy.features.training_set import frame_digest
from davy.home import Home
from davy.project import load_project
from davy.registry.definitions import get_feature_set, get_training_set
from davy.registry.models import get_version, list_versions
from davy.store import journal
from davy.tracking.artifacts import list_artifacts, read_artifact
from davy.tracking.records import RunRecord
from davy.tracking.runs import get_run
from davy.tracking.search import search_runs
from davy.training.capture import Capture
from davy.training.formats import digest_predictions, load_files
from davy.training.record import TrainingRecord
from davy.training.runs import alive, this_process
from davy.training.spine import build, encode_like
from davy.training.train import Span, TrainResult, train
from training.shop import git, ingest, moments, sales, write_moments, write_shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Home]:
    home = Home(write_shop(tmp_path / "shop"))
    ingest(home, sales())
    yield home
    home.close()


def trained(home: Home, **more: Any) -> TrainResult:
    return train(load_project(home.root), home, "returns", **more)


def runs(home: Home) -> list[RunRecord]:
    with home.database.read() as connection:
        return list(search_runs(connection).runs)


def versions(home: Home) -> int:
    with home.database.read() as connection:
        return len(list_versions(connection))


def artifact(home: Home, run: str, path: str) -> bytes:
    with home.database.read() as connection:
        return read_artifact(connection, home.blobs, run, path)


def test_a_run_and_a_version_that_hold_together(shop: Home) -> None:
    result = trained(shop, params={"kind": "lightgbm", "trees": "5"}, end=1704499200000000, test_end=1704585600000000)
    with shop.database.read() as connection:
        run, version = get_run(connection, result.run), get_version(connection, "returns", 1)
        feature_set = get_feature_set(connection, str(version.feature_set))
        training_set = get_training_set(connection, str(version.training_set))
        paths = {item.path for item in list_artifacts(connection, run.id, deep=True)}
        entries = [entry.action for entry in journal.entries(connection, subject="returns")]
    assert (result.reference, run.status, run.experiment, run.tags["davy.version"]) == ("returns@1", "FINISHED", "returns", "returns@1")
    assert run.params == {"kind": "lightgbm", "trees": "5", "noise": "0.0", "seed": "3"}
    assert run.tags["mlflow.source.git.commit"] == git(shop.root, "rev-parse", "HEAD")
    assert run.tags["davy.dirty"] == "false"
    assert {"train_auc", "train_logloss", "train_seconds", "test_auc", "test_auc_low", "test_brier"} <= set(run.metrics)
    assert (run.metrics["train_rows"], run.metrics["test_rows"]) == (192, 48)
    assert paths == {"capture.json", "training.json", "training_set.parquet", "test_set.parquet", "importance.json", "importance.svg", "test_roc.svg",
                     "test_calibration.svg", "model/model.txt", "model/davy.json"}
    assert (version.format, set(version.files), version.run_id) == ("lightgbm", {"model.txt", "davy.json"}, run.id)
    assert version.signature is not None
    assert [(column.name, column.kind, column.categories) for column in version.signature.columns] == [
        ("sales_1d", "int", None), ("mean_7d", "float", None), ("size", "int", None), ("shop", "str", ("a", "b"))]
    assert (version.signature.output, version.signature.classes) == ("probability", (0, 1))
    assert feature_set.outputs == ("sales_1d", "mean_7d", "size", "shop")
    assert (training_set.rows, training_set.digest, training_set.details["watermarks"]) == (192, result.training_set, {"sales": 600})
    assert "version.register" in entries


def test_the_held_out_rows_are_frozen(shop: Home) -> None:
    result = trained(shop, end=1704499200000000, test_end=1704585600000000)
    kept = TrainingRecord.from_json(artifact(shop, result.run, "training.json")).test
    frame = pl.read_parquet(artifact(shop, result.run, "test_set.parquet"))
    assert kept is not None
    assert (kept.rows, kept.start, kept.end, kept.watermarks) == (48, 1704499200000000, 1704585600000000, {"sales": 600})
    assert kept.spine_columns == ("shop", "size", "time", "returned")
    assert kept.columns == {name: frame_digest(frame.select(name)) for name in frame.columns}
    ingest(shop, sales(600, 50))
    definition = load_project(shop.root).model("returns")
    again = build(shop, definition, frame.select(kept.spine_columns), watermarks=kept.watermarks)
    assert again.digest == kept.digest


def test_the_predictions_digest_is_that_of_the_registered_files(shop: Home) -> None:
    result = trained(shop, params={"kind": "logistic"})
    kept = TrainingRecord.from_json(artifact(shop, result.run, "training.json"))
    with shop.database.read() as connection:
        version = get_version(connection, "returns", 1)
    model = load_files({path: shop.blobs.get(digest) for path, digest in version.files.items()}, "sklearn", "probability", shop.root)
    frame = pl.read_parquet(artifact(shop, result.run, "training_set.parquet"))
    matrix = np.column_stack([frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("sales_1d", "mean_7d", "feature.size")]
                             + [(frame["shop"] == "b").cast(pl.Float64).to_numpy()])
    assert digest_predictions(model.predict(matrix)) == result.predictions == kept.predictions


def test_a_class_of_ones_own_and_a_dirty_tree(shop: Home) -> None:
    (shop.root / "helper.py").write_text("x = 1\n")
    result = trained(shop)
    assert result.dirty
    assert result.reference == "returns@1"
    taken = Capture.from_json(artifact(shop, result.run, "capture.json"))
    assert taken.source.changed == ("helper.py",)
    assert b"+x = 1" in artifact(shop, result.run, "diff.patch")
    assert taken.seeds.seed == 3
    (shop.root / "helper.py").write_text("x = 2\n")
    assert trained(shop).capture != result.capture


def test_the_training_sets_digest_covers_the_last_row(shop: Home) -> None:
    write_moments(shop.root, moments(12_000))
    first = trained(shop)
    frame = moments(12_000)
    last = frame.with_columns(pl.when(pl.int_range(pl.len()) == frame.height - 1).then(pl.col("size") + 1).otherwise(pl.col("size")).alias("size"))
    write_moments(shop.root, last)
    second = trained(shop)
    assert first.training_set != second.training_set
    before, after = (TrainingRecord.from_json(artifact(shop, result.run, "training.json")).data for result in (first, second))
    assert {name for name in before.columns if before.columns[name] != after.columns[name]} == {"size", "feature.size"}


def test_the_seed_reaches_every_generator(shop: Home) -> None:
    digests = [trained(shop, params={"kind": "seeded"}, seed=seed).model_digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("params", "error", "said"), [
    ({"kind": "fails"}, DefinitionError, r"models\.py:\d+: Training 'returns' failed: ZeroDivisionError"),
    ({"kind": "interrupted"}, KeyboardInterrupt, None),
])
def test_what_fails_leaves_a_run_and_no_version(shop: Home, params: dict[str, str], error: type[BaseException], said: str | None) -> None:
    with pytest.raises(error, match=said):
        trained(shop, params=params)
    assert versions(shop) == 0
    found = runs(shop)
    assert [run.status for run in found] == ["KILLED" if error is KeyboardInterrupt else "FAILED"]
    if error is DefinitionError:
        assert b"ZeroDivisionError" in artifact(shop, found[0].id, "error.txt")


def test_a_model_that_serving_would_refuse_is_refused_now(shop: Home) -> None:
    write_settings(shop.root)
    home = Home(shop.root)
    with pytest.raises(UnsafeModel, match=r"models\.Line"):
        trained(home)
    assert versions(home) == 0
    home.close()


def test_bad_parameters_and_names_start_no_run(shop: Home) -> None:
    with pytest.raises(InvalidInput, match="no parameter 'tres'"):
        trained(shop, params={"tres": "5"})
    with pytest.raises(NotFound, match="no model 'retruns'"):
        train(load_project(shop.root), shop, "retruns")
    assert runs(shop) == []


def _changed(**columns: Any) -> pl.DataFrame:
    return moments().with_columns(**columns)


FIRST = pl.int_range(pl.len()) == 4


@pytest.mark.parametrize(("frame", "more", "said"), [
    (moments(), {"start": 1900000000000000}, "no rows from 2030"),
    (_changed(returned=pl.lit(1.0)), {}, "All 300 labels are True"),
    (_changed(returned=pl.lit(None, pl.Float64)), {}, "300 of 300 rows of the spine have no 'returned'; the first is row 0"),
    (_changed(returned=pl.when(FIRST).then(None).otherwise(pl.col("returned"))), {}, "1 of 300 rows .* the first is row 4"),
    (_changed(returned=pl.when(FIRST).then(float("nan")).otherwise(pl.col("returned"))), {}, "Row 4"),
    (moments().drop("returned"), {}, "no column 'returned'"),
    (moments().drop("shop"), {}, "no column 'shop'"),
    (_changed(time=pl.col("time").dt.replace_time_zone(None)), {}, "without a zone"),
])
def test_a_spine_that_can_not_be_learned_from(shop: Home, frame: pl.DataFrame, more: dict[str, int], said: str) -> None:
    write_moments(shop.root, frame)
    with pytest.raises(InvalidInput, match=said) as refused:
        trained(shop, **more)
    assert refused.value.fix
    assert versions(shop) == 0
    assert [run.status for run in runs(shop)] == ["FAILED"]


def test_a_field_whose_type_was_changed_is_not_read_in_another_unit(shop: Home) -> None:
    path = shop.root / "features.py"
    path.write_text(path.read_text().replace("davy.Float(2)", "float"))
    with pytest.raises(Conflict, match="'amount' of the stream 'sales' is declared as float with 6 decimals"):
        trained(shop)
    assert versions(shop) == 0


def test_a_text_that_training_has_not_seen_is_missing(shop: Home) -> None:
    definition = load_project(shop.root).model("returns")
    data = build(shop, definition, moments(40))
    other = encode_like(build(shop, definition, moments(3).with_columns(shop=pl.Series(["c", "b", "a"]))), data)
    assert data.categories == {"shop": ["a", "b"]}
    np.testing.assert_array_equal(other.X[:, 3], [np.nan, 1.0, 0.0])


def test_spans() -> None:
    assert Span(end=5, test_end=9).checked() == Span(None, 5, 5, 9)
    assert Span(test_start=5).checked() == Span(None, 5, 5, None)
    assert Span(1, 5).checked() == Span(1, 5)
    for wrong in (Span(5, 5), Span(end=5, test_start=4), Span(test_end=4), Span(end=5, test_end=5)):
        with pytest.raises(InvalidInput):
            wrong.checked()


def test_the_command_line(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--project", str(shop.root)]
    assert davy([*where, "train", "returns", "-p", "noise=0.01", "--end", "2024-01-06T00:00:00Z", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert (found["reference"], found["rows"], found["parameters"]["noise"]) == ("returns@1", 192, 0.01)
    assert "building the training set" in said.err
    assert davy([*where, "train", "returns"]) == 0
    assert "returns@2" in capsys.readouterr().out
    for arguments, code in ((["-p", "nose=1"], 2), (["--end", "2024-01-06"], 2), (["-p", "kind=fails"], 2), (["-p", "noise"], 2)):
        assert davy([*where, "train", "returns", *arguments]) == code
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_is_stopped_leaves_no_half_version(shop: Home, number: signal.Signals) -> None:
    waits = '    if kind == "waits":\n        import time\n        Path(__file__).with_name("waiting").touch()\n        time.sleep(60)\n'
    code = (shop.root / "models.py").read_text()
    (shop.root / "models.py").write_text(code.replace('    if kind == "fails":\n', waits + '    if kind == "fails":\n'))
    process = subprocess.Popen([sys.executable, "-m", "davy", "--project", str(shop.root), "train", "returns", "-p", "kind=waits"], stderr=subprocess.PIPE)
    while not (shop.root / "waiting").exists():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number == signal.SIGKILL:
        assert [run.status for run in runs(shop)] == ["RUNNING"]
    result = trained(shop)
    assert result.version == 1
    assert sorted(run.status for run in runs(shop)) == ["FINISHED", "KILLED"]


def test_a_process_is_named_so_that_its_end_is_seen() -> None:
    assert alive(this_process())
    node, number, _ = this_process().rsplit(":", 2)
    assert not alive(f"{node}:{number}:1")
    assert not alive(f"{node}:999999999:1")
    assert alive("elsewhere:999999999:1")


def test_results_are_json(shop: Home) -> None:
    result = trained(shop)
    assert msgspec.json.decode(msgspec.json.encode(result), type=TrainResult) == result
    assert issubclass(DefinitionError, DavyError)


def test_texts_are_not_handed_to_lightgbm_as_a_frame(shop: Home) -> None:
    """It would end the whole process."""
    with pytest.raises(InvalidInput, match="holds texts: shop") as refused:
        trained(shop, params={"kind": "frame"})
    assert "Fit on data.X" in refused.value.fix
    kept = build(shop, load_project(shop.root).model("returns"), moments())
    assert len(pl.Series(kept.features.drop("shop"))) == 300
    assert len(pl.Series(pl.DataFrame(kept.features))) == 300


def test_a_model_that_answers_with_one_number_is_refused_in_words(shop: Home) -> None:
    with pytest.raises(InvalidInput, match=r"gave one number, 0\.5, for 300 rows") as refused:
        trained(shop, params={"kind": "scalar"})
    assert "one answer for each row" in refused.value.allowed


def test_a_stream_without_its_history_is_refused_and_one_without_events_told(tmp_path: Path) -> None:
    home = Home(write_shop(tmp_path / "shop"))
    assert any("'sales' holds no events" in text for text in trained(home).notices)
    features = (home.root / "features.py").read_text()
    (home.root / "features.py").write_text(features.replace('"sales", ', '"sales", source="data/sales.parquet", '))
    with pytest.raises(InvalidInput, match="holds no events, though it declares the source") as refused:
        trained(home)
    assert refused.value.fix == "Load it: davy ingest sales"
    home.close()


def test_spine_and_training_run_in_the_projects_folder(shop: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (shop.root / "models.py").read_text()
    (shop.root / "models.py").write_text(code.replace("Path(__file__).parent / ", "Path() / "))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert davy(["--project", str(shop.root), "train", "returns"]) == 0
    assert os.getcwd() == str(tmp_path / "elsewhere")


def test_labels_of_another_type_say_how_to_declare_them(shop: Home) -> None:
    write_moments(shop.root, moments().with_columns(pl.col("returned") > 0.5))
    with pytest.raises(InvalidInput, match="got False") as refused:
        trained(shop)
    assert refused.value.fix == "Declare it as it is: davy.Outcome('returned', kind=bool)"


def test_a_wrong_spine_leaves_no_run_and_a_failing_function_says_where_its_traceback_is(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code = (shop.root / "models.py").read_text()
    (shop.root / "models.py").write_text(code.replace("spine=moments)", 'spine="data/nope.parquet")'))
    where = ["--project", str(shop.root)]
    assert davy([*where, "train", "returns"]) == 2
    said = capsys.readouterr().err
    assert "The spine of 'returns' is 'data/nope.parquet'" in said
    assert "correct spine= on @davy.model" in said
    with shop.database.read() as connection:
        assert not search_runs(connection).runs
    (shop.root / "models.py").write_text(code)
    assert davy([*where, "train", "returns", "-p", "kind=fails"]) == 2
    with shop.database.read() as connection:
        failed = search_runs(connection).runs[0].id
    command = f"davy runs {failed} --artifact error.txt"
    assert command in capsys.readouterr().err
    assert davy([*where, *command.split()[1:]]) == 0
    assert "ZeroDivisionError: nothing to divide by" in capsys.readouterr().out
