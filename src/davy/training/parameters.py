"""What `-p name=value` may say: the keyword arguments of the user's training function, typed by annotation or default."""

from __future__ import annotations

import ast
import inspect
import math
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from davy.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SEED = "seed"
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """`["a=1", "b=x=y"]` as `{"a": "1", "b": "x=y"}`.

    Raises:
        InvalidInput: no `=`, no name, or one name twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise InvalidInput(f"{text!r} is not a parameter.", "A parameter is NAME=VALUE.", "Write for example: -p learning_rate=0.05")
        if name in found:
            raise InvalidInput(f"The parameter {name!r} came twice.", "Each has one value.", "Remove one of the two.")
        found[name] = value
    return found


def bind_parameters(function: Callable[..., Any], given: Mapping[str, Any], *, seed: int | None = None) -> dict[str, Any]:
    """All keyword arguments for `function`, defaults included: what the run records and the function gets.

    Args:
        given: texts, as the command line has them, or values.
        seed: goes before the default of an argument `seed`, and after what `given` says; such an argument is always an int.

    Raises:
        InvalidInput: an unknown name, a value of another type, NaN, or a missing one; says which exist.
    """
    signature = inspect.signature(function)
    parameters = [parameter for parameter in list(signature.parameters.values())[1:] if parameter.kind in _NAMED]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    known = {parameter.name: parameter for parameter in parameters}
    types = _types(function)
    for name in given:
        if name not in known and not takes_any:
            raise InvalidInput(f"{function.__name__} has no parameter {name!r}.", f"It takes: {_listed(parameters, types)}.", _advice(name, known))
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        if name == SEED:
            values[name] = _seed(parameter, given, seed)
        elif name in given:
            values[name] = _value(name, given[name], types.get(name, _of_default(parameter)))
        elif parameter.default is not inspect.Parameter.empty:
            values[name] = parameter.default
        else:
            raise InvalidInput(f"{function.__name__} needs the parameter {name!r}, which has no default.", f"It takes: {_listed(parameters, types)}.",
                               f"Add -p {name}=VALUE, or give it a default.")
    return values | {name: _value(name, value, Any) for name, value in given.items() if name not in known}


def _seed(parameter: inspect.Parameter, given: Mapping[str, Any], seed: int | None) -> int:
    default = parameter.default if isinstance(parameter.default, int) else 0
    found = _value(SEED, given.get(SEED, default if seed is None else seed), int)
    return int(found)


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        # An annotation that only a type checker can resolve: the defaults say enough.
        return {}


def _of_default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    return Any if default is inspect.Parameter.empty or default is None else type(default)


def _value(name: str, value: Any, kind: Any) -> Any:
    try:
        converted = _guess(value) if kind is Any and isinstance(value, str) else _convert(value, kind)
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        raise InvalidInput(f"The parameter {name!r} got {value!r}.", f"It is {_spelled(kind)}.", f"Write for example: -p {name}={_example(kind)}") from error
    if isinstance(converted, float) and math.isnan(converted):
        raise InvalidInput(f"The parameter {name!r} got NaN.", "A parameter has a value.", "Leave it out to take its default.")
    return converted


def _convert(value: Any, kind: Any) -> Any:
    try:
        if not isinstance(value, str):
            return msgspec.convert(value, kind, strict=True)
        if value[:1] in ("[", "{"):
            return msgspec.json.decode(value, type=kind, strict=False)
        return msgspec.convert(value, kind, strict=False)
    except TypeError:
        # A type that has no text form, such as a callable: only a ready value can be meant.
        if isinstance(value, str) and kind is not str:
            raise ValueError(f"{kind} has no text form") from None
        return value


def _guess(text: str) -> Any:
    """An untyped text as the literal that it spells, or itself."""
    lowered = text.lower()
    if lowered in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(lowered)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError):
        return text


def _spelled(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _example(kind: Any) -> str:
    return {int: "3", float: "0.05", bool: "true"}.get(kind, "VALUE")


def _listed(parameters: list[inspect.Parameter], types: Mapping[str, Any]) -> str:
    shown = []
    for parameter in parameters:
        kind = types.get(parameter.name, _of_default(parameter))
        text = parameter.name if kind is Any else f"{parameter.name} ({_spelled(kind)})"
        shown.append(text if parameter.default is inspect.Parameter.empty else f"{text} = {parameter.default!r}")
    return ", ".join(shown) or "no parameters"


def _advice(name: str, known: Mapping[str, Any]) -> str:
    return f"{nearest(name, known)[0].upper()}{nearest(name, known)[1:]}" if known else "Leave it out, or add a keyword argument to the function."
