"""What a person asks of a release: the verbs promote, pause, resume, abort and rollback share this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from davy.cli import open_home
from davy.cli.output import print_json

if TYPE_CHECKING:
    from davy.release.plan import Event


def by_hand(event: Event, text: str) -> click.Command:
    """The command of one verb."""

    @click.command(help=text)
    @click.argument("model")
    @click.option("--reason", default="", metavar="TEXT", help="Why, for the journal.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object: the release as it stands now.")
    def command(model: str, reason: str, as_json: bool) -> None:
        from davy.release.releases import ask
        from davy.release.status import told

        home = open_home()
        try:
            found = told(ask(home, model, event, reason=reason))
        finally:
            home.close()
        if as_json:
            print_json(found)
            return
        weights = ", ".join(f"{reference} {weight:.4g}" for reference, weight in found["weights"].items())
        print(f"release of {model}@{found['version']}: {found['state']}, {weights}")

    return command
