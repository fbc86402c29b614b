"""`davy import mlflow` from a stock server that runs, after the comparison has left its oddities there."""

from __future__ import annotations

import json
from concurrent.futures import wait
from typing import TYPE_CHECKING

import pytest

from davy.cli.main import run as davy
from importing.conftest import program
from server_kit import Running

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from stock_kit import Difference, StockServer


@pytest.mark.slow
def test_all_that_a_stock_server_has_comes_along(stock: StockServer, compared: dict[str, Future[list[Difference]]], project: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wait(compared.values())
    address = f"http://127.0.0.1:{stock.wait().port}"
    ids = program("fill.py", address, str(tmp_path))
    monkeypatch.chdir(project)
    davy(["import", "mlflow", address, "--json"])
    said = capsys.readouterr()
    assert said.out, said.err
    found = json.loads(said.out)
    aside = ("files", "bytes", "params", "tags")  # of which some have names or keys that MLflow's own client refuses
    assert {kind: count for kind, count in found["source"].items() if kind not in aside} == {
        kind: count for kind, count in found["here"].items() if kind not in aside}
    long = sum(problem.startswith("The key ") and " of run " in problem for problem in found["problems"])
    assert sum(found["source"][kind] - found["here"][kind] for kind in ("params", "tags")) == long == 1, found["problems"]
    assert 0 <= found["source"]["files"] - found["here"]["files"] <= found["unread"] <= 10, found["problems"]
    with Running(project, "--only", "tracking") as server:
        here, there = program("dump.py", f"http://127.0.0.1:{server.port}", "shop/nightly"), program("dump.py", address, "shop/nightly")
    assert here == there
    assert here["models"][ids["model"]]["files"]
