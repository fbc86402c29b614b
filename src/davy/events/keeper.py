"""The process of a running server that holds the log: `python -m davy.events.keeper --home DIR`.

It takes the log from whoever holds it, prints one line of JSON when it is ready, and ends on SIGTERM with everything in tables.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from davy.core.digest import canonical_json
from davy.core.signals import Stop
from davy.errors import DavyError
from davy.events.client import connect
from davy.events.wire import socket_path
from davy.home import Home

LOOK_SECONDS = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Keep the log until a signal comes."""
    parser = argparse.ArgumentParser(prog="davy.events.keeper", description="Holds the event log of a home.")
    parser.add_argument("--home", type=Path, help="the .davy folder (default: the project's)")
    parser.add_argument("--project", type=Path, help="the folder with davy.toml (default: beside the home, or around the working directory)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stop = Stop()
    try:
        home = _home(options.project, options.home)
        with connect(home, keep=True):
            print(canonical_json({"ready": True, "socket": str(socket_path(home))}).decode(), flush=True)
            while not stop.wait(LOOK_SECONDS):
                pass
        home.close()
    except DavyError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _home(project: Path | None, home: Path | None) -> Home:
    if project is None and home is not None:
        return Home(home.resolve().parent, path=home)
    return Home.open(project, home=home)


if __name__ == "__main__":
    sys.exit(main())
