"""`davy push`: append events to a stream, from a file of JSON lines or from stdin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli.output import print_json
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from typing import TextIO

BATCH = 10_000
_ROW = re.compile(r"Row (\d+)")


@click.command
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: accepted, duplicates, set_aside, last_offset.")
def command(stream: str, file: TextIO, as_json: bool) -> None:
    """Append events to STREAM from FILE (default: stdin): one JSON object per line, or one JSON array.

    When the command ends well, every event is on disk and readable by features. A wrong line refuses its batch of
    10,000 lines and what comes after it, and is named.
    """
    from davy.cli import open_home
    from davy.events.client import connect
    from davy.project import load_project

    home = open_home()
    spec = load_project(home.root).stream(stream)
    total = {"accepted": 0, "duplicates": 0, "set_aside": 0, "last_offset": 0}
    with connect(home) as log:
        for places, rows in _batches(file):
            try:
                receipt = log.push(spec, rows)
            except InvalidInput as error:
                before = f"What stands before {places[0]} is in the log." if places[0] not in ("line 1", "row 1") else "Nothing was taken."
                raise type(error)(f"{file.name}, {_placed(error.came, places)}", error.allowed, f"{error.fix}\n{before}") from None
            for name in ("accepted", "duplicates", "set_aside"):
                total[name] += getattr(receipt, name)
            total["last_offset"] = receipt.last_offset or total["last_offset"]
    home.close()
    if as_json:
        print_json(total)
    else:
        print(describe(stream, total))


def describe(stream: str, counts: dict[str, int]) -> str:
    """What became of the events, in a line."""
    parts = [f"{counts['accepted']:,} events accepted into {stream}"]
    parts += [f"{counts['duplicates']:,} were there already"] if counts["duplicates"] else []
    parts += [f"{counts['set_aside']:,} lie in the future and wait for their time"] if counts["set_aside"] else []
    return "; ".join(parts)


def _placed(came: str, places: list[str]) -> str:
    """What is wrong, with the place in the file instead of the row of the batch."""
    found = _ROW.match(came)
    return f"{places[int(found[1])]}{came[found.end():]}" if found else f"from {places[0]} on: {came}"


def _batches(file: TextIO) -> Any:
    """(where each row stands, rows) of up to `BATCH` rows each."""
    places, rows = list[str](), list[Any]()
    for place, row in rows_of(file):
        places.append(place)
        rows.append(row)
        if len(rows) == BATCH:
            yield places, rows
            places, rows = [], []
    if rows:
        yield places, rows


def rows_of(file: TextIO) -> Any:
    """(where it stands, row) of JSON lines, or of one JSON array."""
    if file.name.endswith((".csv", ".parquet")):
        raise InvalidInput(f"{file.name} holds no JSON lines.", "davy push takes JSON; files of other kinds are histories.",
                           f"Load it: davy ingest STREAM --source {file.name}")
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):
            for count, row in enumerate(_decoded(line + file.read(), file.name, number), 1):
                yield f"row {count}", row
            return
        yield f"line {number}", _decoded(line, file.name, number)


def _decoded(text: str, name: str, line: int) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidInput(f"{name}, line {line}: {error}.", "Each line is one JSON object.", "Mend the line, and push again from there.") from error
