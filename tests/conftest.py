"""Shared by all tests: a project folder of one's own, and nothing from the person who runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from databases import ON_POSTGRES, ONCE, drop_below, write_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.home import Home

collect_ignore = list(ONCE) if ON_POSTGRES else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if ON_POSTGRES else ():
        for mark in item.iter_markers("sqlite"):
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(autouse=True)
def _no_database_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    folder = request.node.funcargs.get("tmp_path")
    if folder is not None:
        drop_below(folder)


@pytest.fixture(autouse=True)
def _steady_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAVY_HOME", "DAVY_PROJECT", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAVY_ACTOR", "tester")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project: a folder with a davy.toml."""
    root = tmp_path / "project"
    root.mkdir()
    write_settings(root, 'project = "shop"\n')
    return root


@pytest.fixture
def home(project: Path) -> Iterator[Home]:
    """The open home of the empty project."""
    from davy.home import Home

    opened = Home(project)
    yield opened
    opened.close()
