"""`davy status`: what is live, and how the releases stand. Each part is a function; a new part is one more line in `PARTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from davy.cli import open_home
from davy.cli.output import print_json, table, when

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home
    from davy.monitoring.summary import Summary

MOST_DRIFTS = 5


@click.command
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: live, releases, health.")
def command(model: str | None, as_json: bool) -> None:
    """What is live, of MODEL or of all, how its releases stand (their state, the evidence beside its limits, and what is still needed), and
    whether it is well: errors, latency, drift, what answers were worth.

    Evidence is told as natural logarithms of e-values: harm ends a release when it reaches its limit, and a canary is promoted when
    every metric's harmlessness has reached its own.
    """
    home = open_home()
    try:
        if model is not None:
            _check(home, model)
        found = {name: gather(home, model) for name, gather, _ in PARTS}
    finally:
        home.close()
    if as_json:
        print_json(found)
        return
    for index, (name, _, tell) in enumerate(PARTS):
        if index:
            print()
        tell(found[name])


def _check(home: Home, model: str) -> None:
    from davy.registry.models import resolve

    with home.database.read() as connection:
        resolve(connection, model)


def _live(home: Home, model: str | None) -> Any:
    from davy.release.status import live

    with home.database.read() as connection:
        return live(connection, model)


def _tell_live(rows: Any) -> None:
    table([{"version": f"{row['model']}@{row['version']}", "arm": row["arm"], "weight": row["weight"], "since": when(row["since"]), "by": row["by"]}
           for row in rows], empty="No version takes traffic. Release one: davy release MODEL@VERSION")


def _releases(home: Home, model: str | None) -> Any:
    from davy.release.status import releases

    with home.database.read() as connection:
        return releases(connection, model)


def _tell_releases(found: Any) -> None:
    if not found:
        print("No release yet. Begin one: davy release MODEL@VERSION")
    for index, release in enumerate(found):
        if index:
            print()
        tell_release(release)


def tell_release(release: dict[str, Any]) -> None:
    """One release for people."""
    weights = ", ".join(f"{reference} {weight:.4g}" for reference, weight in release["weights"].items())
    print(f"release of {release['model']}@{release['version']} ({release['strategy']}): {release['state']}, since {when(release['updated'])}, {weights}")
    for reason in release["reasons"]:
        print(f"  {reason}")
    asked = release["requests"]
    if release["metrics"]:
        print(f"  {asked['stable']:,} requests of stable, {asked['canary']:,} of the canary, {asked['shadow']:,} of the shadow; "
              f"sample ratio ln E {release['sample_ratio']['ln_e']:.2f} of {release['sample_ratio']['limit']:.2f}")
        table([{"metric": row["metric"], "verdict": row["verdict"], "stable": _rate(row["stable"]), "canary": _rate(row["canary"]),
                "harm": _against(row["harm"]), "harmless": _against(row["harmless"]),
                "needed": "none suffices" if row["needed_requests"] is None else f"{row['needed_requests']:,} requests"} for row in release["metrics"]])


def _rate(arm: dict[str, Any]) -> str:
    return f"{arm['bad']:g} of {arm['of']:,}"


def _against(evidence: dict[str, float]) -> str:
    return f"{evidence['ln_e']:.2f} of {evidence['limit']:.2f}"


def _health(home: Home, model: str | None) -> Any:
    from davy.errors import DavyError
    from davy.monitoring.definitions import Definitions
    from davy.monitoring.summary import summary
    from davy.registry.models import list_models

    with home.database.read() as connection:
        names = [found.name for found in list_models(connection) if model in (None, found.name)]
    definitions, found = Definitions(home), []
    for name in names:
        try:
            definition = definitions.get(name)
        except DavyError:  # a project that is being edited has its traffic all the same
            definition = None
        found.append(summary(home, name, definition=definition))
    return [health for health in found if health.until is not None]


def _tell_health(found: list[Summary]) -> None:
    if not found:
        print("Nothing has been answered yet.")
    for health in found:
        judged = {one.version: one for one in health.performance}
        rows = []
        for flow in health.traffic:
            own = judged.get(flow.version)
            worth = {} if own is None else {"labelled": own.coverage, **own.metrics, **{f"{kpi.name} {kpi.unit}".strip(): kpi.mean for kpi in own.kpis}}
            rows.append({"version": f"{health.model}@{flow.version}", "arm": flow.arm, "requests": flow.requests, "errors": flow.errors,
                         "timeouts": flow.timeouts, "p99 ms": flow.p99_ms, **{name: worth.get(name) for name in ("labelled", *_worths(health))}})
        print(f"{health.window_s / 3600:g} h until {when(health.until)}, and what mature answers were worth")
        table(rows)
        drifting = [alarm for alarm in health.alarms if alarm.cleared is None]
        for alarm in drifting[:MOST_DRIFTS]:
            print(f"  {alarm.feature} of {health.model}@{alarm.version} drifts since {when(alarm.began)}: {alarm.harm.verdict}")
        firing = sum(state.state == "firing" for state in health.alerts)
        print(f"  {len(drifting)} features drift (davy monitor {health.model}); {firing} alerts fire (davy alerts {health.model})")


def _worths(health: Summary) -> list[str]:
    """The first metric and the KPIs of any version, so that all rows have the same columns."""
    metrics = list(dict.fromkeys(name for one in health.performance for name in one.metrics))[:1]
    return [*metrics, *dict.fromkeys(f"{kpi.name} {kpi.unit}".strip() for one in health.performance for kpi in one.kpis)]


PARTS: tuple[tuple[str, Callable[[Home, str | None], Any], Callable[[Any], None]], ...] = (
    ("live", _live, _tell_live),
    ("releases", _releases, _tell_releases),
    ("health", _health, _tell_health),
)
