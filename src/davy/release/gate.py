"""Where a release asks the gate: a version takes traffic only when its last complete run has passed, or somebody has overruled it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from davy.gate.record import override, standing

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.core.clock import Clock


class Refusal(msgspec.Struct, frozen=True):
    """Why the gate keeps a version from traffic, as an error says it: what was met, what is allowed, what to type next."""

    came: str
    allowed: str = ""
    fix: str = ""


def gate_allows(connection: Connection, model: str, version: int) -> Refusal | None:
    """None when the version may take traffic; else why not."""
    found = standing(connection, model, version)
    if found.may_serve:
        return None
    reference = f"{model}@{version}"
    if found.state == "none":
        return Refusal(f"{reference} has not been through the gate.", "A version shows that it is fit before it takes traffic.",
                       f"Run it: davy gate {reference}")
    return Refusal(f"{reference} failed its gate: {', '.join(found.failed)}.", "A version that failed takes no traffic.",
                   f"See why: davy gate {reference}. To release it nevertheless, with a reason that the journal keeps: "
                   f'davy release {reference} --override "REASON"')


def overrule(connection: Connection, model: str, version: int, reason: str, *, clock: Clock, actor: str) -> str:
    """Let it through all the same; the journal tells who did, and why. Returns the id that the override is kept under."""
    return override(connection, model, version, reason, clock=clock, actor=actor).gate or ""
