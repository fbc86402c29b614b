"""`python -m davy.training.again REQUEST`: one training repeated in a process of its own, in the code and environment of the run.

It reads the request, writes `answer.json` beside it, and registers nothing.
"""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.errors import DavyError
from davy.home import Home
from davy.project import load_project
from davy.training.environment import (
    Environment,
    Machine,
    Seeds,
    Threads,
    read_environment,
    read_machine,
    read_threads,
    set_seeds,
)
from davy.training.fit import fit
from davy.training.formats import load_files
from davy.training.record import DataRecord, TrainingRecord, describe, first_difference
from davy.training.spine import build, make_spine

if TYPE_CHECKING:
    from davy.project import ModelDefinition
    from davy.serving.logged import Matrix

ANSWER = "answer.json"


class Request(msgspec.Struct, frozen=True):
    """What to repeat: paths as texts. `rows` is the run's training set, where it was kept; `files` holds the run's model."""

    root: str
    home: str
    record: TrainingRecord
    files: str
    rows: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        spine_error: why the spine could not be made, when the run's own rows were taken instead.
        row: the first difference of the training set, in a sentence.
        largest: the largest absolute difference between this model's answers and the run's model's, on these rows.
        error: why there is no model.
    """

    environment: Environment
    machine: Machine
    threads: Threads
    seeds: Seeds
    imported: tuple[str, ...] = ()
    feature_set: str = ""
    spine_error: str | None = None
    data: DataRecord | None = None
    row: str | None = None
    files: dict[str, str] = {}
    model_digest: str = ""
    predictions: str = ""
    largest: float | None = None
    seconds: float = 0.0
    error: str | None = None


def repeat(request: Request) -> Answer:
    """Carry the training out."""
    record = request.record
    seeds = set_seeds(record.seed)
    answer = Answer(read_environment(), read_machine(), read_threads(), seeds)
    home = Home(Path(request.root), path=Path(request.home))
    try:
        root = home.root
        definition = load_project(root).model(record.model)
        answer = msgspec.structs.replace(answer, threads=read_threads(), feature_set=definition.spec.feature_set.digest)
        kept = pl.read_parquet(request.rows, glob=False) if request.rows is not None else None
        spine, problem = _spine(definition, root, record, kept)
        data = build(home, definition, spine, as_known=record.data.as_known, watermarks=record.data.watermarks)
        described = describe(data, spine, record.data.start, record.data.end)
        row = first_difference(kept, data.frame) if kept is not None and described.columns != record.data.columns else None
        answer = msgspec.structs.replace(answer, spine_error=problem, data=described, row=row)
        allowed = home.config.serving.allow_globals
        fitted = fit(definition, data, record.parameters, root=root, seed=record.seed, allow_globals=allowed)
        largest: float | None = 0.0
        if fitted.predictions != record.predictions:
            before = load_files(_files(Path(request.files)), record.format, record.output, root, allow_globals=allowed)
            largest = _largest(before.predict(data.X), fitted.answers)
        return msgspec.structs.replace(answer, imported=_imported(), files=fitted.files, model_digest=fitted.saved.digest, predictions=fitted.predictions,
                                       largest=largest, seconds=fitted.seconds)
    except DavyError as error:
        return msgspec.structs.replace(answer, error=str(error), imported=_imported())
    except Exception:  # noqa: BLE001 - the project's own code may raise anything; the parent shows it
        return msgspec.structs.replace(answer, error=traceback.format_exc(), imported=_imported())
    finally:
        home.close()


def _spine(definition: ModelDefinition, root: Path, record: TrainingRecord, kept: pl.DataFrame | None) -> tuple[pl.DataFrame, str | None]:
    try:
        return make_spine(definition, root, start=record.data.start, end=record.data.end), None
    except DavyError as error:
        if kept is None:
            raise
        return kept.select(record.data.spine_columns), str(error)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _largest(before: Matrix | list[Any], now: Matrix | list[Any]) -> float | None:
    if isinstance(before, list) or isinstance(now, list) or before.shape != now.shape:
        return None
    gap = np.abs(before - now)
    found = float(np.max(gap, initial=0.0))
    return None if np.isnan(found) else found


def _imported() -> tuple[str, ...]:
    """The distributions of which a module is loaded."""
    loaded = {name.partition(".")[0] for name in sys.modules}
    owners = {owner.lower().replace("_", "-").replace(".", "-") for module, named in packages_distributions().items() if module in loaded for owner in named}
    return tuple(sorted({*owners, "davy"}))


def main() -> None:
    """Answer the request named on the command line."""
    path = Path(sys.argv[1])
    answer = repeat(msgspec.json.decode(path.read_bytes(), type=Request))
    (path.parent / ANSWER).write_bytes(msgspec.json.encode(answer, enc_hook=str))


if __name__ == "__main__":
    main()
