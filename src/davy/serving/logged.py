"""Estimators, and the care that is taken of those that were logged elsewhere.

A model of one's own is written to answer every row. One that MLflow has logged was written for MLflow's serving, which
tells a client that its request was wrong when the model refuses a null, an infinite number or an unseen text; so does Davy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from davy.core.fields import Kind
from davy.errors import CorruptData, InvalidInput, MissingExtra, UnsafeModel

Matrix = NDArray[np.float64]
Output = Literal["probability", "value", "label"]
_LARGE = float(np.finfo(np.float32).max)
_NAMELESS = "X does not have valid feature names"


class Estimator:
    """An object with `predict`, or `predict_proba` when its output is a probability."""

    def __init__(self, model: Any, output: Output) -> None:
        wanted = "predict_proba" if output == "probability" else "predict"
        if not callable(getattr(model, wanted, None)):
            raise InvalidInput(f"The model, a {type(model).__name__}, has no {wanted}.",
                               f"A version whose answer is a {output} is asked through {wanted}.", "Return another object from train.")
        self.inner, self.output = model, output
        width = getattr(model, "n_features_in_", None)
        self.width: int | None = int(width) if width is not None else None

    def predict(self, matrix: Any) -> Matrix | list[Any]:
        """Answers for rows: a matrix, or a frame for a model that knows its columns by name."""
        if self.output == "probability":
            found = np.asarray(self.inner.predict_proba(matrix), dtype=np.float64)
            return np.ascontiguousarray(found[:, 1]) if found.ndim == 2 and found.shape[1] == 2 else found
        return answers(self.inner.predict(matrix), self.output)


class Logged:
    """A model that was logged elsewhere. What it can't answer because of a null, a huge number, a text or a time in the row is the request's fault.

    Args:
        columns: the signature's names; a model that knows its columns by name is checked against them, and given a frame if it wants one.
            LightGBM goes by place, and so does whoever is given a tensor.
        kinds: theirs. Where texts or times are among them, an estimator is given a frame of pandas, as MLflow would give it, and one that takes
            a single text, as a vectorizer does, the texts themselves.

    Raises:
        InvalidInput: the model knows other columns, or in another order. MissingExtra: it needs pandas, which is not installed.
    """

    def __init__(self, model: Any, columns: Sequence[str], kinds: Sequence[Kind] = ()) -> None:
        self._model, self.width = model, model.width
        self._columns, self._kinds = tuple(columns), tuple(kinds)
        self._free = [place for place, kind in enumerate(kinds) if kind in ("str", "time")]
        self._faults: tuple[type[Exception], ...] = (ValueError, TypeError, ArithmeticError, *((LookupError, AttributeError) if self._free else ()))
        self._prepare: Callable[[Matrix], Any] = lambda matrix: matrix
        inner = getattr(model, "inner", None)
        known = getattr(inner, "feature_names_in_", None)
        nameless = type(inner).__module__.startswith("lightgbm.") or list(columns) == [f"x{place}" for place in range(len(columns))]
        named = [] if known is None or not columns or nameless else list(known)
        if named and named != list(columns):
            raise InvalidInput(f"The model was trained on the columns {', '.join(map(str, named))}.", f"Its signature lists {', '.join(columns)}.",
                               "Log it again with the signature of what it was trained on.")
        if inner is not None and self._free:
            if len(columns) == 1 and kinds[0] == "str" and self.width is None:
                self._prepare = _only
            elif not nameless or "time" in kinds:
                self._prepare = self._typed()
        elif named:
            warnings.filterwarnings("ignore", message=_NAMELESS)
            self._prepare = self._preparing()

    def predict(self, matrix: Matrix) -> Matrix | list[Any]:
        """Answers for (n, d) rows.

        Raises:
            InvalidInput: the model has no answer to a row with a null, a number beyond single precision, or this text or time.
        """
        strange = np.isnan(matrix) | (np.abs(matrix) > _LARGE) if not self._free else self._strange(matrix)
        if not strange.any():
            found: Matrix | list[Any] = self._model.predict(self._prepare(matrix))
            return found
        try:
            with np.errstate(all="ignore"):
                found = self._model.predict(self._prepare(matrix))
        except self._faults as error:
            raise self._refused(strange, str(error).partition("\n")[0].rstrip(".") or type(error).__name__) from error
        if not isinstance(found, list):
            lost = ~np.isfinite(found if found.ndim == 1 else found.sum(axis=1)) & strange.any(axis=1)
            if lost.any():
                raise self._refused(strange[lost], "its answer is not a finite number")
        return found

    def _strange(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Where there are nulls and huge numbers; and every text and time, since it may be one that the model has never seen."""
        plain = matrix
        if matrix.dtype == object:
            plain = matrix.copy()
            plain[:, self._free] = 0.0
            plain = plain.astype(np.float64)
        found: NDArray[np.bool_] = np.isnan(plain) | (np.abs(plain) > _LARGE)
        found[:, self._free] = True
        return found

    def _refused(self, strange: NDArray[np.bool_], why: str) -> InvalidInput:
        places = np.flatnonzero(strange.any(axis=0)).tolist()
        named = ", ".join(repr(self._columns[place]) if self._columns else f"number {place + 1}" for place in places)
        if self._free:
            return InvalidInput(f"The model has no answer to a row with what came in the column {named}: {why}.",
                                "It was logged without a way to treat every text and time, and nulls.",
                                "Send what it has learned from. A gate asks it with the input_example that was logged beside it.")
        return InvalidInput(f"The model has no answer to a row with a null or a huge number in the column {named}: {why}.",
                            "It was logged without a way to treat those.", "Send ordinary numbers there, or put imputing and limits into the model.")

    def _preparing(self) -> Callable[[Matrix], Any]:
        """How rows are handed over: as they are, or by name if that is what the model insists on."""
        try:
            self._model.predict(np.zeros((1, len(self._columns))))
        except ValueError as error:
            if "only supported for dataframes" in str(error):
                return self._frame
        except Exception:  # noqa: BLE001 - a model may refuse zeros; that is its answer to such a row
            pass
        return lambda matrix: matrix

    def _frame(self, matrix: Matrix) -> Any:
        import polars as pl

        return pl.DataFrame(np.ascontiguousarray(matrix.T).T, schema=list(self._columns), orient="row")

    def _typed(self) -> Callable[[Matrix], Any]:
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("This version takes texts or times by their columns, and pandas is not installed.",
                               "Such models have learned from frames of pandas, whose missing texts are pandas' own.", "pip install pandas") from error

        def column(values: NDArray[Any], kind: Kind) -> Any:
            return texts(pandas, values) if kind == "str" else times(values) if kind == "time" else values.astype(np.float64)

        return lambda matrix: pandas.DataFrame({name: column(matrix[:, place], kind)
                                                for place, (name, kind) in enumerate(zip(self._columns, self._kinds, strict=True))})


