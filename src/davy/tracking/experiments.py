"""Experiments: made, found, renamed, deleted and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput, NotFound, nearest
from davy.schema.tables import experiment_tags, experiments, runs
from davy.store import journal
from davy.store.database import insert
from davy.tracking.records import LONGEST_EXPERIMENT, Experiment, check_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from davy.core.clock import Clock

_ROOT = "mlflow-artifacts:"
_LOOKUP = 500


def create_experiment(connection: sa.Connection, *, clock: Clock, actor: str, name: str, tags: Mapping[str, str] | None = None,
                      artifact_location: str = "") -> Experiment:
    """Make a new experiment.

    Args:
        artifact_location: the URI under which its runs' artifacts go (default: the server's own store).

    Raises:
        Conflict: there is one of that name, perhaps deleted.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_EXPERIMENT:
        raise InvalidInput(f"{name!r} can't be an experiment's name.", f"A name has 1 to {LONGEST_EXPERIMENT} characters.", "Rename it.")
    if connection.scalar(sa.select(experiments.c.experiment_id).where(experiments.c.name == name)) is not None:
        raise Conflict(f"There is an experiment {name!r} already.", "Names are unique, also among deleted ones.", "Use it, restore it, or take another name.")
    now = clock.now() // 1000
    row = {"name": name, "artifact_location": artifact_location, "lifecycle_stage": "active", "creation_time": now, "last_update_time": now}
    made = connection.execute(sa.insert(experiments).values(row)).inserted_primary_key
    identity = int(made[0]) if made else 0
    if not artifact_location:
        connection.execute(sa.update(experiments).where(experiments.c.experiment_id == identity).values(artifact_location=f"{_ROOT}/{identity}"))
    if tags:
        rows = [{"experiment_id": identity, "key": check_key("tag", key), "value": value} for key, value in tags.items()]
        connection.execute(sa.insert(experiment_tags), rows)
    journal.append(connection, clock=clock, actor=actor, action="experiment.create", subject=name, details={"id": identity})
    return get_experiment(connection, identity)


def ensure_experiment(connection: sa.Connection, *, clock: Clock, actor: str, name: str) -> Experiment:
    """The experiment of that name; made when there is none, refused when it is deleted."""
    row = connection.execute(sa.select(experiments).where(experiments.c.name == name)).first()
    if row is None:
        return create_experiment(connection, clock=clock, actor=actor, name=name)
    if row.lifecycle_stage != "active":
        raise Conflict(f"The experiment {name!r} is deleted.", "Runs are started in active experiments.", "Restore it, or take another name.")
    return _records(connection, [row])[0]


def get_experiment(connection: sa.Connection, identity: int | str) -> Experiment:
    """The experiment of that number or name, deleted ones included.

    Raises:
        NotFound: there is none; names the nearest.
    """
    found = find_experiment(connection, identity)
    if found is None:
        known = connection.scalars(sa.select(experiments.c.name)).all()
        raise NotFound(f"There is no experiment {identity!r}.", nearest(str(identity), known), "Correct the name.")
    return found


def find_experiment(connection: sa.Connection, identity: int | str) -> Experiment | None:
    """The experiment of that number or name, deleted ones included, if there is one."""
    column = experiments.c.name if isinstance(identity, str) else experiments.c.experiment_id
    row = connection.execute(sa.select(experiments).where(column == identity)).first()
    return None if row is None else _records(connection, [row])[0]


def list_experiments(connection: sa.Connection, *, deleted: bool = False) -> list[Experiment]:
    """All active experiments by name, or all deleted ones."""
    stage = "deleted" if deleted else "active"
    return _records(connection, connection.execute(sa.select(experiments).where(experiments.c.lifecycle_stage == stage).order_by(experiments.c.name)).all())


def read_experiments(connection: sa.Connection, identities: Sequence[int]) -> list[Experiment]:
    """The experiments of these numbers in this order; unknown ones are left out."""
    found: dict[int, Experiment] = {}
    for start in range(0, len(identities), _LOOKUP):
        query = sa.select(experiments).where(experiments.c.experiment_id.in_(identities[start:start + _LOOKUP]))
        found |= {record.id: record for record in _records(connection, connection.execute(query))}
    return [found[identity] for identity in identities if identity in found]


def rename_experiment(connection: sa.Connection, *, clock: Clock, actor: str, identity: int, name: str) -> None:
    """Give an active experiment another name that is not taken."""
    found = get_experiment(connection, identity)
    if found.lifecycle != "active":
        raise Conflict(f"The experiment {found.name!r} is deleted.", "Only an active one can be renamed.", "Restore it first.")
    if not name.strip() or len(name) > LONGEST_EXPERIMENT:
        raise InvalidInput(f"{name!r} can't be an experiment's name.", f"A name has 1 to {LONGEST_EXPERIMENT} characters.", "Rename it.")
    if connection.scalar(sa.select(experiments.c.experiment_id).where(experiments.c.name == name, experiments.c.experiment_id != identity)) is not None:
        raise Conflict(f"There is an experiment {name!r} already.", "Names are unique, also among deleted ones.", "Take another name.")
    connection.execute(sa.update(experiments).where(experiments.c.experiment_id == identity).values(name=name, last_update_time=clock.now() // 1000))
    journal.append(connection, clock=clock, actor=actor, action="experiment.rename", subject=name, details={"id": identity, "before": found.name})


def set_experiment_stage(connection: sa.Connection, *, clock: Clock, actor: str, identity: int, stage: Literal["active", "deleted"]) -> None:
    """Delete or restore an experiment with all its runs. Nothing is erased."""
    found = get_experiment(connection, identity)
    if found.lifecycle == stage:
        raise NotFound(f"The experiment {found.name!r} is {stage} already.", "", "Nothing is left to do.")
    now = clock.now() // 1000
    connection.execute(sa.update(experiments).where(experiments.c.experiment_id == identity).values(lifecycle_stage=stage, last_update_time=now))
    connection.execute(sa.update(runs).where(runs.c.experiment_id == identity).values(lifecycle_stage=stage, deleted_time=now if stage == "deleted" else None))
    action = "experiment.delete" if stage == "deleted" else "experiment.restore"
    journal.append(connection, clock=clock, actor=actor, action=action, subject=found.name, details={"id": identity})


def set_experiment_tag(connection: sa.Connection, identity: int, key: str, value: str) -> None:
    """Set a tag of an experiment."""
    check_key("tag", key)
    statement = insert(connection, experiment_tags).values(experiment_id=identity, key=key, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["experiment_id", "key"], set_={"value": value}))


def delete_experiment_tag(connection: sa.Connection, identity: int, key: str) -> bool:
    """Remove a tag of an experiment; whether it was there."""
    where = (experiment_tags.c.experiment_id == identity, experiment_tags.c.key == key)
    return bool(connection.execute(sa.delete(experiment_tags).where(*where)).rowcount)


def _records(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[Experiment]:
    found = list(rows)
    tags: dict[int, dict[str, str]] = {}
    for tag in connection.execute(sa.select(experiment_tags).where(experiment_tags.c.experiment_id.in_([row.experiment_id for row in found]))):
        tags.setdefault(tag.experiment_id, {})[tag.key] = tag.value
    return [Experiment(row.experiment_id, row.name, row.lifecycle_stage, row.artifact_location, row.creation_time * 1000, row.last_update_time * 1000,
                       tags.get(row.experiment_id, {})) for row in found]
