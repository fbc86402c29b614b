"""Stock MLflow, which takes ten seconds to start, and a Davy beside it: once for all tests here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from server_kit import Running
from stock_kit import StockServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockServer]:
    """A stock server with nothing in it."""
    server = StockServer(tmp_path_factory.mktemp("stock"))
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def new_davy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Starts Davys on empty projects."""
    running = []

    def start(name: str) -> Running:
        root = tmp_path_factory.mktemp(name)
        (root / "davy.toml").write_text('project = "shop"\n')
        inherited = {name: os.environ.pop(name) for name in ("DAVY_HOME", "DAVY_PROJECT") if name in os.environ}
        try:
            running.append(Running(root))
        finally:
            os.environ.update(inherited)
        return running[-1]

    yield start
    for server in running:
        server.stop()
