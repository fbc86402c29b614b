"""`davy reproduce`: real runs of a real project trained again in a clean worktree."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from davy.cli.main import run as davy
from davy.errors import DefinitionError, InvalidInput, NotFound
from davy.home import Home
from davy.project import load_project
from davy.registry.models import list_versions
from davy.tracking.search import search_runs
from davy.training.reproduce import Reproduction, reproduce
from davy.training.train import TrainResult, train
from server_kit import alive, children, until
from training.shop import git, ingest, moments, sales, write_moments, write_shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Home]:
    home = Home(write_shop(tmp_path / "team" / "shop"))
    ingest(home, sales())
    yield home
    home.close()


def trained(home: Home, **more: Any) -> TrainResult:
    return train(load_project(home.root), home, "returns", **more)


def causes(found: Reproduction) -> list[str]:
    return [item.cause for item in found.differences if item.cause not in ("package", "unused package")]


def test_the_same_bytes_come_out_though_code_and_log_have_moved_on(shop: Home) -> None:
    (shop.root / "helper.py").write_text("WEIGHT = 2\n")
    code = (shop.root / "models.py").read_text()
    changed = code.replace("import davy\n", "import davy\nfrom helper import WEIGHT\n").replace("+ self.noise", "+ self.noise * WEIGHT")
    (shop.root / "models.py").write_text(changed)
    result = trained(shop, params={"noise": 0.01}, end=1704499200000000)
    before = git(shop.root, "status", "--porcelain")
    ingest(shop, sales(600, 50))
    found = reproduce(shop, result.run)
    assert (found.grade, causes(found), found.largest, found.training_set, found.rows) == ("same bytes", [], 0.0, True, 192)
    assert any("data" in text for text in found.notices)
    (shop.root / "helper.py").unlink()
    git(shop.root, "checkout", "-q", "models.py")
    (shop.root / "models.py").write_text(code.replace("0, 1)", "0.4, 0.6)"))
    git(shop.root, "commit", "-q", "-am", "go on")
    found = reproduce(shop, "returns@1")
    assert (found.grade, found.first is None or found.first.cause in ("package", "unused package")) == ("same bytes", True)
    assert (git(shop.root, "worktree", "list").count("\n"), git(shop.root, "status", "--porcelain")) == (0, "")
    assert before
    with shop.database.read() as connection:
        assert len(list_versions(connection)) == 1
        assert len(search_runs(connection).runs) == 1


def test_lightgbm_comes_out_the_same(shop: Home) -> None:
    result = trained(shop, params={"kind": "lightgbm"})
    found = reproduce(shop, result.run[:12])
    assert (found.grade, causes(found), found.run) == ("same bytes", [], result.run)


def test_a_function_without_a_seed_is_named(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    result = trained(shop, params={"kind": "unseeded"})
    where = ["--project", str(shop.root)]
    assert davy([*where, "reproduce", result.run, "--json"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["grade"], found["same"], found["training_set"]) == ("different", False, True)
    assert any(item["cause"] == "model" and "not deterministic" in item["what"] for item in found["differences"])
    assert found["largest"] > 0
    assert davy([*where, "reproduce", result.run, "--tolerance", "1"]) == 1
    assert capsys.readouterr().out.startswith("within tolerance: returns")


def test_a_changed_last_row_of_the_spine_is_named(shop: Home) -> None:
    result = trained(shop)
    write_moments(shop.root, moments().with_columns(
        pl.when(pl.int_range(pl.len()) == 299).then(1 - pl.col("returned")).otherwise(pl.col("returned")).alias("returned")))
    found = reproduce(shop, result.run)
    assert (found.grade, found.training_set, causes(found)) == ("different", False, ["spine"])
    assert any("row 299, column 'returned'" in item.what for item in found.differences)


def test_without_the_spines_data_the_runs_own_rows_are_taken(shop: Home) -> None:
    result = trained(shop)
    (shop.root / "data" / "moments.parquet").unlink()
    found = reproduce(shop, result.run)
    assert (found.grade, found.training_set) == ("same bytes", True)
    assert any("the run's own rows were taken" in text for text in found.notices)


def test_a_project_without_a_repository(tmp_path: Path) -> None:
    home = Home(write_shop(tmp_path / "plain", repository=False))
    ingest(home, sales())
    result = trained(home)
    assert result.commit is None
    (home.root / "models.py").write_text("")
    found = reproduce(home, result.run)
    assert (found.grade, causes(found)) == ("same bytes", [])
    home.close()


def test_a_project_in_a_subfolder_of_a_repository(tmp_path: Path) -> None:
    top = tmp_path / "everything"
    home = Home(write_shop(top / "teams" / "shop", repository=False))
    git(top, "init", "-q")
    git(top, "config", "user.email", "ada@example.org")
    git(top, "config", "user.name", "Ada")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "begin")
    ingest(home, sales())
    found = reproduce(home, trained(home).run)
    assert (found.grade, causes(found)) == ("same bytes", [])
    home.close()


def test_what_can_not_be_trained_again_says_why(shop: Home) -> None:
    with pytest.raises(NotFound, match="no run"):
        reproduce(shop, "0" * 32)
    with pytest.raises(InvalidInput, match="tolerance"):
        reproduce(shop, "0" * 32, tolerance=float("nan"))
    with pytest.raises(DefinitionError, match="nothing to divide by"):
        trained(shop, params={"kind": "fails"})
    with shop.database.read() as connection:
        failed = search_runs(connection).runs[0].id
    with pytest.raises(InvalidInput, match=r"FAILED\) has no training\.json"):
        reproduce(shop, failed)
    result = trained(shop)
    git(shop.root, "commit", "-q", "--amend", "-m", "rewritten")
    git(shop.root, "reflog", "expire", "--expire=now", "--all")
    git(shop.root, "gc", "-q", "--prune=now")
    with pytest.raises(NotFound, match="commit") as refused:
        reproduce(shop, result.run)
    assert "git fetch" in refused.value.fix


def test_ctrl_c_ends_both_processes_without_a_traceback(shop: Home) -> None:
    code = (shop.root / "models.py").read_text()
    (shop.root / "models.py").write_text(code.replace('    if kind == "fails":', '    if kind == "long" and (Path.cwd() / "slow").exists():\n'
                                                      '        import time\n\n        (Path.cwd() / "slow" / "begun").touch()\n        time.sleep(600)\n'
                                                      '    if kind == "fails":'))
    (shop.root / ".gitignore").write_text("slow/\ndata/\n.davy/\n__pycache__/\n")
    result = trained(shop, params={"kind": "long"})
    (shop.root / "slow").mkdir()
    child = subprocess.Popen([sys.executable, "-m", "davy", "reproduce", result.run], cwd=shop.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (shop.root / "slow" / "begun").exists(), 60)
    (inner,) = children(child.pid)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, "Traceback" in err, alive(inner)) == (130, False, False)
    assert "Interrupted" in err
