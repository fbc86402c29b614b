"""The unmodified MLflow client, newest and 2.x, in its own environment against Davy. Each program passes against stock MLflow too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stock_kit import environment, peer

if TYPE_CHECKING:
    from server_kit import Running

PROGRAMS = Path(__file__).parent / "programs"
WITH = {"tracking": ("mlflow3", "mlflow2"), "registry": ("mlflow3", "mlflow2"), "artifacts": ("mlflow3", "mlflow2"), "models": ("mlflow3", "mlflow2"), "traces": ("mlflow3",)}


def run(program: str, lock: str, port: int, folder: Path) -> list[str]:
    """Run a program to its end; the steps that it names."""
    done = subprocess.run([peer(lock), PROGRAMS / f"{program}.py"], cwd=folder, capture_output=True, text=True, timeout=100, check=False,
                          env={**environment(), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "TMPDIR": str(folder), "HOME": str(folder)})
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return [line for line in done.stdout.splitlines() if line.startswith("ok ")]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "lock"), [(program, lock) for program, locks in WITH.items() for lock in locks])
def test_the_unmodified_client(program: str, lock: str, davys: dict[str, Running], tmp_path: Path) -> None:
    steps = run(program, lock, davys[lock].port, tmp_path)

    source = (PROGRAMS / f"{program}.py").read_text()
    assert len(steps) >= source.count("\nwith step(") > 0
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
