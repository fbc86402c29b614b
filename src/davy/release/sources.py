"""Where KPIs come from: whoever joins outcomes with predictions gives observations to the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from davy.monitoring.definitions import Definitions
from davy.monitoring.kpis import kpi_events
from davy.release.evidence import Observation
from davy.release.releases import get_release

if TYPE_CHECKING:
    from davy.home import Home
    from davy.store.tables import Table

SLACK = 60_000_000


class Source(Protocol):
    """Gives the KPIs of a release's predictions, each once."""

    def observations(self, model: str, release: str, cursor: str) -> tuple[list[Observation], str]:
        """Those that became known since the cursor, and the next cursor.

        The empty cursor means from the release's beginning: a controller that starts anew asks for all again, and the answers must be the
        same, in an order that does not depend on when it is asked. A KPI that is corrected later is not given a second time.
        """
        ...


class Outcomes:
    """The KPIs that the project's models list and `[release.kpis]` names, from the outcomes as they come.

    The first outcome of a prediction counts. The cursor is the offset of the last outcome taken.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._definitions = home, Definitions(home)
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}
        self._tables: dict[str, Table] = {}

    def observations(self, model: str, release: str, cursor: str) -> tuple[list[Observation], str]:
        """See `Source`. Between two commits of outcomes there is nothing to look for, and asking costs little."""
        named = self._home.config.release.kpis
        if not named:
            return [], cursor
        version = self._tables.setdefault(model, self._home.table(f"outcomes/{model}")).version()
        if self._seen.get((model, release)) == (cursor, version):
            return [], cursor
        definition = self._definitions.get(model)
        found, reached = list[Observation](), int(cursor or 0)
        if definition is not None:
            kpis = [kpi for kpi in definition.kpis if kpi.name in named]
            for event in kpi_events(self._home, definition, kpis, after=reached, start=self._began(release), release=release):
                value = float(event.bad) if named[event.kpi].kind == "event" else event.value
                found.append(Observation(event.kpi, release, event.version, event.share, event.routing_key, event.logged, value))
                reached = max(reached, event.offset)
        after = str(reached)
        self._seen[model, release] = after, version
        return found, after

    def _began(self, release: str) -> int:
        with self._home.database.read() as connection:
            return get_release(connection, release).created - SLACK


def sources(home: Home) -> list[Source]:
    """All sources of this home."""
    return [Outcomes(home)]
