"""What notebooks and scripts call inside a project's folder, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import davy
from davy.api import close_homes
from davy.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = timedelta(minutes=1)


def sales(kind: Any) -> davy.Stream:
    return davy.Stream("sales", time="at", fields={"shop": str, "amount": kind})


def shop_of(stream: davy.Stream) -> type[davy.View]:
    return type("Shop", (davy.View,), {"stream": stream, "entity": "shop", "spent_1h": davy.agg.sum("amount", window="1h")})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "davy.toml").touch()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_homes()


@pytest.mark.usefixtures("folder")
def test_what_was_pushed_is_online_and_in_training_sets() -> None:
    now = datetime.now(UTC)
    stream = sales(float)
    assert davy.push(stream, [{"shop": "a", "amount": 1.5, "at": now}] * 2).accepted == 2
    assert davy.online(shop_of(stream), {"shop": "a"}) == {"spent_1h": 3.0}
    found = davy.training_set({"shop": ["a", "b"], "time": [now + SOON] * 2}, shop_of(stream))
    assert found.frame["spent_1h"].to_list() == [3.0, 0.0]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", [davy.Float(scale=2), int, bool])
def test_events_are_not_read_in_another_unit_after_a_field_has_changed(kind: Any) -> None:
    now = datetime.now(UTC)
    davy.push(sales(float), [{"shop": "a", "amount": 1.5, "at": now}])
    changed = shop_of(sales(kind))
    with pytest.raises(Conflict) as refused:
        davy.training_set({"shop": ["a"], "time": [now + SOON]}, changed)
    assert refused.value.allowed == "Its events hold float with 6 decimals."
    with pytest.raises(Conflict):
        davy.online(changed, {"shop": "a"})
