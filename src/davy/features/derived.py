"""Derived features: functions of features and request fields, traced (`derive`) or kept as plain Python (`udf`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, cast, overload

from davy.core.fields import Kind
from davy.features.definition import DerivedSpec


class Derived:
    """A function of features and request fields; its name is the feature's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.inputs = tuple(inspect.signature(function).parameters)
        self.__doc__ = function.__doc__

    def spec(self, kinds: Mapping[str, Kind]) -> DerivedSpec:
        """This feature as data, given the kinds of everything that its arguments may name."""
        from davy.features.expression import trace

        return trace(self.name, self.function, {name: kinds[name] for name in self.inputs})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as in a unit test."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"derived feature {self.name!r}"


class Udf(Derived):
    """A derived feature that can't be traced: plain Python, kept as its source and run row by row."""

    def __init__(self, function: Callable[..., Any], kind: Any = None) -> None:
        from davy.features.udf import udf_source

        self.source = udf_source(function)
        super().__init__(function)
        self.kind = kind

    def spec(self, kinds: Mapping[str, Kind]) -> DerivedSpec:
        """This feature as data: its program holds the function with all that it names."""
        from davy.features.udf import udf_spec

        return udf_spec(self.name, cast("FunctionType", self.function), self.source, self.kind, {name: kinds[name] for name in self.inputs})

    def __repr__(self) -> str:
        return f"udf {self.name!r}"


def derive(function: Callable[..., Any]) -> Derived:
    """Declare a derived feature: the function is traced once into an expression, and its arguments name features or request fields."""
    return Derived(function)


@overload
def udf(function: Callable[..., Any]) -> Udf: ...
@overload
def udf(*, kind: Any) -> Callable[[Callable[..., Any]], Udf]: ...
def udf(function: Callable[..., Any] | None = None, *, kind: Any = None) -> Any:
    """Declare a derived feature that can't be traced: a plain, pure function of one row's values. A missing value comes as None.

    Its source is kept with each version that is trained on it. It runs row by row, in training and in serving, in a process of its own.

    Args:
        kind: what it returns (int, float, str, bool or davy.Time), when its annotation doesn't say so.

    Raises:
        DefinitionError: not a plain function at the top of a file.
    """
    return Udf(function, kind) if function is not None else lambda wrapped: Udf(wrapped, kind)
