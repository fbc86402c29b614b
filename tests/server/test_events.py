"""The gateway's way into the log: beside other processes that declare streams meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from davy.events.client import Log, connect
from davy.server.events import EventsClient
from serving_kit import feature_set, payments

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
