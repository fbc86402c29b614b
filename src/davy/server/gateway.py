"""The process that answers: Granian's server on a listening socket that the supervisor holds, around the application."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import suppress

from davy.core.time import parse_duration
from davy.events.wire import socket_path
from davy.features.online import OnlineFeatures
from davy.home import Home
from davy.server.app import App
from davy.server.door import Door
from davy.server.events import EventsClient
from davy.server.listener import DRAIN_SECONDS, InheritedServer, start
from davy.server.parts import load
from davy.serving.fleet import SupervisedFleet, control_path
from davy.serving.gateway import Gateway
from davy.serving.predictions import PredictionLog, folder_of
from davy.serving.routes import Routes
from davy.serving.sockets import answers

PATIENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_COLLECT = (20_000, 20, 50)


async def run(home: Home, descriptor: int) -> None:
    """Answer until SIGTERM, then finish what is in flight.

    Connections wait at first, until the routes stand or a few seconds have passed: after the end of another gateway,
    whose workers live on, no request meets one that knows nothing yet.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not answers(socket_path(home)):  # the log may have to be recovered first, and the online state with it
        if stop.is_set():
            return
        await asyncio.sleep(_LOOK_SECONDS)
    timeout = parse_duration(home.config.serving.timeout) / 1e6
    log = PredictionLog(folder_of(home))
    events = EventsClient(home)
    fleet = SupervisedFleet(stop.set)
    await fleet.connect(control_path(home))
    routes = Routes(home, OnlineFeatures(home.online), fleet, events.ensure_views, timeout)
    gateway = Gateway(home, routes, log, acknowledged=home.config.predictions.durability == "acknowledged", timeout=timeout)
    door = Door(home, descriptor)
    application = App(gateway, events, door)
    server = InheritedServer(application, descriptor, door.certificate)
    preparing = loop.create_task(_prepare(application, routes, home, door))
    with suppress(TimeoutError):
        await asyncio.wait_for(application.until_ready(), PATIENCE_SECONDS)
    serving = loop.create_task(server.serve())
    await stop.wait()
    preparing.cancel()
    with suppress(asyncio.CancelledError):
        await preparing
    server.finish()
    with suppress(TimeoutError):
        await asyncio.wait_for(serving, DRAIN_SECONDS)
    application.close()
    door.close()
    routes.close()
    events.close()
    log.close()


async def _prepare(application: App, routes: Routes, home: Home, door: Door) -> None:
    """Become ready, then follow the traffic. The pages are loaded meanwhile, in a thread."""
    load(application, home, door.guard)
    await routes.start()
    application.become_ready()
    gc.collect()
    gc.freeze()  # what stands now stays: the collector need not walk through all modules again and again
    gc.set_threshold(*_COLLECT)
    await routes.watch()


if __name__ == "__main__":
    start(run)
