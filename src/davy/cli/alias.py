"""`davy alias`: names for versions, such as `late@production`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from davy.cli import open_home
from davy.cli.output import print_json, table, when
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from davy.store.journal import Entry

MOST = 10_000


@click.command
@click.argument("model")
@click.argument("name", required=False)
@click.argument("version", required=False, metavar="[VERSION]")
@click.option("--delete", is_flag=True, help="Take the alias NAME away.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: alias to version.")
def command(model: str, name: str | None, version: str | None, delete: bool, as_json: bool) -> None:
    """Show the aliases of MODEL, or let NAME mean a VERSION from now on: davy alias late production 2

    Wherever a version is named, late@production then means that one. VERSION may also be another alias, or `latest`.
    An alias moves no traffic: that is for davy traffic. Who moved it where, and when, stands in the journal.
    """
    from davy.registry.models import alias_history, delete_alias, list_models, resolve, set_alias

    home = open_home()
    try:
        with home.database.begin() as connection:
            if name is not None and delete:
                delete_alias(connection, clock=home.clock, actor=home.actor, name=model, alias=name)
            elif name is not None and version is not None:
                meant = resolve(connection, f"{model}@{version.removeprefix(f'{model}@')}").version
                set_alias(connection, clock=home.clock, actor=home.actor, name=model, alias=name, version=meant)
            elif name is not None:
                raise InvalidInput(f"The alias {name!r} came without the version that it means.", "", f"Write: davy alias {model} {name} 1")
            resolve(connection, model)
            found = next(item.aliases for item in list_models(connection) if item.name == model)
            history = {str(entry.details["alias"]): entry for entry in reversed(alias_history(connection, model, limit=MOST))}
    finally:
        home.close()
    if as_json:
        print_json(found)
        return
    rows = [{"alias": f"{model}@{alias}", "version": f"{model}@{number}", **_moved(history.get(alias))}
            for alias, number in found.items()]
    table(rows, empty=f"{model} has no alias. Set one: davy alias {model} production 1")


def _moved(entry: Entry | None) -> dict[str, str]:
    return {"since": when(entry.time), "by": entry.actor} if entry is not None else {"since": "", "by": ""}
