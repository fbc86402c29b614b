"""What was deleted is purged for good: runs, logged models and experiments with all that belongs to them.

Nothing goes that a registered version, an alias, the traffic or a release refers to, and no experiment that still
holds something. Every batch is one transaction with its journal entry, so that a purge that was killed goes on where
it stopped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.errors import NotFound
from davy.schema.tables import artifacts, datasets, experiments, inputs, logged_models, model_versions, releases, runs, traffic
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from davy.core.clock import Clock

BATCH = 100
_LOOKUP = 500
_OWNER = re.compile(r"m-[0-9a-f]{32}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


class Kept(msgspec.Struct, frozen=True):
    """What is deleted but stays, and why."""

    kind: str
    id: str
    why: str


class Purge(msgspec.Struct, frozen=True):
    """What would go: ids of runs and logged models, numbers of experiments with their names."""

    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    experiments: dict[int, str] = {}
    kept: tuple[Kept, ...] = ()

    @property
    def owners(self) -> set[str]:
        """Whose artifacts go."""
        return {*self.runs, *self.models, *map(str, self.experiments)}


def plan(connection: sa.Connection, *, before: int, experiment_ids: Collection[int] = (), run_ids: Collection[str] = ()) -> Purge:
    """What was deleted before this moment (microseconds) and that nothing refers to.

    Args:
        experiment_ids: only what is in these experiments. run_ids: only these runs.

    Raises:
        NotFound: one of `run_ids` is no deleted run.
    """
    cutoff, held = before // 1000, referred(connection)
    gone = sa.and_(runs.c.lifecycle_stage == "deleted", sa.func.coalesce(runs.c.deleted_time, 0) <= cutoff)
    asked = sa.select(runs.c.run_id).where(gone).order_by(runs.c.run_id)
    if run_ids:
        found = [run for some in _batches(sorted(set(run_ids)), _LOOKUP) for run in connection.scalars(asked.where(runs.c.run_id.in_(some)))]
        for run_id in set(run_ids).difference(found):
            raise NotFound(f"There is no run {run_id!r} that was deleted long enough ago.", "A run is purged after it was deleted.", "See them: davy runs")
        free, kept = _divide("run", found, held)
        return Purge(tuple(free), (), {}, tuple(kept))
    models = sa.select(logged_models.c.model_id).where(logged_models.c.lifecycle_stage == "deleted", logged_models.c.last_update_time <= cutoff)
    ended = sa.select(experiments).where(experiments.c.lifecycle_stage == "deleted", experiments.c.last_update_time <= cutoff)
    if experiment_ids:
        asked = asked.where(runs.c.experiment_id.in_(experiment_ids))
        models = models.where(logged_models.c.experiment_id.in_(experiment_ids))
        ended = ended.where(experiments.c.experiment_id.in_(experiment_ids))
    free_runs, kept_runs = _divide("run", connection.scalars(asked), held)
    doomed = {row.experiment_id: row.name for row in connection.execute(ended)}
    inside = sa.select(logged_models.c.model_id).where(logged_models.c.experiment_id.in_(sorted(doomed)))
    free_models, kept_models = _divide("logged model", sorted({*connection.scalars(models), *connection.scalars(inside)}), held)
    empty, full = _empty(connection, doomed, free_runs, free_models)
    return Purge(tuple(free_runs), tuple(free_models), empty, (*kept_runs, *kept_models, *full))


def purge(connection: sa.Connection, some: Purge, *, clock: Clock, actor: str, before: int) -> set[str]:
    """Remove these rows, all in the caller's transaction, if they may still go; returns the digests that they pointed at.

    What was restored, registered or written to since it was planned stays.
    """
    held = referred(connection)
    deleted = sa.and_(runs.c.lifecycle_stage == "deleted", sa.func.coalesce(runs.c.deleted_time, 0) <= before // 1000)
    going = [run for run in connection.scalars(sa.select(runs.c.run_id).where(runs.c.run_id.in_(some.runs), deleted)) if run not in held]
    models = [model for model in connection.scalars(_going_models(some.models)) if model not in held]
    pointed = _remove_owners(connection, [*going, *models])
    touched = set(connection.scalars(sa.select(runs.c.experiment_id).where(runs.c.run_id.in_(going))))
    connection.execute(sa.delete(logged_models).where(logged_models.c.model_id.in_(models)))
    connection.execute(sa.delete(runs).where(runs.c.run_id.in_(going)))
    connection.execute(sa.delete(datasets).where(datasets.c.experiment_id.in_(touched), ~sa.exists().where(inputs.c.dataset_id == datasets.c.dataset_id)))
    names = {}
    for number, name in some.experiments.items():
        if _still_empty(connection, number, before // 1000):
            pointed |= _remove_owners(connection, [str(number)])
            connection.execute(sa.delete(experiments).where(experiments.c.experiment_id == number))
            names[str(number)] = name
    for what, found in (("runs", going), ("logged models", models), ("experiments", names)):
        if found:
            journal.append(connection, clock=clock, actor=actor, action=f"purge.{what.replace(' ', '_')}", subject=what, details={"ids": found})
    return pointed


def batches(whole: Purge) -> Iterator[Purge]:
    """The same in small parts, in an order in which each may go by itself: runs, then logged models, then experiments."""
    yield from (Purge(runs=tuple(some)) for some in _batches(whole.runs, BATCH))
    yield from (Purge(models=tuple(some)) for some in _batches(whole.models, BATCH))
    yield from (Purge(experiments={number: name}) for number, name in whole.experiments.items())


def referred(connection: sa.Connection) -> dict[str, str]:
    """The runs and logged models that something live refers to: id -> the version by which."""
    held: dict[str, str] = {}
    alive = living_versions(connection)
    for row in connection.execute(sa.select(model_versions)):
        if (row.name, row.version) in alive:
            for text in (row.run_id, row.model_id, row.source, row.storage_location):
                held.update(dict.fromkeys(_OWNER.findall(text or ""), f"{row.name}@{row.version}"))
    models = [owner for owner in held if owner.startswith("m-")]
    for some in _batches(models, _LOOKUP):
        made = sa.select(logged_models.c.model_id, logged_models.c.source_run_id).where(logged_models.c.model_id.in_(some))
        held.update({row.source_run_id: held[row.model_id] for row in connection.execute(made) if row.source_run_id})
    return held


def living_versions(connection: sa.Connection) -> set[tuple[str, int]]:
    """The versions that are not deleted, or that the traffic or a release names all the same."""
    found = {(row.name, row.version) for row in
             connection.execute(sa.select(model_versions.c.name, model_versions.c.version).where(model_versions.c.deleted.is_(False)))}
    for row in connection.execute(sa.select(releases.c.model, releases.c.version, releases.c.stable)):
        found |= {(row.model, row.version), (row.model, row.stable)}
    for row in connection.execute(sa.select(traffic)):
        named = [name.rpartition("@")[2] for name in msgspec.json.decode(row.weights, type=dict[str, Any])]
        found |= {(row.model, int(version)) for version in (*named, row.stable, row.shadow) if version is not None and str(version).isdigit()}
    return found


def _divide(kind: str, found: Iterable[str], held: dict[str, str]) -> tuple[list[str], list[Kept]]:
    free, kept = [], []
    for owner in found:
        if owner in held:
            kept.append(Kept(kind, owner, f"{held[owner]} refers to it"))
        else:
            free.append(owner)
    return free, kept


def _empty(connection: sa.Connection, doomed: dict[int, str], free_runs: Collection[str], free_models: Collection[str]) -> tuple[dict[int, str], list[Kept]]:
    """The experiments that hold nothing else, and those that do."""
    going, empty, full = {*free_runs, *free_models}, {}, []
    for number, name in doomed.items():
        inside: list[str] = [*connection.scalars(sa.select(runs.c.run_id).where(runs.c.experiment_id == number)),
                  *connection.scalars(sa.select(logged_models.c.model_id).where(logged_models.c.experiment_id == number))]
        left = sum(owner not in going for owner in inside)
        if left:
            full.append(Kept("experiment", name, f"{left} of its runs and logged models stay"))
        else:
            empty[number] = name
    return empty, full


def _going_models(models: Sequence[str]) -> sa.Select[Any]:
    """Of these logged models, those that are deleted still, or whose experiment is."""
    over = sa.select(experiments.c.experiment_id).where(experiments.c.lifecycle_stage == "deleted")
    return sa.select(logged_models.c.model_id).where(
        logged_models.c.model_id.in_(models), sa.or_(logged_models.c.lifecycle_stage == "deleted", logged_models.c.experiment_id.in_(over)))


def _still_empty(connection: sa.Connection, number: int, cutoff: int) -> bool:
    row = connection.execute(sa.select(experiments).where(experiments.c.experiment_id == number)).first()
    if row is None or row.lifecycle_stage != "deleted" or row.last_update_time > cutoff:
        return False
    held = (sa.select(sa.literal(1)).where(table.c.experiment_id == number).limit(1) for table in (runs, logged_models))
    return not any(connection.scalar(query) for query in held)


def _remove_owners(connection: sa.Connection, owners: Sequence[str]) -> set[str]:
    pointed = set(connection.scalars(sa.select(artifacts.c.digest).where(artifacts.c.owner.in_(owners)).distinct()))
    connection.execute(sa.delete(artifacts).where(artifacts.c.owner.in_(owners)))
    return pointed


def _batches(found: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (found[start:start + size] for start in range(0, len(found), size))
