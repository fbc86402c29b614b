"""The same calls to a stock MLflow server and to Davy: every answer is compared field by field, and only what the policy names may differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stock.policy import POLICY
from stock_kit import ROOT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from stock_kit import Difference

CALLS = sorted(path.stem for path in (Path(__file__).parent / "calls").glob("*.py"))
DOCUMENT = ROOT / "docs" / "concepts" / "mlflow.md"


def test_every_script_is_run(compared: dict[str, Future[list[Difference]]]) -> None:
    from importlib import import_module

    scripts = [script for name in CALLS for script in import_module(f"stock.calls.{name}").SCRIPTS]

    assert {script.__name__ for script in scripts} == compared.keys()
    assert len(scripts) == len(compared)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_answers_are_stocks(compared: dict[str, Future[list[Difference]]]) -> None:
    left = {name: found for name, future in compared.items() if (found := future.result())}

    assert not left, "\n".join(
        f"## {name}: {len(found)} differences that the policy doesn't name\n" + "\n".join(map(str, found[:20])) for name, found in left.items()
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_allowance_is_needed(compared: dict[str, Future[list[Difference]]]) -> None:
    for future in compared.values():
        future.result()

    assert [allowance.name for allowance in POLICY if not allowance.fired] == []


def test_the_policy_is_documented() -> None:
    text = DOCUMENT.read_text()

    assert [allowance.name for allowance in POLICY if f"| {allowance.name} | {allowance.reason} |" not in text] == []
