"""`davy replay`: every logged vector, computed again from the log; all bits must be equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from davy.cli import open_home
from davy.cli.output import note, print_json, table
from davy.core.time import UNITS, format_duration, format_time, to_micros
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from davy.monitoring.skew import Replay

SHOWN = 20


def _moment(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else to_micros(value)


@click.command
@click.argument("model")
@click.option("--version", "number", type=click.IntRange(min=1), help="Only the predictions of this version.")
@click.option("--start", metavar="TIME", callback=_moment, help="Only predictions from this time on, such as 2013-05-01T00:00Z.")
@click.option("--end", metavar="TIME", callback=_moment, help="Only predictions before this time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: checked, equal, different, lateness.")
def command(model: str, number: int | None, start: int | None, end: int | None, as_json: bool) -> None:
    """Compute the vector of every logged prediction of MODEL again, as of its time and watermarks, and compare all bits.

    Each difference is named with its cause. Lateness, which is no difference, is told beside it. The exit code is 1 when
    something differs.
    """
    from davy.monitoring.skew import replay
    from davy.registry.models import resolve

    if start is not None and end is not None and start >= end:
        raise InvalidInput(f"--start {format_time(start)} is not before --end {format_time(end)}.", "A span goes from its start up to, and without, its end.",
                           "Exchange them, or leave one out.")
    home = open_home()
    try:
        with home.database.read() as connection:
            resolve(connection, model if number is None else f"{model}@{number}")
        found = replay(home, model, start=start, end=end, version=number)
    finally:
        home.close()
    if as_json:
        print_json(found)
    else:
        _tell(model, found)
    if found.different:
        raise click.exceptions.Exit(1)


def _tell(model: str, found: Replay) -> None:
    if not found.checked:
        note(f"No prediction of {model} was found in that time.")
    print(f"{found.checked:,} vectors checked, {found.equal:,} equal, {found.checked - found.equal:,} different")
    if found.different:
        table([{"prediction": item.prediction, "feature": item.feature, "served": repr(item.served), "recomputed": repr(item.recomputed), "cause": item.cause}
               for item in found.different[:SHOWN]])
        if len(found.different) > SHOWN:
            note(f"{len(found.different) - SHOWN:,} more values differ; all of them: davy replay {model} --json")
    streams: dict[str, dict[str, Any]] = found.lateness.get("streams", {})
    if streams:
        print("\nLateness: how long events took to arrive")
        table([{"stream": name, "events": told["events"], "late": told["late"], "p50": _span(told.get("p50_us")), "p99": _span(told.get("p99_us")),
                "max": _span(told.get("max_us"))} for name, told in sorted(streams.items())])
    features: dict[str, dict[str, Any]] = found.lateness.get("features", {})
    if features:
        print("\nVectors that late events would have changed")
        table([{"feature": name, **told} for name, told in sorted(features.items())], ["feature", "changed", "p50", "p99", "max"])


def _span(micros: int | None) -> str:
    """A duration for people, in its two largest units: `3h 57min`; whole seconds from one second on."""
    if micros is None:
        return ""
    if micros < UNITS["s"]:
        return format_duration(micros)
    parts: list[str] = []
    for unit in ("d", "h", "min", "s"):
        count, micros = divmod(micros, UNITS[unit])
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)
