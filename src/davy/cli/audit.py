"""`davy audit`: is every entry of the journal as it was written?"""

from __future__ import annotations

import re

import click
import msgspec

from davy.cli.output import note, print_json
from davy.errors import Different, InvalidInput

_DIGEST = re.compile("(sha256:)?([0-9a-f]{64})")


@click.command
@click.option("--expect", metavar="DIGEST", help="A head that was noted elsewhere; the chain must contain it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: entries, head, broken, cause.")
def command(expect: str | None, as_json: bool) -> None:
    """Verify the journal's chain: entries edited, removed, reordered or added between others, and entries cut off its end.

    The end is checked against journal.heads in the home. Who can rewrite it and the database can't be seen from
    inside: note the printed head somewhere else, and give it to --expect later.

    Exits 1 when the chain is broken, naming the first entry.
    """
    from davy.cli import open_home
    from davy.store import journal

    home, expect = open_home(), _digest(expect)
    with home.database.read() as connection:
        found = journal.verify(connection, expected=expect)
    if as_json:
        print_json(msgspec.to_builtins(found))
        click.get_current_context().exit(0 if found.broken is None else Different.exit_code)
    if found.broken is not None:
        raise Different(f"The journal is broken at entry {found.broken}: {found.cause}.", f"The {found.entries} entries before it are as they were written.",
                        "Compare with a backup; what was done since then is not proven.")
    print(f"{found.entries} entries, all as they were written\nhead {found.head}")
    if not found.entries:
        note("Nothing has changed state yet.")


def _digest(text: str | None) -> str | None:
    """The head as the journal writes it; `sha256:` may be left out."""
    if text is None:
        return None
    found = _DIGEST.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(f"{text!r} is not the digest of an entry.", "A digest is sha256: and 64 hex digits.", "Give the head that davy audit printed.")
    return f"sha256:{found[2]}"
