"""A join whose order is fixed: the left table is walked, the right one looked up.

SQLite takes CROSS JOIN as that order; PostgreSQL's planner has statistics and is left to choose.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.selectable import Join


class Walked(Join):
    """`left CROSS JOIN right ON ...`, where the left side is a table, or a subquery of one."""

    inherit_cache = True


@compiles(Walked, "sqlite")
def _cross(join: Walked, compiler: Any, **given: Any) -> str:
    return str(compiler.visit_join(join, **given)).replace(" JOIN ", " CROSS JOIN ", 1)


@compiles(Walked)
def _plain(join: Walked, compiler: Any, **given: Any) -> str:
    return str(compiler.visit_join(join, **given))
