"""The gateway's way into the log: beside other processes that declare streams meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from davy.core.fields import Field
from davy.errors import InvalidInput, NotFound
from davy.events.client import Log, connect
from davy.server.events import EventsClient
from serving_kit import add_version, feature_set, payments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.home import Home

PAID = {"at": "2020-01-01T00:00:00Z", "card": "c1", "amount": 1.0}


@pytest.fixture
def holder(home: Home) -> Iterator[Log]:
    with connect(home) as log:
        yield log


@pytest.fixture
def gateway(home: Home, holder: Log) -> Iterator[EventsClient]:
    client = EventsClient(home)
    yield client
    client.close()


def test_serving_an_older_version_leaves_the_settings_of_its_streams(holder: Log, gateway: EventsClient) -> None:
    now = holder.declare(msgspec.structs.replace(payments.spec, tolerance=5, delay=7, source="now.parquet"))
    gateway.ensure_views(feature_set())
    assert holder.streams()["payments"] == now


def test_a_field_that_another_process_adds_is_taken_at_once(holder: Log, gateway: EventsClient) -> None:
    with pytest.raises(NotFound, match="payments"):
        asyncio.run(gateway.push("payments", [PAID]))
    holder.declare(payments.spec)
    assert asyncio.run(gateway.push("payments", [PAID])).accepted == 1
    with pytest.raises(InvalidInput, match="'shop'"):
        asyncio.run(gateway.push("payments", [{**PAID, "shop": "books"}]))
    holder.declare(msgspec.structs.replace(payments.spec, fields=(*payments.spec.fields, Field("shop", "str"))))
    assert asyncio.run(gateway.push("payments", [{**PAID, "shop": "books"}])).last_offset == 2
    with pytest.raises(InvalidInput, match="'shp'"):
        asyncio.run(gateway.push("payments", [{**PAID, "shp": "books"}]))


def test_outcomes_follow_a_value_that_was_renamed(holder: Log, gateway: EventsClient) -> None:
    holder.outcomes("fraud", [], Field("loss", "float", 6))
    assert asyncio.run(gateway.outcomes("fraud", [{"prediction": "p", "loss": 1.0}])).accepted == 1
    holder.outcomes("fraud", [], Field("cost", "float", 6))
    assert asyncio.run(gateway.outcomes("fraud", [{"prediction": "p", "cost": 2.0}])).accepted == 1


def test_outcomes_of_no_model_name_the_nearest(home: Home, gateway: EventsClient) -> None:
    add_version(home)
    with pytest.raises(NotFound, match="no model 'frod'") as raised:
        asyncio.run(gateway.outcomes("frod", []))
    assert "fraud" in raised.value.allowed
    with pytest.raises(NotFound, match="'fraud' has no outcomes declared"):
        asyncio.run(gateway.outcomes("fraud", []))
