"""The unmodified MLflow client, newest and 2.x, in its own environment against Davy.

With DAVY_TEST_STOCK=1 the same programs run against stock MLflow: they pass there too, which proves the programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stock_kit import PROGRAMS, StockServer, run

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
def test_the_unmodified_client(program: str, lock: str, servers: dict[str, Running | StockServer], tmp_path: Path) -> None:
    steps = run(program, lock, servers[lock].port, tmp_path)

    always, _, new = (PROGRAMS / f"{program}.py").read_text().partition("\nif new:")
    assert len(steps) == (always if lock == "mlflow2" else always + new).count("with step(") > 0
    assert "Traceback" not in servers[lock].log() or isinstance(servers[lock], StockServer)
