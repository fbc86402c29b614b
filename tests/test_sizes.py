"""Files, functions, classes and interfaces stay small enough to read at one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [path for folder in ("src", "tests", "examples", "benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
CODE = [path for path in FILES if "tests" not in path.parts]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", CODE, ids=_name)
def test_a_function_has_at_most_60_lines_and_a_class_20_methods(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert _length(node) <= 60, f"{node.name} at line {node.lineno}"
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
            protocol = any(ast.unparse(base).split("[")[0] in ("Protocol", "typing.Protocol") for base in node.bases)
            assert len(methods) <= (8 if protocol else 20), f"{node.name} at line {node.lineno}"


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code: a docstring is documentation and doesn't count."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= (first.end_lineno or 0) - first.lineno + 1
    return total
