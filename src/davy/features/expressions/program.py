"""A udf's program as a function from values to a value, checked on both ends. Only a process that may run a user's code loads one."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from davy.core.time import EPOCH, to_micros
from davy.errors import DavyError, DefinitionError, UdfFailed
from davy.features.definition import DerivedSpec
from davy.features.expressions.nodes import LARGEST, SMALLEST, Instruction, from_json


def load(spec: DerivedSpec) -> Callable[..., Any]:
    """The udf: it takes its inputs in order (times as aware datetimes, null as None) and returns the stored form of its kind.

    Raises:
        DefinitionError: its program can't be run. The function raises UdfFailed for an error or a value of another kind.
    """
    assert spec.program is not None
    namespace: dict[str, Any] = {"__name__": f"<udf {spec.name}>"}
    try:
        exec(compile(spec.program, f"<udf {spec.name}>", "exec", dont_inherit=True), namespace)
        function = namespace[spec.name]
    except Exception as error:
        raise DefinitionError(f"The program of the udf {spec.name!r} can't be run: {type(error).__name__}: {error}.", "It is kept with the version.",
                              "Train the model again with this Python.") from error
    times = [position for position, item in enumerate(inputs(spec)) if item.kind == "time"]
    lines = spec.program.splitlines()

    def udf(*values: Any) -> Any:
        given = list(values)
        for position in times:
            if given[position] is not None:
                given[position] = EPOCH + timedelta(microseconds=given[position])
        try:
            found = function(*given)
        except (Exception, SystemExit) as error:
            raise _raised(spec, lines, error) from error
        return None if found is None else _checked(spec, found)

    return udf


def inputs(spec: DerivedSpec) -> list[Instruction]:
    """What the udf takes, in order, with the kinds."""
    return [instruction for instruction in from_json(spec.expression) if instruction.operation == "input"]


def _raised(spec: DerivedSpec, lines: list[str], error: BaseException) -> UdfFailed:
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == f"<udf {spec.name}>" and frame.lineno]
    line = f" in {lines[(own[-1].lineno or 1) - 1].strip()!r}" if own else ""
    return UdfFailed(f"The udf {spec.name!r} raised {type(error).__name__}: {error}{line}.", "A udf answers every row; a missing value comes to it as None.",
                     "Return None where there is no value.")


def _checked(spec: DerivedSpec, found: Any) -> Any:
    kind = spec.kind
    if kind == "float" and type(found) in (int, float) and abs(found) < 2**1023 and math.isfinite(found):
        return float(found)
    if kind == "int" and type(found) is int and SMALLEST <= found <= LARGEST:
        return found
    if kind == "bool" and type(found) is bool:
        return found
    if kind == "str" and type(found) is str and _is_unicode(found):
        return found
    if kind == "time" and isinstance(found, datetime):
        try:
            return to_micros(found)
        except DavyError as error:
            raise UdfFailed(f"The udf {spec.name!r} returned {found!r}. {error.came}", error.allowed, error.fix) from None
    raise UdfFailed(f"The udf {spec.name!r} returned {_short(found)} ({type(found).__name__}), and it is declared {kind}.",
                    "An int has 64 bits, a float is finite, a text is Unicode, a time has a zone; None is null.",
                    "Convert the result, or declare the kind it has.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's object may raise anything when it is shown
        return "a value"
    return text if len(text) <= 80 else f"{text[:77]}..."
