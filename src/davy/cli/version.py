"""`davy version`: what is installed, for a report or a comparison of two machines."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from davy import __version__
from davy.cli.output import print_json, table

STANDS_ON = ("deltalake", "granian", "lightgbm", "lmdb", "msgspec", "numpy", "obstore", "polars", "scikit-learn", "sqlalchemy", "starlette")


@click.command
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(as_json: bool) -> None:
    """Versions of Davy, Python and the packages that decide what is computed; absent ones are optional."""
    found = {"davy": __version__, "python": platform.python_version(), "platform": platform.platform()}
    found |= {name: _installed(name) for name in STANDS_ON}
    if as_json:
        print_json(found)
    else:
        table([{"package": name, "version": version or "not installed"} for name, version in found.items()])


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
