"""The process that tracks runs and models alone: MLflow's protocol and the pages, without events, predictions and releases."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from davy.home import Home
from davy.server.app import App
from davy.server.door import Door
from davy.server.listener import DRAIN_SECONDS, InheritedServer
from davy.server.parts import load


async def run(home: Home, descriptor: int) -> None:
    """Answer until SIGTERM, then finish what is in flight."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    door = Door(home, descriptor)
    application = App(None, None, door)
    load(application, home, door.guard)
    application.become_ready()
    server = InheritedServer(application, descriptor, door.certificate)
    serving = loop.create_task(server.serve())
    await stop.wait()
    server.finish()
    with suppress(TimeoutError):
        await asyncio.wait_for(serving, DRAIN_SECONDS)
    application.close()
    door.close()


def main() -> None:
    """`python -m davy.server.tracking --project DIR --home DIR --descriptor N`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--descriptor", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    home = Home(given.project, path=given.home)
    gc.freeze()
    try:
        asyncio.run(run(home, given.descriptor))
    finally:
        home.close()


if __name__ == "__main__":
    main()
