"""What goes into a model and what comes out of it, and how typed feature values become the model's row of floats.

The same rules make a training set's matrix and a live request's row: null is NaN, a bool is 0 or 1, an int the
nearest float (exact up to 2^53), a time its microseconds, and a text the index of its category in a sorted
vocabulary; a category that training has not seen is NaN. A text without a vocabulary, which a model that was logged
elsewhere may want, stays a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from davy.core.fields import Kind
from davy.errors import DefinitionError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Output = Literal["probability", "value", "label"]
_NAN = float("nan")


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input. A text column lists its categories, sorted, or has none: then its texts go into the model as they are."""

    name: str
    kind: Kind
    categories: tuple[str, ...] | None = None


class Signature(msgspec.Struct, frozen=True, dict=True):
    """The inputs in the model's order, and its output.

    Attributes:
        output: `probability` (of the last of two classes, or one per class), `value`, or `label`.
        classes: the classes of a classifier in the order of its probabilities, empty for a regressor.
    """

    columns: tuple[Column, ...]
    output: Output = "value"
    classes: tuple[Any, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], kinds: Sequence[Kind], categories: Mapping[str, Sequence[str]] | None = None, *, output: Output = "value",
           classes: Sequence[Any] = ()) -> Signature:
        """The signature of a feature set's `outputs` and `kinds`, with the vocabulary of each text column.

        Raises:
            DefinitionError: a text column without categories, or categories that are not sorted and distinct.
        """
        known = dict(categories or {})
        columns = []
        for name, kind in zip(names, kinds, strict=True):
            if kind != "str":
                columns.append(Column(name, kind))
                continue
            if name not in known:
                raise DefinitionError(f"The text column {name!r} has no categories.", "A text column's vocabulary is taken from the training set.",
                                      f"Pass categories={{{name!r}: [...]}}.")
            columns.append(Column(name, kind, _vocabulary(name, known[name])))
        return cls(tuple(columns), output, tuple(classes))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def texts(self) -> bool:
        """Whether texts go into the model as they are, so that its rows are not of floats alone."""
        return any(column.kind == "str" and column.categories is None for column in self.columns)

    @property
    def categorical(self) -> list[int]:
        """The indexes of the text columns."""
        return [index for index, column in enumerate(self.columns) if column.kind == "str"]

    def encode(self, values: Sequence[Any]) -> list[Any]:
        """One row of typed values, in the order of the columns, as the model's floats; a text without a vocabulary as itself, or None.

        Raises:
            InvalidInput: another number of values, or a value that is not of its column's kind.
        """
        try:
            return self._encoder()(values)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._refused(values) from error

    def encode_many(self, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Many rows; each is encoded as by `encode`."""
        encoder = self._encoder()
        try:
            return [encoder(row) for row in rows]
        except (TypeError, ValueError, OverflowError):
            return [self.encode(row) for row in rows]

    def _encoder(self) -> Callable[[Sequence[Any]], list[Any]]:
        made: Callable[[Sequence[Any]], list[Any]] | None = self.__dict__.get("_made")
        if made is None:
            made = self.__dict__["_made"] = _compile(self.columns)
        return made

    def _refused(self, values: Sequence[Any]) -> InvalidInput:
        if len(values) != len(self.columns):
            return InvalidInput(f"{len(values)} values came for {len(self.columns)} columns.", f"The columns are {', '.join(self.names)}.",
                                "Send one value for each, null where it is missing.")
        for column, value in zip(self.columns, values, strict=True):
            try:
                _compile((column,))([value])
            except (TypeError, ValueError, OverflowError):
                return InvalidInput(f"The column {column.name!r} got {value!r} ({type(value).__name__}).", f"It is {column.kind}.", "Send the declared type.")
        return InvalidInput(f"The row {values!r} can't be encoded.", "", "Send the declared types.")


def _vocabulary(name: str, categories: Sequence[str]) -> tuple[str, ...]:
    found = tuple(categories)
    if list(found) != sorted(set(found)):
        raise DefinitionError(f"The categories of {name!r} are not sorted and distinct.", "Their order is the meaning of the model's integers.",
                              "Sort them: sorted(set(values)).")
    return found


def _compile(columns: Sequence[Column]) -> Callable[[Sequence[Any]], list[Any]]:
    """A function of one expression per column, generated because it runs for each request: about 50 ns a column."""
    if not columns:
        return lambda values: [] if not values else _too_many()
    scope: dict[str, Any] = {"nan": _NAN, "float": float, "text": _text, "plain": _plain}
    parts = []
    for index, column in enumerate(columns):
        if column.kind == "str" and column.categories is None:
            parts.append(f"plain(v{index})")
        elif column.kind == "str":
            scope[f"c{index}"] = {category: float(code) for code, category in enumerate(column.categories or ())}
            parts.append(f"c{index}[v{index}] if v{index} in c{index} else text(v{index})")
        else:
            parts.append(f"nan if v{index} is None else v{index} * 1.0")
    names = ", ".join(f"v{index}" for index in range(len(columns)))
    exec(f"def encode(values):\n    {names}, = values\n    return [{', '.join(parts)}]\n", scope)
    return scope["encode"]  # type: ignore[no-any-return]


def _text(value: Any) -> float:
    if value is None or type(value) is str:
        return _NAN
    raise TypeError


def _plain(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    raise TypeError


def _too_many() -> list[float]:
    raise ValueError
