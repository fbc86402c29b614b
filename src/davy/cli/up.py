"""`davy up`: everything in one command, until Ctrl-C."""

from __future__ import annotations

import click

from davy.cli import open_home


@click.command
@click.option("--host", help="The address to listen on; beyond this machine it takes a login (default: [serving] host, 127.0.0.1).")
@click.option("--port", type=int, help="The port; 0 picks a free one (default: [serving] port, 8080).")
@click.option("--only", type=click.Choice(["tracking"]), help="Runs and models alone: no events, predictions and releases; needs no davy.toml.")
def command(host: str | None, port: int | None, only: str | None) -> None:
    """Start the log, the gateway, the workers of all versions with traffic, and the pages.

    One line says when everything answers, and where. What dies is started again. Ctrl-C (or SIGTERM) ends it all cleanly;
    what the parts say is in .davy/run/up.log.
    """
    from davy.server.supervisor import serve

    home = open_home(anywhere=only == "tracking")
    try:
        serve(home, host=host, port=port, tracking_alone=only == "tracking", ready=lambda address: click.echo(f"Davy is up at {address}"))
    finally:
        home.close()
