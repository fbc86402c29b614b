"""What a udf is made of: its source and all that it names, as one program that can be kept, digested, and run without the user's files.

A udf may use arguments, builtins, constants and functions of its own file, and those modules of the standard library
whose functions depend on their arguments alone. That is what the kernel's digest covers; anything else is refused.
"""

from __future__ import annotations

import builtins
import dis
import importlib
import inspect
import math
import sys
import textwrap
import types
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from davy.core.fields import Kind, Time, make_field
from davy.errors import DavyError, DefinitionError
from davy.features.definition import DerivedSpec
from davy.features.expressions.compiler import unknown_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HEAD = "from __future__ import annotations\n"
IMPURE = {
    "asyncio", "builtins", "concurrent", "ctypes", "ftplib", "getpass", "glob", "http", "importlib", "inspect", "io", "locale", "mmap", "multiprocessing",
    "os", "pathlib", "platform", "random", "secrets", "select", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "zoneinfo"}
BARRED = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "id", "input", "locals", "open", "print", "vars"}
LARGEST = 1_000_000
CLOCKS = {"now", "today", "utcnow"}
_RULE = "It may use its arguments, builtins, constants and functions of its own file, and the standard library's pure modules."


def udf_source(function: Callable[..., Any]) -> str:
    """The text of the function, without decorators.

    Raises:
        DefinitionError: not a plain function at the top of a file, or its text isn't there or isn't what runs.
    """
    import ast

    name = getattr(function, "__name__", repr(function))
    if not isinstance(function, types.FunctionType) or name == "<lambda>" or function.__closure__:
        raise DefinitionError(f"The udf {name!r} is {function!r}.", "A udf is a plain function at the top of a file.", "Write it with def, outside of others.")
    if function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise DefinitionError(f"The udf {name!r} is a generator or a coroutine.", "A udf returns one value.", "Write it with def and return.")
    try:
        lines, _ = inspect.findsource(function)
        text = textwrap.dedent(inspect.getsource(function))
        node = ast.parse(text).body[0]
        codes = _codes(compile("".join(lines), "<udf>", "exec", dont_inherit=True))
    except (OSError, SyntaxError, IndexError):
        raise DefinitionError(f"The source of the udf {name!r} can't be read.", "Its text is kept with the version.", "Write it in a file.") from None
    if not isinstance(node, ast.FunctionDef) or not any(_same(code, function.__code__) for code in codes):
        raise DefinitionError(f"The text of the udf's function {name!r} is not what runs.", "Its source is kept with the version.",
                              "Save the file and load it again; use no other decorator.")
    return "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]) + "\n"


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether both are compiled from one text: a file may have been edited since it was loaded."""
    def parts(code: types.CodeType) -> tuple[Any, ...]:
        plain = [repr(constant) for constant in code.co_consts if not isinstance(constant, types.CodeType)]
        return code.co_name, code.co_firstlineno, code.co_code, code.co_names, code.co_varnames, plain

    return parts(one) == parts(other)


def udf_spec(name: str, function: types.FunctionType, source: str, kind: Any, kinds: Mapping[str, Kind]) -> DerivedSpec:
    """The udf as data: its inputs with their kinds, its result's kind, and its program.

    Args:
        kind: the result's type, or None to take it from the return annotation.
        kinds: of everything that an argument may name.

    Raises:
        DefinitionError: an argument that names nothing, no kind, or code that names what can't travel.
    """
    inputs: list[list[Any]] = []
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or argument.default is not inspect.Parameter.empty:
            raise DefinitionError(f"The udf {name!r} takes {argument}.", "Each argument names one feature, request field or entity key, without a default.",
                                  "Write the arguments out, and constants into the function.")
        if argument.name not in kinds or argument.name == name:
            raise unknown_argument(name, argument.name, kinds)
        inputs.append(["input", "float" if kinds[argument.name] == "decimal" else kinds[argument.name], [], argument.name])
    if not inputs:
        raise DefinitionError(f"The udf {name!r} takes no feature.", "It is a function of features and request fields.", "Name them as its arguments.")
    program = _Program(name)
    program.function(function, source)
    text = program.text()
    if len(text) > LARGEST:
        raise DefinitionError(f"The udf {name!r} and what it names are {len(text):,} characters.",
                              f"A program has at most {LARGEST:,}: it is kept with each version.", "Make a large table a stream, and look it up with agg.last.")
    result = _result_kind(name, function, kind)
    return DerivedSpec(name, tuple(item[3] for item in inputs), [*inputs, ["udf", result, list(range(len(inputs))), None]], result, text)


def _result_kind(name: str, function: Callable[..., Any], declared: Any) -> Kind:
    if declared is None:
        try:
            declared = inspect.get_annotations(function, eval_str=True).get("return")
        except Exception as error:  # noqa: BLE001 - an annotation is any expression of the user's
            raise DefinitionError(f"The udf {name!r} has an annotation that can't be read: {error}.", "",
                                  "Say the result's type: @davy.udf(kind=float)") from None
    if get_origin(declared) in (Union, types.UnionType):
        rest = [part for part in get_args(declared) if part is not type(None)]
        declared = rest[0] if len(rest) == 1 else declared
    if declared is None:
        raise DefinitionError(f"The udf {name!r} does not say what it returns.", "Its kind is int, float, str, bool or davy.Time.",
                              f"Annotate it, as in def {name}(...) -> float, or write @davy.udf(kind=float).")
    try:
        kind = make_field("result", Time if declared is datetime else declared).kind
    except DavyError:
        raise DefinitionError(f"The udf {name!r} returns {declared!r}.", "Its kind is int, float, str, bool or davy.Time; None stands for null beside it.",
                              f"Annotate it, as in def {name}(...) -> float.") from None
    return "float" if kind == "decimal" else kind


class _Program:
    """The source of a udf with everything that it names, each once."""

    def __init__(self, udf: str) -> None:
        self.udf = udf
        self.named: dict[str, tuple[Any, str]] = {}

    def text(self) -> str:
        """Imports and constants first, then the functions, each sorted by name: the order in which they were met means nothing."""
        texts = [text for _, text in self.named.values()]
        functions = sorted(text for text in texts if text.startswith("def "))
        return HEAD + "".join([*sorted(text for text in texts if not text.startswith("def ")), *functions])

    def function(self, function: types.FunctionType, source: str) -> None:
        """Add a function and what it names."""
        self.named[function.__name__] = function, source
        for name in _names(self.udf, function.__code__):
            if name in function.__globals__:
                self._name(name, function.__globals__[name], function)
            elif not hasattr(builtins, name):
                raise self._refused(name, "which is not defined", "Correct the name, or define it in the same file.")
            elif name in BARRED:
                raise self._refused(name, "which reaches beyond its arguments", "Pass what it needs as an argument.")

    def _name(self, name: str, value: Any, user: types.FunctionType) -> None:
        if name in self.named:
            if self.named[name][0] is not value:
                raise self._refused(name, "which means two things", "Give them names of their own.")
            return
        if isinstance(value, types.FunctionType) and value.__globals__ is user.__globals__ and value.__name__ == name:
            self.function(value, udf_source(value))
            return
        self.named[name] = value, self._statement(name, value)

    def _statement(self, name: str, value: Any) -> str:
        if isinstance(value, types.ModuleType):
            _check_module(self.udf, value.__name__)
            return f"import {value.__name__} as {name}\n"
        home, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        if isinstance(home, str) and callable(value) and home.partition(".")[0] in sys.stdlib_module_names:
            _check_module(self.udf, home)
            if getattr(importlib.import_module(home), attribute, None) is value:
                return f"from {home} import {attribute} as {name}\n"
        text = _literal(value)
        if text is None:
            raise self._refused(name, f"a {type(value).__name__}, which can't be kept with the version",
                                "Take a derived feature or a udf as an argument; write helpers as plain functions in the same file.")
        return f"{name} = {text}\n"

    def _refused(self, name: str, why: str, fix: str) -> DefinitionError:
        return DefinitionError(f"The udf {self.udf!r} uses {name!r}, {why}.", _RULE, fix)


def _names(udf: str, code: types.CodeType) -> Iterator[str]:
    """The global names that this code and all within it read. What it imports itself is checked on the way."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            raise DefinitionError(f"The udf {udf!r} changes the global {instruction.argval!r}.", "Its result depends on its arguments alone.",
                                  "Keep what it needs in local names.")
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval in CLOCKS:
            raise DefinitionError(f"The udf {udf!r} asks for {instruction.argval!r}, the time at which it runs.", "Its result depends on its arguments alone.",
                                  "Take a time of the request as an argument.")
        if instruction.opname == "IMPORT_NAME":
            _check_module(udf, instruction.argval)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(udf, constant)


