"""Stock MLflow, which takes ten seconds to start and is slow to answer, and a Davy beside it: once, in the background of all tests here."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from stock.calls import artifacts, experiments, logged_models, metrics, others, registry, runs, searches
from stock.policy import POLICY
from stock_kit import Difference, Pair, Side, StockServer, davy, unexplained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from server_kit import Running

SCRIPTS = [script for module in (experiments, runs, metrics, searches, logged_models, registry, artifacts, others) for script in module.SCRIPTS]


@pytest.fixture(scope="session", autouse=True)
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Difference]]]]:
    """By script of calls: the differences that nothing explains, once they are known."""
    folder = tmp_path_factory.mktemp("compared")
    stock = StockServer(folder / "stock")
    pool = ThreadPoolExecutor(1)
    try:
        with davy(folder / "davy") as ours:
            pair = pool.submit(lambda: Pair(Side(stock.wait().port), Side(ours.port)))

            def compare(script: Callable[[Pair], None]) -> list[Difference]:
                asked = pair.result()
                asked.differences.clear()
                script(asked)
                assert "Traceback" not in ours.log(), ours.log()
                return unexplained(asked.differences, POLICY)

            yield {script.__name__: pool.submit(compare, script) for script in SCRIPTS}
            pool.shutdown(cancel_futures=True)
            pair.result().close()
    finally:
        stock.stop()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running | StockServer]]:
    """A Davy for the clients of each version, or a stock server if that is asked for."""
    folder = tmp_path_factory.mktemp("servers")
    make = StockServer if os.environ.get("DAVY_TEST_STOCK") else davy
    running: dict[str, Running | StockServer] = {}
    try:
        for lock in ("mlflow3", "mlflow2"):
            running[lock] = make(folder / lock)
        for server in running.values():
            if isinstance(server, StockServer):
                server.wait()
        yield running
    finally:
        for server in running.values():
            server.stop()
