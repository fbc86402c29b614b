"""The moments that a model learns from, their labels, and the training set that they make."""

from __future__ import annotations

import inspect
import traceback
from contextlib import chdir
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from davy.code import importing_from
from davy.core.fields import Field
from davy.core.time import EPOCH, format_time
from davy.errors import DavyError, DefinitionError, InvalidInput, NotFound
from davy.features.columns import decode_column, encode_column, encode_times
from davy.features.training_set import TIME, TrainingSet, training_set

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.features.training_set import AsKnown
    from davy.home import Home
    from davy.project import ModelDefinition


def make_spine(definition: ModelDefinition, root: Path, *, start: int | None = None, end: int | None = None) -> pl.DataFrame:
    """The rows of the model's spine with start <= time < end, in the order that the user's function or file gives them.

    Args:
        start, end: microseconds. A function that takes `start` and `end` gets them as datetimes in UTC, or None.

    Raises:
        DefinitionError: the model has no spine, or its function fails.
        InvalidInput: not a data frame, no time, no outcome, or no rows.
    """
    name, source = definition.name, definition.spine
    check_spine(definition, root)
    frame = _called(source, definition, root, start, end) if callable(source) else _read(root / Path(source), definition)
    outcome = definition.spec.outcome.value.name
    for column in (TIME, outcome):
        if column not in frame.columns:
            raise InvalidInput(f"The spine of {name!r} has no column {column!r}.", f"It has: {', '.join(frame.columns)}.",
                               f"Add the column {column!r}: {'the moment of asking' if column == TIME else 'what turned out to be true'}.")
    micros = encode_times(frame[TIME], Field(TIME, "time"), events=True)
    if start is not None:
        frame, micros = frame.filter(micros >= start), micros.filter(micros >= start)
    if end is not None:
        frame = frame.filter(micros < end)
    if not frame.height:
        span = f" from {format_time(start) if start is not None else 'the beginning'} to {format_time(end) if end is not None else 'the end'}"
        raise InvalidInput(f"The spine of {name!r} has no rows{span if start is not None or end is not None else ''}.", "A model learns from at least one row.",
                           "Check the source of the spine, --start and --end.")
    return frame


def check_spine(definition: ModelDefinition, root: Path) -> None:
    """See that there is a spine, before anything is begun.

    Raises:
        DefinitionError: the model declares none. NotFound: it names a file that isn't there.
    """
    name, source = definition.name, definition.spine
    if source is None:
        raise DefinitionError(f"The model {name!r} has no spine.", "A spine says at which moments, for which entities, with which outcome the model learns.",
                              "Add to @davy.model: spine=FUNCTION, or spine=\"data/FILE.parquet\"")
    if not callable(source) and not (root / Path(source)).exists():
        raise NotFound(f"The spine of {name!r} is {str(source)!r}, and there is no {root / Path(source)}.", "A spine's file lies below the project's folder.",
                       "Put the file there, or correct spine= on @davy.model.")


def labels(definition: ModelDefinition, spine: pl.DataFrame) -> pl.Series:
    """The label of each row: the outcome's value as the log would hold it, through the declared function.

    Raises:
        InvalidInput: an outcome or label that is null or NaN; names the first row (from 0).
    """
    field = definition.spec.outcome.value
    try:
        values = decode_column(encode_column(spine[field.name], field), field)
    except InvalidInput as error:
        raise _mistyped(definition, spine[field.name], error) from error
    unknown = values.is_null()
    if unknown.any():
        raise InvalidInput(f"{unknown.sum():,} of {len(values):,} rows of the spine have no {field.name!r}; the first is row {unknown.arg_max()}.",
                           "A model learns from known outcomes.", f'Filter them out of the spine: .filter(pl.col("{field.name}").is_not_null())')
    found = values.alias("label") if definition.label is None else _labelled(definition, values)
    missing = found.is_null() | (found.is_nan() if found.dtype.is_float() else False)
    if missing.any():
        row = int(missing.arg_max() or 0)
        raise InvalidInput(f"The label of row {row} is {found[row]!r}; {int(missing.sum()):,} of {len(found):,} are null or NaN.",
                           "Every row has a label.", "Filter such rows out of the spine, or mend the label's function.")
    return found


