"""The unmodified MLflow client, newest and 2.x, in its own environment against Davy. Each program passes against stock MLflow too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stock_kit import PROGRAMS, run

if TYPE_CHECKING:
    from server_kit import Running

WITH = {
    "tracking": ("mlflow3", "mlflow2"),
    "registry": ("mlflow3", "mlflow2"),
    "artifacts": ("mlflow3", "mlflow2"),
    "models": ("mlflow3", "mlflow2"),
    "traces": ("mlflow3",),
}


@pytest.mark.slow
@pytest.mark.parametrize(("program", "lock"), [(program, lock) for program, locks in WITH.items() for lock in locks])
def test_the_unmodified_client(program: str, lock: str, davys: dict[str, Running], tmp_path: Path) -> None:
    steps = run(program, lock, davys[lock].port, tmp_path)

    always, _, new = (PROGRAMS / f"{program}.py").read_text().partition("\nif new:")
    assert len(steps) == (always if lock == "mlflow2" else always + new).count("with step(") > 0
    assert "Traceback" not in davys[lock].log()


@pytest.mark.skipif("DAVY_TEST_STOCK" not in os.environ, reason="proves the programs, not Davy: DAVY_TEST_STOCK=1 runs them against stock MLflow as well")
@pytest.mark.parametrize(("program", "lock"), [(program, lock) for program, locks in WITH.items() for lock in locks])
def test_stock_passes_too(program: str, lock: str, tmp_path: Path) -> None:
    from stock_kit import StockServer

    server = StockServer(tmp_path / "stock")
    try:
        run(program, lock, server.wait().port, tmp_path)
    finally:
        server.stop()
