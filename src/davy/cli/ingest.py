"""`davy ingest`: load a stream's history from its source."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli.output import note, print_json
from davy.cli.push import describe
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from davy.events.records import Receipt
    from davy.features.definition import StreamSpec


@click.command
@click.argument("streams", nargs=-1)
@click.option("--source", type=click.Path(path_type=Path), help="Another file or folder than the stream's own (for one STREAM).")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of receipts.")
def command(streams: tuple[str, ...], source: Path | None, as_json: bool) -> None:
    """Load the history of STREAMS (default: of all that declare a source).

    A history is loaded whole or not at all. The same history a second time is recognised and adds nothing.
    """
    from davy.cli import open_home
    from davy.events.client import connect
    from davy.events.sources import scan_source
    from davy.project import load_project

    home = open_home()
    project = load_project(home.root)
    specs = [project.stream(name) for name in streams] or [spec for spec in project.streams.values() if spec.source]
    if source is not None and len(streams) != 1:
        raise InvalidInput("--source came without the one stream that it is for.", "", "Write for example: davy ingest flights --source more.parquet")
    receipts: list[dict[str, Any]] = []
    with connect(home) as log:
        for spec in specs:
            path = source or (home.root / spec.source if spec.source else None)
            if path is None:
                raise InvalidInput(f"The stream {spec.name!r} declares no source.", "", f"Write: davy ingest {spec.name} --source FILE")
            if not as_json:
                note(f"Loading {spec.name} from {path} ...")
            began = time.perf_counter()
            receipt = log.push_history(spec, scan_source(path, spec.fields))
            receipts.append(msgspec.to_builtins(receipt))
            for warning in warnings(spec, receipt):
                note(warning)
            if not as_json:
                print(f"{describe(spec.name, receipts[-1])} ({time.perf_counter() - began:.1f} s)")
    home.close()
    if as_json:
        print_json(receipts)
    elif not specs:
        note("No stream of this project declares a source.")


def warnings(spec: StreamSpec, receipt: Receipt) -> list[str]:
    """What the user may not have meant, a sentence each."""
    found = []
    if receipt.clamped:
        found.append(f"{receipt.clamped:,} events count as arrived only now: as_known='ingest' does not see them at earlier moments; "
                     "load history before live events")
    if spec.id is None and receipt.first_offset > 1:
        found.append(f"The stream {spec.name!r} has no id, and held {receipt.first_offset - 1:,} events before: a row that was among them has been taken again")
    return found
