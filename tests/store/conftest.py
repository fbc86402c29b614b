"""A PostgreSQL, and a database of it for one test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postgres_kit import Postgres, server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def postgres() -> Postgres:
    return server()


@pytest.fixture
def name(postgres: Postgres) -> Iterator[str]:
    made = postgres.fresh()
    yield made
    postgres.drop(made)
