"""Which kind of database the tests run on: SQLite, or a PostgreSQL of their own with DAVY_TEST_DATABASE=postgres."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from davy.schema import open_database

if TYPE_CHECKING:
    from pathlib import Path

    from davy.store.database import Database

ON_POSTGRES = os.environ.get("DAVY_TEST_DATABASE", "sqlite") == "postgres"
# All tests run on both but these: they leave the database alone, or see to both kinds by themselves.
_ALONE = (
    "auth/test_attempts.py", "auth/test_credentials.py", "cli/test_output.py", "core", "demo/test_client.py", "demo/test_data.py", "demo/test_feed.py",
    "engines", "features/test_columns.py", "features/test_define.py", "features/test_expression.py", "features/test_expression_equal.py",
    "features/test_kernel.py", "features/test_parity.py", "features/test_ties.py", "monitoring/test_distributions.py", "monitoring/test_quantiles.py",
    "protocols/test_wire.py", "registry/test_reference.py", "registry/test_signature.py", "release/test_evidence.py", "release/test_kernels.py",
    "release/test_plan.py", "release/test_simulations.py", "schema/test_schema.py", "schema/test_upgrade.py", "search", "serving/test_assignment.py",
    "serving/test_requests.py", "store/test_lazy.py", "store/test_postgres.py", "store/test_postgres_lines.py", "store/test_tables.py",
    "store/test_tail.py", "store/test_wal.py", "test_import.py", "test_layers.py", "test_package.py", "test_sizes.py", "training/test_comparison.py",
    "training/test_parameters.py", "web/test_render.py",
)
# And these, which ask of a model's answers in worker after worker; the reports that come of it are kept as those of gate/test_run.py are.
_SLOW = ("gate/test_outputs.py", "gate/test_paired.py", "gate/test_planted.py", "gate/test_requests.py")
ONCE = (*_ALONE, *_SLOW)
_made: dict[Path, str] = {}


def write_settings(root: Path, text: str = "") -> None:
    """Write the project's davy.toml. Its database is the same however often that is done."""
    if ON_POSTGRES:
        if "[storage]\n" not in text:
            tables = re.search(r"^\[", text, re.M)
            at = tables.start() if tables else len(text)  # before them, so that a test can go on with the last one
            text = f"{text[:at]}\n[storage]\n{text[at:]}"
        text = text.replace("[storage]\n", f'[storage]\ndatabase = "{url_of(root / "davy.db")}"\n')
    (root / "davy.toml").write_text(text)


def url_of(path: Path, *, empty: bool = False) -> str:
    """A database that this path stands for, from its first mention on. In PostgreSQL it has our schema, unless it shall be `empty`."""
    if not ON_POSTGRES:
        return f"sqlite:///{path}"
    from postgres_kit import server

    if path not in _made:
        _made[path] = server().empty() if empty else server().fresh()
    return server().url(_made[path])


def open_at(path: Path) -> Database:
    """That database, open, with what belongs to it in the path's folder."""
    return open_database(url_of(path), folder=path.parent)


def drop_below(folder: Path) -> None:
    """Let go of the databases of a test that is over."""
    for path in [path for path in _made if path.is_relative_to(folder)]:
        from postgres_kit import server

        server().drop(_made.pop(path))
