"""Where a release asks the gate. The checks of the gate fill this in; until they do, every version may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Refusal(msgspec.Struct, frozen=True):
    """Why the gate keeps a version from traffic, as an error says it: what was met, what is allowed, what to type next."""

    came: str
    allowed: str = ""
    fix: str = ""


def gate_allows(connection: Connection, model: str, version: int) -> Refusal | None:
    """None when the version may take traffic; else why not."""
    return None
