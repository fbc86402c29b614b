"""Why a filter may match nothing: keys in it that no run has, and what was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.errors import nearest
from davy.schema.tables import runs
from davy.search.fields import Keyed
from davy.search.select import conditions
from davy.tracking.languages import RUNS
from davy.tracking.search import STAGES, View, experiment_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKED_AT, MOST_TOLD = 200, 20


def unknown_keys(connection: sa.Connection, *, experiments: Sequence[str | int] | None = None, filter: str = "", view: View = "active") -> list[str]:
    """A sentence for each metric, param and tag in a filter that none of the newest runs has, with the nearest name that one of them has.

    Costs a look at `LOOKED_AT` runs, however many there are.

    Raises:
        InvalidInput: the filter can't be read.
    """
    asked: dict[str, tuple[Keyed, set[str]]] = {}
    for condition in conditions(RUNS.read(filter)):
        check = RUNS.check(filter, condition)
        if isinstance(check.target.field, Keyed) and check.op != "IS NULL":
            asked.setdefault(check.target.entity, (check.target.field, set()))[1].add(check.target.key)
    query = sa.select(runs.c.run_id).where(runs.c.lifecycle_stage.in_(STAGES[view]))
    numbers = experiment_numbers(connection, experiments)
    if numbers is not None:
        query = query.where(runs.c.experiment_id.in_(numbers))
    newest = connection.scalars(query.order_by(runs.c.start_time.desc(), runs.c.run_id).limit(LOOKED_AT)).all() if asked else []
    found = []
    for entity, (field, keys) in asked.items() if newest else ():
        known = set(connection.scalars(sa.select(field.table.c.key).where(field.table.c.run_id.in_(newest)).distinct()))
        who = "No run" if len(newest) < LOOKED_AT else f"None of the {LOOKED_AT} newest runs"
        found += [f"{who} has the {_WORDS.get(entity, entity)} {key!r}{_meant(key, known)}" for key in sorted(keys - known)]
    return found


_WORDS = {"parameter": "param"}


def _meant(key: str, known: set[str]) -> str:
    hint = nearest(key, known)
    return f"; {hint}" if hint.startswith("did you mean") or len(known) <= MOST_TOLD else "."
