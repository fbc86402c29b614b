from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from databases import write_settings
from davy.home import Home
from davy.release.traffic import set_traffic
from server_kit import Running
from serving_kit import add_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_shop(root: Path) -> Path:
    """A project with three versions of `fraud` (two of LightGBM, one of scikit-learn); the first two take traffic."""
    root.mkdir()
    write_settings(root, 'project = "shop"\n[events]\nflush_every = "1s"\n')
    home = Home(root)
    add_version(home)
    add_version(home, seed=1)
    add_version(home, format="sklearn")
    set_traffic(home, "fraud", {"fraud@1": 0.5, "fraud@2": 0.5}, actor="tester")
    home.close()
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that the tests of one file share."""
    with Running(make_shop(tmp_path_factory.mktemp("server") / "shop")) as running:
        yield running


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project of one's own, not yet up."""
    return make_shop(tmp_path / "shop")
