"""Tracing: the function is called once with symbols, and what comes back is the expression."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any, cast

from davy.core.fields import Kind
from davy.errors import DavyError, DefinitionError
from davy.features.definition import DerivedSpec
from davy.features.expressions.compiler import unknown_argument
from davy.features.expressions.nodes import Node, ours, place, to_json
from davy.features.expressions.symbols import Symbol


def trace(name: str, function: Callable[..., Any], kinds: Mapping[str, Kind]) -> DerivedSpec:
    """The derived feature that this function defines; its arguments name features, request fields or entity keys.

    A decimal is a float here. An argument with a default that names nothing keeps the default.

    Raises:
        DefinitionError: an unknown argument, operands whose kinds don't go together, or Python that needs a value while there is none.
    """
    symbols: dict[str, Any] = {}
    for argument in _arguments(name, function):
        if argument.name in kinds and argument.name != name:
            kind = "float" if kinds[argument.name] == "decimal" else kinds[argument.name]
            symbols[argument.name] = Symbol(Node("input", kind, (), argument.name))
        elif argument.default is inspect.Parameter.empty:
            raise unknown_argument(name, argument.name, kinds)
    if not symbols:
        raise DefinitionError(f"The derived feature {name!r} takes no feature.", "It is a function of features and request fields.",
                              "Name them as its arguments.")
    result = _called(name, function, symbols)
    if not isinstance(result, Symbol):
        raise DefinitionError(f"The derived feature {name!r} returned {result!r} ({type(result).__name__}).",
                              "It returns an expression of its arguments.", "Check that every path ends with return and an expression.")
    expression = to_json(result.node)
    for operation, _, _, parameter in expression:
        if operation == "input" and parameter not in symbols:
            raise unknown_argument(name, parameter, symbols)
    return DerivedSpec(name, tuple(symbols), expression, cast("Kind", result.node.kind))


def _called(name: str, function: Callable[..., Any], symbols: dict[str, Any]) -> Any:
    try:
        return function(**symbols)
    except DavyError:
        raise
    except Exception as error:  # the user's function may raise anything
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not ours(frame.filename)]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (name, 0)
        for frame in frames:  # a library's line says nothing about the user's
            if frame.filename == inspect.unwrap(function).__code__.co_filename:
                file, line = frame.filename, frame.lineno
        raise DefinitionError(f"{place(file, line)}: the derived feature {name!r} failed: {type(error).__name__}: {error}.",
                              "It is called once, with symbols for its arguments: operators and davy's functions (davy.log, davy.when, ...) take them.",
                              "Mend the line. What can't be written so is @davy.udf.") from error


def _arguments(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise DefinitionError(f"The derived feature {name!r} is {function!r}.", "It is a Python function whose arguments can be read.",
                              "Write it with def or lambda.") from None
    for argument in arguments:
        if argument.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise DefinitionError(f"The derived feature {name!r} takes {argument}.", "Each argument names one feature, request field or entity key.",
                                  "Write the arguments out, without *, ** and /.")
    return arguments
