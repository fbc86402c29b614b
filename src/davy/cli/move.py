"""`davy move`: the same home on a larger database, or with its files in an object store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from davy.cli.output import note, print_json, progress
from davy.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from davy.home import Home


@click.command
@click.option("--database", metavar="URL", help="Where runs, models, releases and the journal go: postgresql://user@host/name, or sqlite:///path.")
@click.option("--blobs", metavar="URL", help="Where artifacts and models go: s3://bucket/prefix, or file:///folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: tables (rows of each), blobs, bytes.")
def command(database: str | None, blobs: str | None, as_json: bool) -> None:
    """Copy the database, or the files, or both, to where davy.toml shall name them from now on.

    Every row arrives, in one transaction, or none; every file is verified by its digest, and one that is there is not sent again, so
    that the same command goes on where it was stopped. What was copied stays where it is. Nobody may serve the home meanwhile; at the
    end it is said what to write into davy.toml.
    """
    from davy.cli import open_home
    from davy.server.supervisor import hold

    if database is None and blobs is None:
        raise InvalidInput("Neither --database nor --blobs came.", "", "Name what is to be moved where: davy move --database postgresql://user@host/davy")
    home = open_home()
    held = hold(home)
    try:
        tables = _database(home, database) if database is not None else {}
        count, size = _blobs(home, blobs) if blobs is not None else (0, 0)
    finally:
        os.close(held)
    if as_json:
        print_json({"tables": tables, "blobs": count, "bytes": size})
        return
    if database is not None:
        print(f"{sum(tables.values()):,} rows of {sum(1 for rows in tables.values() if rows)} tables are there.")
    if blobs is not None:
        print(f"{count:,} files, {size / 1e6:,.1f} MB, are there.")
    note("Write this into davy.toml, and start what writes to this home anew:")
    print("\n[storage]")
    for name, url in (("database", database), ("blobs", blobs)):
        if url is not None:
            print(f'{name} = "{_shown(url)}"')


def _database(home: Home, url: str) -> dict[str, int]:
    from davy.schema import open_database
    from davy.schema.move import copy_database, count_rows

    target = open_database(url, folder=home.path)
    try:
        with progress("rows", count_rows(home.database)) as bar:
            return copy_database(home.database, target, told=bar.advance)
    finally:
        target.close()


def _blobs(home: Home, url: str) -> tuple[int, int]:
    from davy.store.blobs import Blobs, copy_blobs

    if url == home.blobs.url:
        raise ConfigError(f"The files lie in {url} already.", "", "Name another place.")
    target = Blobs(url, options=home.config.storage.options, spool=home.path / "run" / "spool")
    with progress("files") as bar:
        return copy_blobs(home.blobs, target, told=bar.advance)


def _shown(url: str) -> str:
    """Without its password, which need not stand in the terminal twice."""
    import sqlalchemy as sa

    return sa.make_url(url).render_as_string() if url.startswith("postgresql://") else url
