"""`davy release`: let a version take traffic step by step, on evidence."""

from __future__ import annotations

import math

import click

from davy.cli import open_home
from davy.cli.output import note, print_json
from davy.errors import InvalidInput


def _percentages(context: click.Context, param: click.Parameter, value: str | None) -> list[float] | None:
    if value is None:
        return None
    try:
        found = [float(part) for part in value.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise InvalidInput(f"{value!r} are no steps.", "Steps are percentages with commas between.", "Write for example --steps 1,5,25,50,100")
    return found


@click.command
@click.argument("version", metavar="MODEL@VERSION")
@click.option("--strategy", type=click.Choice(("canary", "blue-green", "shadow", "all-at-once")), help="How traffic moves (default: davy.toml's, else canary).")
@click.option("--steps", callback=_percentages, metavar="PERCENTAGES", help="The canary's shares, such as 1,5,25,50,100.")
@click.option("--override", metavar="REASON", help="Release it although the gate refuses; the journal keeps the reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(version: str, strategy: str | None, steps: list[float] | None, override: str | None, as_json: bool) -> None:
    """Release MODEL@VERSION: traffic moves to it step by step for as long as nothing shows harm, and back at once when something does.

    canary moves through the steps; shadow asks the version without letting it answer, then goes on as canary; blue-green moves
    everything at once and keeps the old version ready; all-at-once moves everything and compares nothing. The first version of a
    model is released all at once. A running server decides by itself; see it with davy status.
    """
    from davy.release.releases import start_release
    from davy.release.status import told
    from davy.server.supervisor import running

    home = open_home()
    try:
        found = told(start_release(home, version, strategy=strategy, steps=steps, override=override))  # type: ignore[arg-type]
        served = running(home) is not None
    finally:
        home.close()
    if as_json:
        print_json(found)
        return
    print(f"release of {found['model']}@{found['version']} ({found['strategy']}): {found['state']}")
    for reason in found["reasons"]:
        print(f"  {reason}")
    if found["ended"] is None and not served:
        note("It begins when the server is up: davy up")
