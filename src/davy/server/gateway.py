"""The process that answers: Granian's server on a listening socket that the supervisor holds, around the application."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from davy.core.time import parse_duration
from davy.events.wire import socket_path
from davy.features.online import OnlineFeatures
from davy.home import Home
from davy.server.adapter import Adapter
from davy.server.app import App
from davy.server.events import EventsClient
from davy.serving.fleet import SupervisedFleet, control_path
from davy.serving.gateway import Gateway
from davy.serving.predictions import PredictionLog, folder_of
from davy.serving.routes import Routes
from davy.serving.sockets import answers

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN_SECONDS = 8.0
PATIENCE_SECONDS = 3.0
BACKLOG = 1024
_LOOK_SECONDS = 0.02
_COLLECT = (20_000, 20, 50)
_holder: Any = SocketHolder  # its stub lacks the constructor


class _InheritedServer(Server):
    """Granian's embedded server on a socket that is listening already."""

    def __init__(self, application: App, descriptor: int) -> None:
        super().__init__(application, interface=Interfaces.RSGI, websockets=False, log_level=LogLevels.error, log_enabled=False)
        self._descriptor = descriptor
        self.workers_kill_timeout = int(DRAIN_SECONDS)

    def _init_shared_socket(self) -> None:
        self._shd: Any = _holder(self._descriptor, False, BACKLOG)
        self._sfd: Any = self._descriptor

    def finish(self) -> None:
        """Take no more, answer what has come, then return from `serve`."""
        self.interrupt_signal = True
        self.main_loop_interrupt.set()


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
    application = App(gateway, events)
    server = _InheritedServer(application, descriptor)
    preparing = loop.create_task(_prepare(application, routes, home))
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
    routes.close()
    events.close()
    log.close()


async def _prepare(application: App, routes: Routes, home: Home) -> None:
    """Become ready, then follow the traffic. The pages are loaded meanwhile, in a thread."""
    _in_thread(lambda: setattr(application, "pages", load_pages(home)))
    await routes.start()
    application.become_ready()
    gc.collect()
    gc.freeze()  # what stands now stays: the collector need not walk through all modules again and again
    gc.set_threshold(*_COLLECT)
    await routes.watch()


def load_pages(home: Home) -> Adapter:
    """The pages' application. Importing it takes half a second, so that it isn't done before the gateway answers."""
    from starlette.applications import Starlette
    from starlette.responses import Response

    from davy.errors import DavyError
    from davy.protocols import prometheus
    from davy.server.app import error_body, nowhere
    from davy.web.pages import routes

    async def explain(request: Any, error: Exception) -> Response:
        assert isinstance(error, DavyError)
        return Response(error_body(error), status_code=error.status, media_type="application/json")

    async def missing(request: Any, error: Exception) -> Response:
        return await explain(request, nowhere(request.url.path))

    return Adapter(Starlette(routes=[*routes(home), prometheus.route(home)], exception_handlers={DavyError: explain, 404: missing}))


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="pages", daemon=True).start()


def main() -> None:
    """`python -m davy.server.gateway --project DIR --home DIR --descriptor N`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--descriptor", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    home = Home.open(given.project, home=given.home)
    try:
        asyncio.run(run(home, given.descriptor))
    finally:
        home.close()


if __name__ == "__main__":
    main()
