"""`davy monitor`: count what is new, and say what is known of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from davy.cli import open_home
from davy.cli.output import note, print_json, table, when

if TYPE_CHECKING:
    from davy.monitoring.summary import Summary

SHOWN = 12


@click.command
@click.argument("model")
@click.option("--window", metavar="SPAN", help="How much traffic and drift to look at (default: monitoring.window).")
@click.option("--rebuild", is_flag=True, help="Make the profiles anew from the whole log first.")
@click.option("--replay", "replaying", is_flag=True, help="Also replay what was served since the last replay.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: traffic, drift, alarms, performance, replay, alerts.")
def command(model: str, window: str | None, rebuild: bool, replaying: bool, as_json: bool) -> None:
    """Count what MODEL has served since the last time, and say what is known: traffic, drift, performance of mature cohorts, KPIs.

    While `davy up` runs, this happens by itself. Nothing that serves is changed.
    """
    from davy.core.time import parse_duration
    from davy.monitoring.monitor import Monitor
    from davy.monitoring.summary import summary
    from davy.registry.models import resolve

    home = open_home()
    try:
        with home.database.read() as connection:
            resolve(connection, model)
        monitor = Monitor(home)
        if rebuild:
            note(f"{monitor.collector.rebuild(model).rows:,} predictions counted anew")
        monitor.collector.collect(only=model)
        monitor.judge(model)
        if replaying:
            monitor.replay(model, force=True)
        found = summary(home, model, definition=monitor.definition(model), collector=monitor.collector,
                        window=None if window is None else parse_duration(window))
    finally:
        home.close()
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: Summary) -> None:
    if found.until is None:
        print(f"{found.model} has answered nothing yet.")
        return
    print(f"{found.model}, {found.window_s / 3600:g} h until {when(found.until)} UTC")
    table([{"version": flow.version, "arm": flow.arm, "requests": flow.requests, "a second": flow.per_second, "errors": flow.errors, "timeouts": flow.timeouts,
            "fallbacks": flow.fallbacks, "p50 ms": flow.p50_ms, "p99 ms": flow.p99_ms} for flow in found.traffic])
    for moved in found.drift:
        print(f"\nDistributions of version {moved.version} against its training set ({moved.rows:,} rows)")
        table([{"feature": column.feature, "weight": moved.importance.get(column.feature), "verdict": column.verdict, "psi": column.psi,
                "by chance": column.threshold, "p": column.adjusted, "mean distance (sd)": column.w1, "nulls": column.nulls, "unseen": column.unseen}
               for column in moved.columns[:SHOWN]])
        if len(moved.columns) > SHOWN:
            note(f"{len(moved.columns) - SHOWN} more features moved less.")
    if found.alarms:
        print("\nDrift alarms")
        table([{"version": alarm.version, "feature": alarm.feature, "began": when(alarm.began), "raised": when(alarm.raised), "cleared": when(alarm.cleared),
                "what": alarm.bet, "labels": alarm.harm.verdict} for alarm in found.alarms[:SHOWN]])
    if found.performance:
        print("\nMature predictions of the last 30 days")
        worth = [{**judged.metrics, **{f"{kpi.name} {kpi.unit}".strip(): kpi.mean for kpi in judged.kpis}} for judged in found.performance]
        names = list(dict.fromkeys(name for one in worth for name in one))
        table([{"version": judged.version, "predictions": judged.predictions, "labelled": judged.coverage, "young": judged.young,
                **{name: one.get(name) for name in names}} for judged, one in zip(found.performance, worth, strict=True) if judged.predictions])
    if found.replay is not None:
        print(f"\nLast replay, until {when(found.replay.until)}: {found.replay.checked:,} vectors, {found.replay.checked - found.replay.equal:,} different")
    firing = [state for state in found.alerts if state.state == "firing"]
    if firing:
        print(f"\n{len(firing)} alerts fire: davy alerts {found.model}")
