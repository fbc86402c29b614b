"""The same calls to a stock MLflow server and to Davy: every answer is compared field by field, and only what the policy names may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stock.calls import artifacts, experiments, logged_models, metrics, registry, runs, searches
from stock.policy import POLICY
from stock_kit import Difference, Pair, Side, unexplained

if TYPE_CHECKING:
    from collections.abc import Callable

    from server_kit import Running
    from stock_kit import StockServer

SCRIPTS = [script for module in (experiments, runs, metrics, searches, logged_models, registry, artifacts) for script in module.SCRIPTS]


@pytest.fixture(scope="session")
def compared(stock: StockServer, new_davy: Callable[[str], Running]) -> Callable[[Callable[[Pair], None]], list[Difference]]:
    """Runs a script of calls, once; the differences that nothing explains."""
    davy = new_davy("differential")
    pair = Pair(Side(stock.port), Side(davy.port))
    left: dict[str, list[Difference]] = {}

    def compare(script: Callable[[Pair], None]) -> list[Difference]:
        if script.__name__ not in left:
            pair.differences.clear()
            script(pair)
            left[script.__name__] = unexplained(pair.differences, POLICY)
            assert "Traceback" not in davy.log()
        return left[script.__name__]
    return compare


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_answers_are_stocks(script: Callable[[Pair], None], compared: Callable[[Callable[[Pair], None]], list[Difference]]) -> None:
    left = compared(script)

    assert not left, f"{len(left)} differences that the policy doesn't name:\n" + "\n".join(map(str, left[:20]))


@pytest.mark.slow
def test_every_allowance_is_needed(compared: Callable[[Callable[[Pair], None]], list[Difference]]) -> None:
    for script in SCRIPTS:
        compared(script)

    assert [allowance.name for allowance in POLICY if not allowance.fired] == []
