"""A release moves the alias that its policy names, also a protected one, and takes it back with itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from databases import write_settings
from davy.errors import InvalidInput
from davy.home import Home
from davy.registry.alias_history import alias_history
from davy.registry.aliases import set_alias
from davy.release.releases import ask, start_release
from serving_kit import add_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _open(root: Path, alias: str = "production") -> Home:
    write_settings(root, f'[release]\nalias = "{alias}"\n[registry]\nprotected = ["production"]\n')
    return Home(root)


@pytest.fixture
def shop(project: Path) -> Iterator[Home]:
    home = _open(project)
    for seed in range(3):
        add_version(home, seed=seed)
    yield home
    home.close()


def _moves(home: Home) -> list[tuple[int | None, int | None, Any]]:
    with home.database.read() as connection:
        return [(change.before, change.version, change.evidence.get("release")) for change in reversed(alias_history(connection, "fraud", "production"))]


def test_promotion_moves_it_and_rollback_moves_it_back(shop: Home) -> None:
    first = start_release(shop, "fraud@1")
    second = start_release(shop, "fraud@2", strategy="all-at-once")
    assert _moves(shop) == [(None, 1, first.id), (1, 2, second.id)]
    ask(shop, "fraud", "roll back")
    assert _moves(shop)[2:] == [(2, 1, second.id)]


def test_rollback_leaves_it_where_somebody_has_put_it_since(shop: Home) -> None:
    start_release(shop, "fraud@1")
    start_release(shop, "fraud@2", strategy="all-at-once")
    with shop.database.begin() as connection:
        set_alias(connection, clock=shop.clock, actor="ada", name="fraud", alias="production", version=3)
    ask(shop, "fraud", "roll back")
    assert _moves(shop)[-1] == (2, 3, None)


def test_a_canary_that_is_aborted_moves_nothing(shop: Home) -> None:
    start_release(shop, "fraud@1")
    start_release(shop, "fraud@2", strategy="canary")
    ask(shop, "fraud", "abort")
    assert [move[:2] for move in _moves(shop)] == [(None, 1)]


def test_an_alias_that_is_none_is_said(shop: Home, project: Path) -> None:
    other = _open(project, "v1")
    with pytest.raises(InvalidInput, match="can't be an alias"):
        start_release(other, "fraud@1")
    other.close()
