"""Where KPIs come from: whoever joins outcomes with predictions gives observations to the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from davy.home import Home
    from davy.release.evidence import Observation


class Source(Protocol):
    """Gives the KPIs of a release's predictions, each once."""

    def observations(self, model: str, release: str, cursor: str) -> tuple[list[Observation], str]:
        """Those that became known since the cursor, and the next cursor.

        The empty cursor means from the release's beginning: a controller that starts anew asks for all again, and the answers must be the
        same, in an order that does not depend on when it is asked. A KPI that is corrected later is not given a second time.
        """
        ...


def sources(home: Home) -> list[Source]:
    """All sources of this home."""
    return []
