"""`davy sync`: send what runs have left in their spools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from davy.cli import open_home
from davy.cli.output import note, print_json, progress, table
from davy.errors import NotFound

if TYPE_CHECKING:
    from davy.home import Home

REFUSED, AWAY = 1, 3


@click.command
@click.option("--server", metavar="URL", help="Send what was for a server to this address instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: spools, each with run, name, to, state and reasons.")
def command(server: str | None, as_json: bool) -> int:
    """Send what runs have left in their spools: to the server that was away, or into the database that was locked or full.

    Looks into the project's .davy/spool and into the user's cache folder. It can be stopped and called again at any time:
    what is sent twice is the same as once. A run whose process died is ended as KILLED. Exit code 3 when a server is away, 1 when something was
    refused; that is kept in the spool and tried again with the next call.
    """
    from davy.tracking.sync import sync, waiting

    try:
        home: Home | None = open_home()
    except NotFound:
        home = None
    found = waiting(home)
    with progress("records", sum(item.records for item in found)) as bar:
        outcomes = list(sync(found, server=server, told=bar.advance))
    if as_json:
        print_json({"spools": msgspec.to_builtins(outcomes)})
    else:
        table([{"run": item.run[:12], "name": item.name, "to": item.to, "state": item.state} for item in outcomes], empty="Nothing waits.")
        for item in outcomes:
            for reason in item.reasons:
                note(f"{item.name}: {reason}\nIt is kept in {item.path}")
    states = {item.state for item in outcomes}
    return REFUSED if "refused" in states else AWAY if "away" in states else 0
