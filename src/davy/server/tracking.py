"""The process that tracks runs and models alone: MLflow's protocol and the pages, without events, predictions and releases."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from davy.home import Home
from davy.server.app import App
from davy.server.door import Door
from davy.server.listener import DRAIN_SECONDS, InheritedServer, start
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


if __name__ == "__main__":
    start(run)
