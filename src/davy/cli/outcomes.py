"""`davy outcomes push`: what turned out to be true, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from davy.cli import open_home
from davy.cli.output import print_json
from davy.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from davy.project import ModelDefinition, Project

BATCH = 10_000


@click.group
def command() -> None:
    """What turned out to be true, told to Davy."""


@command.command
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--model", "name", metavar="MODEL", help="Whose outcomes; needed when the project has several models.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: accepted, duplicates, set_aside.")
def push(file: Path, name: str | None, as_json: bool) -> None:
    """Append the outcomes in FILE: Parquet, CSV, or one JSON object per line.

    A row has the outcome's value and either `prediction` (the id that came with the answer) or the entity keys and a `time`: then it
    belongs to the last prediction of that entity before its time. `time` says when it turned out (default for a prediction: now). The
    same row twice counts once; of several for one prediction, the one with the latest time holds, and all are kept. An outcome for a
    prediction that is not known (yet) is kept, and counts when it appears.
    """
    from davy.events.client import connect
    from davy.project import load_project

    home = open_home()
    definition = _chosen(load_project(home.root), name)
    rows = _rows(file, definition)
    total = {"accepted": 0, "duplicates": 0, "set_aside": 0}
    with connect(home) as log:
        for first in range(0, len(rows), BATCH):
            try:
                receipt = log.outcomes(definition.name, rows[first:first + BATCH], definition.spec.outcome.value)
            except InvalidInput as error:
                raise type(error)(f"{file}, in the rows from {first} on: {error.came}", error.allowed,
                                  f"{error.fix} The {first} rows before are in the log.") from None
            for key in total:
                total[key] += getattr(receipt, key)
    home.close()
    if as_json:
        print_json(total)
    else:
        told = [f"{total['accepted']:,} outcomes of {definition.name} accepted"]
        told += [f"{total['duplicates']:,} were there already"] if total["duplicates"] else []
        told += [f"{total['set_aside']:,} lie in the future and wait for their time"] if total["set_aside"] else []
        print("; ".join(told))


def _chosen(project: Project, name: str | None) -> ModelDefinition:
    if name is not None:
        return project.model(name)
    if len(project.models) != 1:
        raise NotFound(f"The project has {len(project.models)} models.", f"They are {', '.join(project.models) or 'none'}.",
                       "Name the one whose outcomes these are: --model MODEL")
    return next(iter(project.models.values()))


def _rows(file: Path, definition: ModelDefinition) -> list[dict[str, Any]]:
    """The file's rows as the log takes them: empty cells left out, entity keys packed together."""
    value, keys = definition.spec.outcome.value, [field.name for field in definition.spec.feature_set.entities]
    found: list[dict[str, Any]] = []
    for row in _read(file):
        given = {name: item for name, item in row.items() if item is not None}
        if value.kind == "float" and isinstance(given.get(value.name), int) and not isinstance(given[value.name], bool):
            given[value.name] = float(given[value.name])
        if "prediction" not in given and "entity" not in given:
            entity = {key: given.pop(key) for key in keys if key in given}
            if len(entity) == len(keys):
                given["entity"] = entity
            elif entity:
                missing = next(key for key in keys if key not in entity)
                raise InvalidInput(f"Row {len(found)} of {file} names no prediction, and no {missing!r}.", f"An entity is {', '.join(keys)}.",
                                   "Give all of its keys, or the prediction's id.")
        else:
            given = {name: item for name, item in given.items() if name not in keys}
        found.append(given)
    return found


def _read(file: Path) -> list[dict[str, Any]]:
    from davy.cli.push import rows_of
    from davy.events.sources import CSV, PARQUET, read_source

    if file.name.endswith((*PARQUET, *CSV)):
        return read_source(file).to_dicts()
    with file.open(encoding="utf-8") as lines:
        rows = [row for _, row in rows_of(lines)]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"Row {number} of {file} is {row!r}.", "A row is an object of fields.", "Mend the row.")
    return rows
