"""Who may import whom, and where time, randomness and traffic come from. No exemptions."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "davy"
FILES = sorted(ROOT.rglob("*.py"))
NAMES = {".".join(("davy", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES}

# An import goes to the same row or to one above it.
LAYERS = (
    ("code", "errors", "core"),
    ("config",),
    ("store",),
    ("search",),
    ("schema",),
    ("engines", "events", "features", "home", "project"),
    ("auth",),
    ("registry", "tracking"),
    ("serving", "training"),
    ("monitoring",),
    ("gate",),
    ("release", "api", "importing"),
    ("protocols", "web"),
    ("server",),
    ("demo",),
    ("__main__", "cli"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ML_WORDS = {"model", "models", "feature", "features", "training", "prediction", "predictions", "experiment", "experiments", "entity", "label", "labels"}
CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "os.urandom", "os.getrandom"}
SEEDED = {"random.Random", "random.default_rng"}
SEEDING = {*SEEDED, "random.seed", "random.getstate", "random.setstate"}


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(tree: ast.AST, *, typing: bool) -> set[str]:
    found: set[str] = set()
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import at line {child.lineno}"
            module = child.module or ""
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in NAMES else module for alias in child.names}
        elif typing or not _is_typing(child):
            found |= _imports(child, typing=typing)
    return found


@cache
def imports(name: str, typing: bool = False) -> frozenset[str]:
    """The modules that a module imports anywhere, also inside functions."""
    return frozenset(_imports(ast.parse(NAMES[name].read_text()), typing=typing))


def reached(start: str) -> set[str]:
    """Every module of ours that running `start` may import, however indirectly."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen and name in NAMES and name != "davy":
            seen.add(name)
            waiting += imports(name)
    return seen


def below(prefix: str) -> list[str]:
    return [name for name in NAMES if name == prefix or name.startswith(f"{prefix}.")]


def package(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", below("davy.core"))
def test_core_stands_on_the_standard_library_and_msgspec(name: str) -> None:
    for found in imports(name, typing=True):
        root = found.split(".")[0]
        assert root in sys.stdlib_module_names or root == "msgspec" or found.startswith("davy.core") or found == "davy.errors", found


@pytest.mark.parametrize("name", below("davy.store"))
def test_store_knows_no_ml_word(name: str) -> None:
    words = {word for node in ast.walk(ast.parse(NAMES[name].read_text())) for text in _identifiers(node) for word in re.findall(r"[a-z]+", text.lower())}
    assert not words & ML_WORDS


def _identifiers(node: ast.AST) -> list[str]:
    return [value for field in ("id", "attr", "name", "arg") if isinstance(value := getattr(node, field, None), str)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "davy"])
def test_imports_go_up_the_layers_only(name: str) -> None:
    assert package(name) in LEVEL, f"name the layer of {name} in this test"
    for found in imports(name, typing=True):
        if package(found) and found.startswith("davy."):
            assert LEVEL[package(found)] <= LEVEL[package(name)], f"{name} imports {found}"


@pytest.mark.parametrize("name", below("davy.serving"))
def test_serving_reaches_neither_training_nor_monitoring_nor_release_nor_an_offline_engine(name: str) -> None:
    forbidden = ("davy.training", "davy.monitoring", "davy.release", "davy.engines.offline")
    assert not [found for found in reached(name) if found.startswith(forbidden)]


def test_nobody_imports_the_command_line_and_only_the_server_the_pages() -> None:
    for name in NAMES:
        for found in imports(name, typing=True):
            assert not found.startswith("davy.cli") or package(name) in {"cli", "__main__"}, f"{name} imports {found}"
            assert not found.startswith("davy.web") or package(name) in {"web", "server"}, f"{name} imports {found}"


def test_the_library_does_not_lean_on_its_own_front() -> None:
    for name in NAMES:
        if name != "davy":
            tree = ast.parse(NAMES[name].read_text())
            taken = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "davy" for alias in node.names]
            assert all(f"davy.{alias}" in NAMES or alias == "__version__" for alias in taken), name


@pytest.mark.parametrize("name", [name for name in NAMES if name != "davy.core.clock"])
def test_time_and_randomness_come_from_the_clock(name: str) -> None:
    tree = ast.parse(NAMES[name].read_text())
    assert not imports(name) & {"secrets", "uuid"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ".".join(ast.unparse(node.func).split(".")[-2:])
            drawn = called in CLOCK or (called in SEEDED and not node.args) or (called.startswith("random.") and called not in SEEDING)
            assert not drawn, f"{name}:{node.lineno} calls {called}"


@pytest.mark.parametrize("name", [name for name in NAMES if package(name) not in {"release", "schema"}])
def test_only_release_moves_traffic(name: str) -> None:
    for node in ast.walk(ast.parse(NAMES[name].read_text())):
        if isinstance(node, ast.Call):
            text = ast.unparse(node)
            assert not re.match(r"(.*\.)?(insert|update|delete)\(([a-z_.]*\.)?traffic\)", text), f"{name}:{node.lineno}"
            assert not re.match(r"([a-z_.]*\.)?traffic\.(insert|update|delete)\(", text), f"{name}:{node.lineno}"
            assert "INSERT INTO traffic" not in text
            assert "UPDATE traffic" not in text
