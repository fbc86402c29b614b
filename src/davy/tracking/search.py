"""Finding runs and experiments by a filter, in any order, page by page. `davy.search` is the language, `plan` how it is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import sqlalchemy as sa

from davy.schema.tables import experiments as experiment_table
from davy.schema.tables import is_short, runs, tags
from davy.search.order import Part, binding, check_limit, decode, page_of
from davy.search.select import Selection, select_page
from davy.tracking.experiments import read_experiments
from davy.tracking.languages import EXPERIMENTS, RUNS
from davy.tracking.plan import Plan, Scope
from davy.tracking.records import PARENT, Experiment, RunRecord
from davy.tracking.runs import read_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 50_000
View = Literal["active", "deleted", "all"]
STAGES: dict[View, tuple[str, ...]] = {"active": ("active",), "deleted": ("deleted",), "all": ("active", "deleted")}


class RunPage(msgspec.Struct, frozen=True):
    """Some runs, and the token of the next page (None: this was the last)."""

    runs: list[RunRecord]
    next: str | None


class ExperimentPage(msgspec.Struct, frozen=True):
    """Some experiments, and the token of the next page."""

    experiments: list[Experiment]
    next: str | None


class RunIds(msgspec.Struct, frozen=True):
    """The ids of some runs, and the token of the next page."""

    ids: list[str]
    next: str | None


def search_runs(connection: sa.Connection, *, experiments: Sequence[str | int] | None = None, filter: str = "", order_by: Sequence[str] = (),
                view: View = "active", limit: int = 100, after: str | None = None) -> RunPage:
    """A page of runs.

    Args:
        experiments: ids and names of experiments (default: all).
        filter: such as `metrics.auc > 0.7 and params.model = 'lgbm'`.
        order_by: such as `["metrics.auc DESC", "start_time"]`; missing values come last, NaN before them. Ties, and what has no
            order, come by start, the newest first.
        view: which runs, by lifecycle.
        after: the token of the page before.

    Raises:
        InvalidInput: the filter or the order can't be read, or the token is another search's.
    """
    found = search_run_ids(connection, experiments=experiments, filter=filter, order_by=order_by, view=view, limit=limit, after=after)
    return RunPage(read_runs(connection, found.ids), found.next)


def search_run_ids(connection: sa.Connection, *, experiments: Sequence[str | int] | None = None, filter: str = "", order_by: Sequence[str] = (),
                   view: View = "active", limit: int = 100, after: str | None = None) -> RunIds:
    """As `search_runs`, for those who read the runs' other parts themselves."""
    check_limit(limit, MOST)
    tree = RUNS.read(filter)
    keys = RUNS.order(order_by)
    plan = Plan(connection, Scope(experiment_numbers(connection, experiments), STAGES[view]), filter, tree, keys)
    bound = binding("runs", None if experiments is None else sorted(map(str, experiments)), filter, list(order_by), view)
    parts = plan.order.parts
    last = None if after is None else decode(after, bound, [part.kind for part in parts])
    page, following = page_of(plan.rows(limit + 1, last), limit, bound, len(parts))
    return RunIds([row[-1] for row in page], following)


def experiment_numbers(connection: sa.Connection, asked: Sequence[str | int] | None) -> tuple[int, ...] | None:
    """The ids of experiments that are named by id or name; unknown ones are left out."""
    if asked is None:
        return None
    names = [name for name in asked if isinstance(name, str)]
    found = {number for number in asked if isinstance(number, int) and abs(number) < 2**63}
    if names:
        found.update(connection.scalars(sa.select(experiment_table.c.experiment_id).where(experiment_table.c.name.in_(names))))
    return tuple(sorted(found))


def search_experiments(connection: sa.Connection, *, filter: str = "", order_by: Sequence[str] = (), view: View = "active", limit: int = 1000,
                       after: str | None = None) -> ExperimentPage:
    """A page of experiments; without an order, the newest first.

    Raises:
        InvalidInput: the filter or the order can't be read, or the token is another search's.
    """
    tree = EXPERIMENTS.read(filter)
    keys = EXPERIMENTS.order(order_by or ["creation_time DESC"])
    identity = experiment_table.c.experiment_id
    selection = Selection(EXPERIMENTS, experiment_table, (Part(identity, bool(order_by), "integer"),), (identity,))
    found, following = select_page(connection, selection, text=filter, tree=tree, keys=keys, limit=limit, most=MOST, after=after,
                                   where=[experiment_table.c.lifecycle_stage.in_(STAGES[view])], bound=[list(order_by), view])
    return ExperimentPage(read_experiments(connection, [row[0] for row in found]), following)


def children(connection: sa.Connection, run_id: str) -> list[RunRecord]:
    """The active runs nested in this one, the oldest first."""
    query = sa.select(runs.c.run_id).join(tags, tags.c.run_id == runs.c.run_id).where(
        tags.c.key == PARENT, tags.c.value == run_id, is_short(tags.c.value), runs.c.lifecycle_stage == "active").order_by(runs.c.start_time, runs.c.run_id)
    return read_runs(connection, connection.scalars(query).all())
