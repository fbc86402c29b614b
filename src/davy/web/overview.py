"""What is live, and is it well? The first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.monitoring.summary import alert_states
from davy.registry.models import list_models
from davy.release.releases import get_release
from davy.release.status import live as live_versions
from davy.release.status import told
from davy.store.journal import entries
from davy.tracking.records import telling_metrics
from davy.tracking.search import search_runs
from davy.web.alerts import grouped
from davy.web.health import health, unknown
from davy.web.render import page
from davy.web.streams import watermarks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.web.watched import Watched

RECENT, SHOWN_METRICS = 5, 3
ALERTS = 4


def overview(watched: Watched, request: Request) -> Response:
    """`/`: firing alerts, live versions with weights and health, streams with watermarks, the newest runs and changes."""
    home = watched.home
    with home.database.read() as connection:
        rows = live_versions(connection)
        releases = {row["release"]: told(get_release(connection, row["release"])) for row in rows if row["release"]}
        models = list_models(connection)
        changes = entries(connection, limit=RECENT)
        newest = search_runs(connection, limit=RECENT).runs
    serving = {row["model"] for row in rows}
    summaries = {name: watched.summary(name) for name in sorted(serving)}
    well = {name: health(home, found) for name, found in summaries.items()}
    for row in rows:
        row["health"] = well[row["model"]].get(row["version"], unknown())
        row["told"] = releases.get(row["release"])
        row |= {"summary": summaries[row["model"]], "verdict": _verdict(row["told"])}
    live = sorted(rows, key=lambda row: (row["model"], -row["weight"], row["version"]))
    return page(request, "overview.html", project=home.config.project, now=home.clock.now(), live=live,
                idle=[model for model in models if model.name not in serving],
                streams=watermarks(home), changes=changes, runs=newest, alerts=grouped(alert_states(home)), shown=ALERTS, answer=_answer(live),
                main_metric=telling_metrics(newest, SHOWN_METRICS))


def _verdict(release: dict[str, Any] | None) -> str:
    """What a release's evidence says by now, over all its metrics."""
    verdicts = {row["verdict"] for row in release["metrics"]} if release else set()
    if "worse" in verdicts:
        return "harm is shown"
    return "no harm, on every metric" if verdicts == {"fine"} else "not enough data yet"


def _answer(live: list[dict[str, Any]]) -> tuple[str, str]:
    """The page's question, answered in a word and its tone."""
    tones = [row["health"].tone for row in live]
    if "bad" in tones:
        return "not all is well", "bad"
    return ("it answers, but look closer", "wait") if "wait" in tones else ("and it is well", "good")