def _check_module(udf: str, module: str) -> None:
    top = module.partition(".")[0].lstrip("_") or module
    if top in IMPURE or (top not in sys.stdlib_module_names and module.partition(".")[0] not in sys.stdlib_module_names):
        fix = "Compute it elsewhere, and pass it as an argument."
        if top == "zoneinfo":
            fix = "Calendars with zones are for derived features, which take them from tzdata."
        raise DefinitionError(f"The udf {udf!r} uses the module {module!r}.", _RULE, fix)


def _literal(value: Any) -> str | None:
    """A plain value as source, None when it isn't one. Sets are sorted, so that one value has one text."""
    if value is None or type(value) in (bool, int, str, bytes):
        return repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if type(value) is dict:
        pairs = [(_literal(key), _literal(item)) for key, item in value.items()]
        return None if any(None in pair for pair in pairs) else "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    if type(value) in (tuple, list, set, frozenset):
        parts = [_literal(item) for item in value]
        if None in parts:
            return None
        texts = [part for part in parts if part is not None]
        inside = ", ".join(sorted(texts) if isinstance(value, (set, frozenset)) else texts)
        shapes: dict[Any, str] = {tuple: "({},)" if len(texts) == 1 else "({})", list: "[{}]", set: "set([{}])", frozenset: "frozenset([{}])"}
        return shapes[type(value)].format(inside)
    return None
