"""`davy gc`: purge what was deleted, and the files that nothing points at any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from davy.cli.output import note, print_json, progress

if TYPE_CHECKING:
    from davy.home import Home
    from davy.tracking.purge import Purge


@click.command
@click.option("--older-than", default="0s", show_default=True, metavar="TIME", help="Only what was deleted so long ago, such as 30d.")
@click.option("--experiment", "names", multiple=True, metavar="NAME", help="Only this experiment (name or number) and what is in it; may be repeated.")
@click.option("--run", "run_ids", multiple=True, metavar="RUN", help="Only this deleted run, by its whole id; may be repeated.")
@click.option("--grace", default="1d", show_default=True, metavar="TIME", help="A file that nothing has pointed at yet stays for so long.")
@click.option("--yes", is_flag=True, help="Do it. Without this, only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: runs, models, experiments, kept, blobs, bytes, young, done.")
def command(older_than: str, names: tuple[str, ...], run_ids: tuple[str, ...], grace: str, yes: bool, as_json: bool) -> None:
    """Purge deleted runs, logged models and experiments with all their records and files, and files that nothing points at.

    Says what would go and how much, and does it with --yes. What a registered version, an alias, the traffic or a release
    refers to stays, however long ago it was deleted. A server may run and take uploads meanwhile. Stopped at any point, the
    same command goes on. A purged experiment's name may be used again. Nothing that is purged can be restored.
    """
    from davy.cli import open_home
    from davy.core.time import parse_duration
    from davy.tracking.purge import plan

    home = open_home()
    before, patience = home.clock.now() - parse_duration(older_than), parse_duration(grace)
    with home.database.read() as connection:
        numbers = [_number(connection, name) for name in names]
        whole = plan(connection, before=before, experiment_ids=numbers, run_ids=run_ids)
    found = _do(home, whole, before, patience) if yes else _look(home, whole, patience)
    if as_json:
        print_json({"runs": list(whole.runs), "models": list(whole.models), "experiments": list(whole.experiments.values()),
                    "kept": [{"kind": kept.kind, "id": kept.id, "why": kept.why} for kept in whole.kept], **found, "done": yes})
        return
    for kept in whole.kept:
        note(f"{kept.kind} {kept.id} stays: {kept.why}")
    verb = "Purged" if yes else "Would purge"
    print(f"{verb} {_count(len(whole.runs), 'run')}, {_count(len(whole.models), 'logged model')}, {_count(len(whole.experiments), 'experiment')}.")
    print(f"{'Removed' if yes else 'Would remove'} {_count(found['blobs'], 'file')}, {found['bytes'] / 1e6:,.1f} MB.")
    if found["young"]:
        note(f"{_count(found['young'], 'file')} that nothing points at came less than {grace} ago and may be about to be used.")
    if not yes and (whole.owners or found["blobs"]):
        note("Nothing has changed. Do it: the same command with --yes")


def _look(home: Home, whole: Purge, grace: int) -> dict[str, Any]:
    from davy.tracking.sweep import survey

    found = survey(home, whole.owners, grace)
    return {"blobs": found.blobs, "bytes": found.bytes, "young": found.young}


def _do(home: Home, whole: Purge, before: int, grace: int) -> dict[str, Any]:
    from davy.tracking.purge import batches, purge
    from davy.tracking.sweep import sweep

    freed: set[str] = set()
    with progress("purged", len(whole.owners)) as bar:
        for some in batches(whole):
            with home.database.begin() as connection:
                freed |= purge(connection, some, clock=home.clock, actor=home.actor, before=before)
            bar.advance(len(some.owners))
    total = {"blobs": 0, "bytes": 0, "young": 0}
    with progress("files removed") as bar:
        for found in sweep(home, freed=freed, grace=grace, actor=home.actor):
            total["blobs"] += found.blobs
            total["bytes"] += found.bytes
            total["young"] += found.young
            bar.advance(found.blobs)
    return total


def _number(connection: Any, name: str) -> int:
    from davy.errors import NotFound
    from davy.tracking.experiments import get_experiment

    try:
        return get_experiment(connection, name).id
    except NotFound:
        if not name.isdecimal():
            raise
        return get_experiment(connection, int(name)).id


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
