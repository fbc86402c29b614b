"""Calls of what users declare with: an argument that is missing, misspelt or no list is told in a sentence, as Python's own words are not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from davy.errors import DefinitionError, nearest

_P = ParamSpec("_P")
_R = TypeVar("_R")


def checked_call(what: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function so that a call which doesn't fit its signature is a `DefinitionError` about `what`."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError:
                raise _misfit(what, signature, args, kwargs) from None
            return function(*args, **kwargs)

        return call

    return decorate


def _misfit(what: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DefinitionError:
    known = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    takes = f"It takes {', '.join(item.name + '=' * (item.kind is not item.POSITIONAL_OR_KEYWORD) for item in known)}."
    given = len(args) - ("self" in signature.parameters)
    placed = [item.name for item in known if item.kind is item.POSITIONAL_OR_KEYWORD]
    for name in kwargs:
        if name not in signature.parameters:
            return DefinitionError(f"{what} has no argument {name!r}.", nearest(name, (item.name for item in known)), "Correct the name, or remove it.")
    if given > len(placed):
        return DefinitionError(f"{what} got {given} arguments without a name.", takes, "Name them, as in name=value.")
    for name in placed[:given]:
        if name in kwargs:
            return DefinitionError(f"{what} got {name!r} twice.", takes, "Remove one.")
    missing = [item.name for item in known if item.default is item.empty and item.name not in kwargs and item.name not in placed[:given]]
    return DefinitionError(f"{what} lacks {', '.join(f'{name}=' for name in missing)}.", takes, f"Add {missing[0]}=...")


def as_list(argument: str, value: Any) -> tuple[Any, ...]:
    """The members of an argument that is a list.

    Raises:
        DefinitionError: a text or a single thing.
    """
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return tuple(value)
    shown = getattr(value, "__name__", None) or (value.name if hasattr(value, "name") else repr(value))
    raise DefinitionError(f"{argument}={shown} is not a list.", f"{argument} takes a list, also of one.", f"Write {argument}=[{shown}].")
