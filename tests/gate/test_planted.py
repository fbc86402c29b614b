"""Each check stops the version that was planted for it, and lets the good one through."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from davy.gate.check import FAIL, NO_DATA, PASS
from gate.kit import judged, make_shop, planted, result, serving, trained

if TYPE_CHECKING:
    from davy.home import Home
    from davy.registry.models import ModelVersion


class Gadget:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def good(shop: Home) -> ModelVersion:
    return trained(shop, weight=0.131)


def test_a_good_version_passes_them_all(shop: Home) -> None:
    report = judged(shop, good(shop))
    verdicts = {item.check: item.verdict for item in report.results}
    assert verdicts.pop("requests") == NO_DATA
    assert set(verdicts.values()) == {PASS}, [item.summary for item in report.results if item.verdict != PASS]
    assert (report.passed, report.complete, report.stable, report.failed) == (True, True, 1, [])


@pytest.mark.parametrize(("kind", "check", "words"), [
    ("worse", "quality", "returns@1 on the same 2,400 rows"),
    ("worse", "baseline", "logistic regression"),
    ("slice", "slices", "shop=c"),
    ("shifted", "calibration", "off by"),
    ("batchy", "batches", "alone"),
    ("brittle", "inputs", "size is null"),
    ("fragile", "inputs", "The worker died"),
    ("nan", "inputs", "NaN or infinity"),
    ("slow", "latency", "times returns@1 in the same run"),
    ("stumbling", "latency", "its tail is slower"),
    ("sleepy", "latency", "longer than 50ms"),
    ("leaky", "memory", "grew round after round"),
])  # fmt: skip
def test_a_planted_fault_is_found(shop: Home, kind: str, check: str, words: str) -> None:
    found = result(shop, trained(shop, kind), check)
    assert (found.verdict, found.blocks) == (FAIL, True), found.summary
    assert words in found.summary
    assert found.evidence
    assert found.fix


def test_a_limit_that_stable_breaks_too_stops_nobody(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop", '[gate]\nlatency = "10us"\n')
    serving(home, trained(home))
    found = result(home, good(home), "latency")
    home.close()
    assert (found.verdict, "returns@1 is beyond the limit in the same run too" in found.summary) == (NO_DATA, True)


def test_a_slice_is_named_with_its_rows_and_the_others_are_left_alone(shop: Home) -> None:
    found = result(shop, trained(shop, "slice"), "slices")
    worst = found.evidence["worst"]
    assert [(item["column"], item["value"], item["gain"] < 0) for item in worst[:1]] == [("shop", "c", True)]
    assert all(item["p"] > 0.05 for item in worst[1:])
    assert found.evidence["slices"] == 3


def test_a_gadget_is_named_and_never_run(shop: Home, tmp_path: Path) -> None:
    report = judged(shop, planted(shop, good(shop), pickle.dumps(Gadget(tmp_path / "run"))))
    assert not (tmp_path / "run").exists()
    verdicts = {item.check: item for item in report.results}
    assert verdicts["integrity"].verdict == PASS
    assert "posix.system" in verdicts["safe-format"].summary
    assert "allow_globals" in verdicts["safe-format"].fix
    assert verdicts["loads"].verdict == FAIL
    assert {name for name, item in verdicts.items() if item.blocks} == {"safe-format", "loads"}
    assert "can't be started" in verdicts["latency"].summary
    assert not report.passed


def test_a_truncated_file_is_named(shop: Home) -> None:
    version = trained(shop, weight=0.1311)
    digest = version.files["model.pkl"].removeprefix("sha256:")
    path = next(path for path in Path(shop.path / "blobs").rglob("*") if path.is_file() and digest[4:] in str(path).replace("/", ""))
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-7])
    report = judged(shop, version, "integrity", "loads")
    path.write_bytes(whole)
    assert [item.verdict for item in report.results] == [FAIL, FAIL]
    assert "model.pkl is not what was registered" in report.results[0].summary


def test_what_is_no_pickle_is_told(shop: Home) -> None:
    found = result(shop, planted(shop, good(shop), b"not a pickle"), "safe-format")
    assert (found.verdict, "not a pickle" in found.summary) == (FAIL, True)


def test_another_request_or_answer_breaks_the_contract(shop: Home) -> None:
    path, rows = shop.root / "models.py", shop.root / "data" / "moments.parquet"
    before, kept = path.read_text(), rows.read_bytes()
    path.write_text(before.replace('"size": int}', '"size": int, "gift": bool}').replace('"size", "shop"]', '"size", "shop", "gift"]'))
    pl.read_parquet(rows).with_columns(gift=pl.lit(True)).write_parquet(rows)
    try:
        found = result(shop, trained(shop), "signature")
    finally:
        path.write_text(before)
        rows.write_bytes(kept)
    assert found.verdict == FAIL
    assert found.evidence["breaks"] == ["the field 'gift' is new, and clients do not send it"]
