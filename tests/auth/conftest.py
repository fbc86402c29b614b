from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from databases import write_settings
from davy.auth.secrets import password_record
from davy.auth.tokens import new_token
from davy.auth.users import add_user
from davy.core.clock import DrivenClock
from davy.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.auth.permissions import Role
    from davy.auth.tokens import Token

NOW = 1_800_000_000_000_000
PASSWORD = "correct horse battery"


@cache
def record() -> str:
    """The password's record: made once, because it takes its time."""
    return password_record("nobody", PASSWORD)


class Headers(dict[str, str]):
    """Headers as RSGI has them; a value's lines are headers of their own."""

    def get(self, name: str, default: Any = None) -> Any:
        return next(iter(self.get_all(name)), default)

    def get_all(self, name: str) -> list[str]:
        return self[name].split("\n") if name in self else []


@dataclass
class Scope:
    """A request as the guard sees it."""

    method: str = "GET"
    path: str = "/runs"
    headers: dict[str, str] = field(default_factory=dict)
    client: str = "192.0.2.7:40000"
    scheme: str = "http"

    def __post_init__(self) -> None:
        self.headers = Headers(self.headers)


class Team:
    """A home with an admin, ada, whose clock is driven."""

    def __init__(self, root: Path, settings: str = "") -> None:
        root.mkdir(exist_ok=True)
        write_settings(root, f"[auth]\nrequired = true\n{settings}")
        self.clock = DrivenClock(root / "clock", start=NOW)
        self.home = Home(root, clock=self.clock)
        self.add("ada", "admin")

    def add(self, name: str, role: Role, *, login: bool = True) -> None:
        with self.home.database.begin() as connection:
            add_user(connection, clock=self.clock, actor="tester", name=name, role=role, record=record() if login else None)

    def token(self, owner: str = "ada", role: Role | None = None, lasts: int | None = None) -> tuple[Token, str]:
        with self.home.database.begin() as connection:
            return new_token(connection, clock=self.clock, actor="tester", owner=owner, name="t", role=role, lasts=lasts)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    found = Team(tmp_path / "team")
    yield found
    found.home.close()
