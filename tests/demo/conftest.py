"""The year of flights, read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from davy.demo import data

if TYPE_CHECKING:
    from davy.demo.data import Flights


@pytest.fixture(scope="session")
def flights() -> Flights:
    return data.load()
