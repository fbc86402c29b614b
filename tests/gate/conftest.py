from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gate.kit import make_shop, serving, trained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.home import Home


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A shop that the tests of one file share: `returns@1` is good and has all traffic."""
    home = make_shop(tmp_path_factory.mktemp("gate") / "shop")
    serving(home, trained(home))
    yield home
    home.close()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Such a shop that leaves out, by its settings, what takes a second."""
    home = make_shop(tmp_path_factory.mktemp("quick") / "shop", '[gate]\nskip = ["rollback", "latency", "memory"]\n')
    serving(home, trained(home))
    yield home
    home.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Home]:
    """A shop of one's own, without versions."""
    home = make_shop(tmp_path / "shop")
    yield home
    home.close()
