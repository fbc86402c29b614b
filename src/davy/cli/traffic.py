"""`davy traffic`: show or set which versions answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from davy.cli import open_home
from davy.cli.output import print_json, table, when

if TYPE_CHECKING:
    from davy.serving.traffic import Traffic


@click.command
@click.argument("model")
@click.argument("weights", nargs=-1, metavar="[VERSION=WEIGHT]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(model: str, weights: tuple[str, ...], as_json: bool) -> None:
    """Show the weights of MODEL's versions, or set them: davy traffic late late@1=0.9 late@2=0.1

    Weights are shares of the routing keys: not negative, and together 1. A running server follows within a second, once every
    version has answered its warm-up; no request is dropped.
    """
    from davy.registry.models import resolve
    from davy.release.traffic import get_traffic, set_traffic, weights_from_text

    home = open_home()
    try:
        with home.database.read() as connection:
            resolve(connection, model)
        found = set_traffic(home, model, weights_from_text(list(weights))) if weights else get_traffic(home, model)
    finally:
        home.close()
    if as_json:
        print_json(None if found is None else found)
        return
    table(_rows(found), empty=f"No version of {model} takes traffic. Give it some: davy traffic {model} {model}@1=1")


def _rows(found: Traffic | None) -> list[dict[str, object]]:
    from davy.serving.assignment import arms

    if found is None:
        return []
    named = arms(found.versions, found.stable)
    return [{"version": f"{found.model}@{version}", "weight": weight, "arm": named[version], "revision": found.revision, "since": when(found.updated),
             "by": found.actor} for version, weight in sorted(found.versions.items())]
