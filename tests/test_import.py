"""Importing costs nothing: no heavy library, and little more time than starting Python."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = {"numpy", "polars", "duckdb", "deltalake", "sqlalchemy", "alembic", "lightgbm", "sklearn", "scipy", "starlette", "granian", "rich", "jinja2", "pandas",
         "pyarrow", "matplotlib", "obstore", "lmdb"}


def _modules(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{program}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("program", [
    "import davy",
    "import davy; davy.errors.DavyError",
    "import davy; davy.Time",
    "import davy.config, davy.home",
    "from davy.cli.main import run; run(['--help'])",
    "from davy.cli.main import run; run(['version', '--json'])",
])
def test_no_heavy_library_is_imported(program: str) -> None:
    assert not _modules(program) & HEAVY


DEFINES = """
import davy
from davy import agg

events = davy.Stream("events", time="t", fields={"k": str, "x": float})

class Recent(davy.View):
    stream, entity = events, "k"
    n = agg.count(window="1h")
    mean = agg.mean("x", window="7d")

@davy.derive
def twice(n):
    return n * 2
"""


def test_writing_definitions_needs_no_heavy_library() -> None:
    assert not _modules(DEFINES) & (HEAVY - {"numpy"})


def _best(program: str, tries: int = 7) -> float:
    took = []
    for _ in range(tries):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        took.append(time.perf_counter() - began)
    return min(took)


def test_importing_costs_about_as_much_as_starting_python() -> None:
    bare = _best("pass")
    assert _best("import davy") < 4 * bare
    assert _best("from davy.cli.main import run") < 12 * bare


def test_every_public_name_is_there() -> None:
    import davy

    for name in davy.__all__:
        assert getattr(davy, name) is not None
    assert set(davy.__all__) <= set(dir(davy))
    with pytest.raises(AttributeError, match="no attribute 'Straem'"):
        _ = davy.Straem