def texts(pandas: Any, values: NDArray[Any]) -> Any:
    """A column of texts as this release of pandas has them by default, nulls alone too: what is missing looks the same in any batch."""
    return pandas.Series(values, dtype=pandas.Series(["a text"]).dtype)


def _only(matrix: Matrix) -> Any:
    return matrix[:, 0]


def times(column: NDArray[Any]) -> NDArray[np.datetime64]:
    """Microseconds since 1970 as times without a zone, which is UTC's; a null is none."""
    plain = column.astype(np.float64)
    found = np.full(len(plain), np.datetime64("NaT"), dtype="datetime64[us]")
    known = ~np.isnan(plain)
    found[known] = plain[known].astype(np.int64).astype("datetime64[us]")
    return found


def answers(found: Any, output: Output) -> Matrix | list[Any]:
    """What a model's predict returned, as labels or floats."""
    if output == "label":
        return [item.item() if isinstance(item, np.generic) else item for item in found]
    return np.asarray(found, dtype=np.float64)


def read_skops(data: bytes, allow_globals: Sequence[str] = ()) -> Any:
    """The object in a skops file, if every type in it that skops does not trust is on the allow-list of pickles.

    Raises:
        UnsafeModel: names another one; nothing of it has been run. CorruptData: not a skops file. MissingExtra: skops is not installed.
    """
    refused = refused_types(data, allow_globals)
    if refused:
        raise UnsafeModel(f"The model holds {', '.join(refused)}, which {'is' if len(refused) == 1 else 'are'} not on the allow-list.",
                          "Allowed are estimators of scikit-learn and LightGBM, numpy and scipy data, and plain containers.",
                          f'If you wrote it and trust it, add it to davy.toml: [serving] allow_globals = ["{refused[0]}"]')
    io = _skops()
    try:
        return io.loads(data, trusted=io.get_untrusted_types(data=data))
    except Exception as error:  # a class's own __setstate__ may raise anything at all
        raise CorruptData(f"The model can't be rebuilt: {type(error).__name__}: {error}.",
                          "It was written by other versions of its libraries, or damaged before it was registered.",
                          "Log it again in this environment.") from error


def refused_types(data: bytes, allow_globals: Sequence[str] = ()) -> list[str]:
    """The types in a skops file that neither skops nor the allow-list trusts, sorted, found without building anything.

    Raises:
        CorruptData: not a skops file. MissingExtra: skops is not installed.
    """
    from davy.serving.unpickle import is_allowed

    io = _skops()
    try:
        found = io.get_untrusted_types(data=data)
    except Exception as error:  # zipfile, json and skops each raise their own for damaged input
        raise CorruptData(f"The model's file is not one of skops: {type(error).__name__}: {error}.", "", "Log the model again.") from error
    split = [(module, name) for module, _, name in (str(item).rpartition(".") for item in found)]
    return sorted(f"{module}.{name}" for module, name in split if not is_allowed(module, name, allow_globals))


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("This version is a skops file, and skops is not installed.", "MLflow 3 writes scikit-learn's models so.",
                           "pip install 'davy[sklearn]'") from error
    return skops.io
