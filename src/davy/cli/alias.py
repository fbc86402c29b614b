"""`davy alias`: names for versions, such as `late@production`, and what they meant before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli import open_home, role
from davy.cli.output import print_json, table, when
from davy.core.time import UNITS, format_time, to_micros
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from davy.home import Home
    from davy.registry.alias_history import AliasChange

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@click.command
@click.argument("model")
@click.argument("name", required=False)
@click.argument("version", required=False, metavar="[VERSION]")
@click.option("--delete", is_flag=True, help="Take the alias NAME away.")
@click.option("--reason", default="", metavar="TEXT", help="Why it moves, for the journal.")
@click.option("--history", is_flag=True, help="Every move of NAME, or of all aliases: when, by whom, from where to where, on what evidence.")
@click.option("--at", metavar="TIME", help="What NAME meant then: a time with its zone, or a date (2026-03-03), which is that whole day in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: alias to version; with --history or --at, the moves.")
def command(model: str, name: str | None, version: str | None, delete: bool, reason: str, history: bool, at: str | None, as_json: bool) -> None:
    """Show the aliases of MODEL, or let NAME mean a VERSION from now on: davy alias late production 2

    Wherever a version is named, late@production then means that one. VERSION may also be another alias, or `latest`.
    An alias moves no traffic: that is for davy traffic. What it meant at any time, and who moved it, the journal tells:
    davy alias late production --at 2026-03-03

    Aliases that [registry] protected names in davy.toml are moved by a releaser, or by a release.
    """
    if (history or at is not None) and (version is not None or delete or (history and at is not None)):
        raise InvalidInput("--history and --at ask what was; nothing is changed by them.", "", f"Write: davy alias {model} {name or 'production'} --history")
    if at is not None and name is None:
        raise InvalidInput("--at came without the alias that is meant.", "", f"Write: davy alias {model} production --at {at}")
    if delete and (name is None or version is not None):
        raise InvalidInput("--delete came without the alias that is meant." if name is None else "--delete came with a version.",
                           "An alias is taken away by its name.", f"Write: davy alias {model} {name or 'production'} --delete")
    home = open_home()
    try:
        if at is not None:
            _tell_then(home, model, str(name), at, as_json)
        elif history:
            _tell_history(home, model, name, as_json)
        else:
            _move(home, model, name, version, delete, reason)
            _tell_now(home, model, as_json)
    finally:
        home.close()


def _move(home: Home, model: str, name: str | None, version: str | None, delete: bool, reason: str) -> None:
    from davy.registry.aliases import Protection, delete_alias, set_alias
    from davy.registry.models import resolve
    from davy.registry.reference import check_alias

    if name is None:
        return
    if version is None and not delete:
        raise InvalidInput(f"The alias {name!r} came without the version that it means.", "", f"Write: davy alias {model} {name} 1")
    who: dict[str, Any] = {"clock": home.clock, "actor": home.actor, "protection": Protection.of(home.config.registry.protected, role()),
                           "evidence": {"reason": reason} if reason else None}
    with home.database.begin() as connection:
        if delete:
            delete_alias(connection, name=model, alias=name, **who)
        else:
            meant = resolve(connection, f"{model}@{str(version).removeprefix(f'{model}@')}").version
            set_alias(connection, name=model, alias=check_alias(name), version=meant, **who)


def _tell_now(home: Home, model: str, as_json: bool) -> None:
    from davy.registry.alias_history import alias_history
    from davy.registry.aliases import read_aliases
    from davy.registry.models import require_model

    with home.database.read() as connection:
        require_model(connection, model)
        found = read_aliases(connection, model)
        moves: dict[str, AliasChange] = {}
        for change in alias_history(connection, model):
            moves.setdefault(change.alias, change)
    if as_json:
        print_json(found)
        return
    protected = home.config.registry.protected
    rows = [{"alias": f"{model}@{alias}", "version": f"{model}@{number}", "since": when(moves[alias].time) if alias in moves else "",
             "by": moves[alias].actor if alias in moves else "", **({"protected": alias in protected or f"{model}@{alias}" in protected} if protected else {})}
            for alias, number in found.items()]
    table(rows, empty=f"{model} has no alias. Set one: davy alias {model} production 1")


def _tell_history(home: Home, model: str, name: str | None, as_json: bool) -> None:
    from davy.registry.alias_history import alias_history

    with home.database.read() as connection:
        found = alias_history(connection, model, name)
    if as_json:
        print_json({"model": model, "moves": [_plain(change) for change in found]})
        return
    what = f"{model}@{name}" if name is not None else f"An alias of {model}"
    table([_row(change) for change in found], empty=f"{what} has never been set. Set it: davy alias {model} {name or 'production'} 1")


def _tell_then(home: Home, model: str, name: str, at: str, as_json: bool) -> None:
    """What the alias meant at a time; of a day, at its beginning and after each move."""
    from davy.registry.alias_history import alias_history, in_force

    whole_day = _DATE.fullmatch(at) is not None
    start = to_micros(f"{at}T00:00:00Z" if whole_day else at)
    end = start + UNITS["d"] - 1 if whole_day else start
    with home.database.read() as connection:
        moves = alias_history(connection, model, name)
    found = [change for change in moves if start < change.time <= end]
    if not found or any(change.time <= start for change in moves):
        found.append(in_force(moves, model, name, start))
    if as_json:
        print_json({"model": model, "alias": name, "from": format_time(start), "to": format_time(end), "moves": [_plain(change) for change in found]})
        return
    for change in reversed(found):
        meant = f"meant {change.model}@{change.version}" if change.version is not None else "meant nothing"
        since = f"since {when(change.time)} UTC" if change.time <= start else f"from {when(change.time)} UTC on"
        print(f"{change.model}@{name} {meant} {since}, by {change.actor}{_because(change)}")


def _because(change: AliasChange) -> str:
    told = _evidence(change)
    return f" ({told})" if told else ""


def _evidence(change: AliasChange) -> str:
    """The evidence in words: `gate 0a1b passed, release 2c3d, …`."""
    words = {"gate": f"gate {change.evidence.get('gate')} {change.evidence.get('verdict', '')}".rstrip(),
             "release": f"release {change.evidence.get('release')}", "import": f"imported from {change.evidence.get('import')}"}
    return ", ".join(words.get(key, str(value)) for key, value in change.evidence.items() if key != "verdict")


def _row(change: AliasChange) -> dict[str, Any]:
    return {"time": when(change.time), "alias": f"{change.model}@{change.alias}", "from": change.before, "to": "taken away" if change.version is None
            else str(change.version), "by": change.actor, "evidence": _evidence(change), "entry": change.seq}


def _plain(change: AliasChange) -> dict[str, Any]:
    return {**msgspec.structs.asdict(change), "time": format_time(change.time)}
