"""The row kernel: one plain Python function generated from all derived features of a model.

Equal subexpressions of all features are computed once, null checks are written out only where a value can be null.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from typing import Any, Protocol, cast

import tzdata  # type: ignore[import-untyped]

from davy.core.digest import digest_bytes, digest_json
from davy.errors import DefinitionError, nearest
from davy.features.definition import DerivedSpec
from davy.features.expressions.nodes import Instruction, from_json
from davy.features.expressions.operations import CHECKS, HELPERS, OPERATIONS, Call, Operand, nulls

FILES = ("nodes.py", "zones.py", "operations.py", "compiler.py", "program.py")


class Kernel(Protocol):
    """Values in the order of `inputs` -> derived values in the order of `names`; `source` is what runs.

    Raises:
        InvalidInput: an int beyond 64 bits; names the derived feature.
    """

    source: str
    inputs: tuple[str, ...]
    names: tuple[str, ...]

    def __call__(self, values: Sequence[Any], /) -> tuple[Any, ...]: ...


def compile_kernel(derived: Sequence[DerivedSpec], inputs: Sequence[str], *, udfs_here: bool = False) -> Kernel:
    """The kernel of these derived features, which may use one another in any order.

    Args:
        udfs_here: run udfs in this process. Otherwise a kernel with udfs asks a process of its own (see features/rows.py).

    Raises:
        DefinitionError: a cycle, a name that is neither an input nor derived, or a name that is both.
    """
    if not udfs_here and any(spec.program is not None for spec in derived):
        from davy.features.rows import RowsProcess

        return cast("Kernel", RowsProcess(derived, inputs))
    specs = {spec.name: spec for spec in derived}
    _check_names(derived, specs, inputs)
    writer = _Writer(inputs)
    for name in _ordered(specs):
        writer.feature(specs[name])
    source = writer.source([spec.name for spec in derived])
    namespace: dict[str, Any] = {**HELPERS, **writer.bound, "__builtins__": {}}
    exec(compile(source, "<derived features>", "exec"), namespace)
    kernel = namespace["kernel"]
    kernel.source, kernel.inputs, kernel.names = source, tuple(inputs), tuple(spec.name for spec in derived)
    return cast("Kernel", kernel)


@lru_cache(maxsize=1)
def kernel_digest() -> str:
    """The digest of everything beside a definition that can change a derived value.

    That is this package's code, Python, the C library whose mathematics it calls, the machine, and tzdata.
    """
    code = [digest_bytes(resources.files("davy.features.expressions").joinpath(name).read_bytes()) for name in FILES]
    python = [platform.python_implementation(), platform.python_version()]
    return digest_json([code, python, _libc(), platform.machine(), tzdata.__version__])


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return f"{platform.system()} {platform.release()}"


def _check_names(derived: Sequence[DerivedSpec], specs: dict[str, DerivedSpec], inputs: Sequence[str]) -> None:
    names = [*inputs, *(spec.name for spec in derived)]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"The name {name!r} is used twice.", "Inputs and derived features have different names.", "Rename one of them.")
    for spec in derived:
        for name in spec.inputs:
            if name not in specs and name not in inputs:
                raise unknown_argument(spec.name, name, names)


def unknown_argument(feature: str, name: str, known: Iterable[str]) -> DefinitionError:
    """The error for an argument that names nothing."""
    return DefinitionError(f"The derived feature {feature!r} takes {name!r}, which is no feature, request field or entity key here.",
                           nearest(name, [other for other in known if other != feature]),
                           "Name the arguments after the features that they are, or add the feature to the model.")


def _ordered(specs: dict[str, DerivedSpec]) -> list[str]:
    graph = {name: [used for used in spec.inputs if used in specs] for name, spec in specs.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise DefinitionError(f"Derived features use each other in a circle: {' -> '.join(error.args[1])}.",
                              "A derived feature may use others, but not itself, not even through others.", "Remove one of these arguments.") from None


class _Writer:
    """Writes the kernel's lines, feature by feature."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = list(inputs)
        self.used: dict[str, Operand] = {}
        self.results: dict[str, Operand] = {}
        self.operands: list[Operand] = []
        self.known: dict[tuple[Any, ...], int] = {}
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {}

    def feature(self, spec: DerivedSpec) -> None:
        """Writes what this feature needs and is not written yet."""
        if spec.program is not None:
            self.results[spec.name] = self._udf(spec)
            return
        places: list[int] = []
        for instruction in from_json(spec.expression):
            own = instruction._replace(operands=tuple(places[operand] for operand in instruction.operands))
            if own.key not in self.known:
                self.known[own.key] = len(self.operands)
                self.operands.append(self._write(own, spec.name))
            places.append(self.known[own.key])
        result = self.operands[places[-1]]
        if result.kind != spec.kind:
            raise DefinitionError(f"The derived feature {spec.name!r} is declared {spec.kind}, but its expression is {result.kind}.", "Both are equal.",
                                  "Trace the derived feature again.")
        self.results[spec.name] = result

    def source(self, names: Sequence[str]) -> str:
        """The whole function."""
        targets = [self.used[name].text if name in self.used else "_" for name in self.inputs]
        head = [f"{', '.join(targets)}, = values"] if targets else []
        head = [f"# {name!r}: {operand.text}" for name, operand in self.used.items()] + head
        result = "".join(f"{self.results[name].text}, " for name in names)
        body = [*head, *self.lines, f"return ({result})"]
        return "def kernel(values):\n" + "".join(f"    {line}\n" for line in body)

    def _udf(self, spec: DerivedSpec) -> Operand:
        from davy.features.expressions.program import inputs, load

        given = [self._input(instruction.parameter, instruction.kind, spec.name).text for instruction in inputs(spec)]
        result = Operand(f"t{len(self.operands)}", spec.kind, True)
        self.operands.append(result)
        self.lines.append(f"{result.text} = {self._bind('udf', load(spec))}({', '.join(given)})")
        return result

    def _write(self, instruction: Instruction, feature: str) -> Operand:
        operation, kind, places, parameter = instruction
        if operation == "input":
            return self._input(parameter, kind, feature)
        if operation == "literal":
            text = repr(parameter)
            return Operand(f"({text})" if text.startswith("-") else text, kind, parameter is None, parameter)
        write = OPERATIONS.get(operation)
        if write is None:
            raise DefinitionError(f"The derived feature {feature!r} uses the operation {operation!r}.", nearest(operation, OPERATIONS),
                                  "It was stored by another version of Davy: install that version, or trace the feature again.")
        operands = tuple(self.operands[place] for place in places)
        code = write(Call(operands, kind, parameter, self._bind))
        name = f"t{len(self.operands)}"
        empty = "" if code.nullable is not None else " or ".join(
            part for part in (nulls(tuple(operand for operand in operands if f"not {operand.text}" not in code.null_if)), *code.null_if) if part)
        check = [CHECKS[code.check].format(name, feature)] if code.check else []
        if not check:
            self.lines.append(f"{name} = None if {empty} else {code.value}" if empty else f"{name} = {code.value}")
        elif not empty:
            self.lines += [f"{name} = {code.value}", *check]
        else:
            self.lines += [f"if {empty}: {name} = None", "else:", f"    {name} = {code.value}", *(f"    {line}" for line in check)]
        return Operand(name, kind, code.nullable if code.nullable is not None else bool(empty) or code.check == "float")

    def _input(self, name: str, kind: str, feature: str) -> Operand:
        if name in self.results:
            if self.results[name].kind != kind:
                raise DefinitionError(f"The derived feature {feature!r} takes {name!r} as {kind}, but it is {self.results[name].kind}.",
                                      "Both were traced together.", "Trace the derived features again.")
            return self.results[name]
        if name not in self.inputs:
            raise unknown_argument(feature, name, [*self.inputs, *self.results])
        if name not in self.used:
            text = f"i{self.inputs.index(name)}"
            self.used[name] = Operand(text, kind, True)
            if kind == "float":
                self.lines.append(f"if {text} is not None and {text} - {text} != 0.0: {text} = None")
        return self.used[name]

    def _bind(self, name: str, value: Any) -> str:
        for known, bound in self.bound.items():
            if bound is value:
                return known
        name = f"{name}_{len(self.bound)}"
        self.bound[name] = value
        return name