def _mistyped(definition: ModelDefinition, values: pl.Series, error: InvalidInput) -> InvalidInput:
    """The outcome's own error, with the declaration that would take this column."""
    field, dtype = definition.spec.outcome.value, values.dtype
    kinds = (("bool", dtype == pl.Boolean), ("int", dtype.is_integer()), ("float", dtype.is_float()), ("str", dtype == pl.String),
             ("davy.Time", isinstance(dtype, pl.Datetime)))
    kind = next((kind for kind, fits in kinds if fits and kind != field.kind), None)
    if kind is None:
        return error
    return type(error)(f"The outcome of {definition.name!r}: {error.came}", error.allowed, f"Declare it as it is: davy.Outcome({field.name!r}, kind={kind})")


def refuse_constant(found: pl.Series) -> None:
    """A model can't learn from labels that are all the same.

    Raises:
        InvalidInput: they are.
    """
    if found.n_unique() == 1:
        raise InvalidInput(f"All {len(found):,} labels are {found[0]!r}.", "A model learns from rows that differ in what turned out.",
                           "Choose a longer time, or mend the label's function.")


def build(home: Home, definition: ModelDefinition, spine: pl.DataFrame, *, as_known: AsKnown = "ingest",
          watermarks: Mapping[str, int] | None = None) -> TrainingSet:
    """The training set of this spine, features joined point in time.

    Args:
        watermarks: look at the log only up to these offsets, as an earlier training set did; otherwise at all that is acknowledged now.
    """
    from davy.engines.offline.local import LocalEngine

    found = labels(definition, spine)
    if watermarks is None:
        settle(home, definition)
    return training_set(LocalEngine(home), definition.spec.feature_set, spine, label=found, as_known=as_known, watermarks=watermarks)


def settle(home: Home, definition: ModelDefinition) -> None:
    """Move acknowledged events into the tables, and let the log know the model's outcomes, so that they are taken as soon as it answers.

    Raises:
        Conflict: a stream is declared otherwise than its events were written, which would read their integers in another unit.
    """
    from davy.events.client import connect
    from davy.events.outcomes import outcome_stream

    log = connect(home)
    try:
        for stream in definition.spec.feature_set.streams:
            log.declare(stream)
        log.declare(outcome_stream(definition.name, definition.spec.outcome.value))
        log.flush()
    finally:
        log.close()


def encode_like(other: TrainingSet, data: TrainingSet) -> TrainingSet:
    """`other` with the vocabulary of `data`: a text that training has not seen is NaN in its matrix."""
    other.__dict__["categories"] = data.categories
    return other


def user_error(error: BaseException, root: Path, what: str) -> DefinitionError:
    """An exception from the user's code as one sentence with file and line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    where = f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}: " if frames else ""
    return DefinitionError(f"{where}{what} failed: {type(error).__name__}: {error}", "", "Mend the line.")


def _called(function: Any, definition: ModelDefinition, root: Path, start: int | None, end: int | None) -> pl.DataFrame:
    accepted = inspect.signature(function).parameters
    bounds = {name: None if bound is None else EPOCH + timedelta(microseconds=bound) for name, bound in (("start", start), ("end", end))}
    try:
        with importing_from(root), chdir(root):
            found = function(**{name: bound for name, bound in bounds.items() if name in accepted})
    except DavyError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise user_error(error, root, f"The spine of {definition.name!r}") from error
    return _frame(found, definition.name)


def _frame(found: Any, name: str) -> pl.DataFrame:
    if isinstance(found, pl.LazyFrame):
        return found.collect()
    if isinstance(found, pl.DataFrame):
        return found
    if hasattr(found, "__arrow_c_stream__"):
        return pl.DataFrame(found)
    raise InvalidInput(f"The spine of {name!r} is a {type(found).__name__}.",
                       "It is a Polars data frame, or one that speaks Arrow (pandas 2.2, pyarrow, DuckDB).", "Return a polars.DataFrame.")


def _read(path: Path, definition: ModelDefinition) -> pl.DataFrame:
    from davy.events.sources import read_source

    known = definition.spec.feature_set
    return read_source(path, (*known.entities, *known.request, definition.spec.outcome.value))


def _labelled(definition: ModelDefinition, values: pl.Series) -> pl.Series:
    function = definition.label
    assert function is not None
    found = []
    for row, value in enumerate(values.to_list()):
        try:
            found.append(function(value))
        except Exception as error:  # the user's function may raise anything
            raise DefinitionError(f"The label of {definition.name!r} failed for row {row}, {value!r}: {type(error).__name__}: {error}", "",
                                  "Mend the function given to davy.Outcome(label=...).") from error
    try:
        return pl.Series("label", found, strict=True)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise InvalidInput(f"The labels of {definition.name!r} are of several types: {error}.", "They are all bools, ints, floats or texts.",
                           "Mend the function given to davy.Outcome(label=...).") from error
