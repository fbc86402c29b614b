"""The parts of a serving process that take long to import, loaded in a thread so that the first answers needn't wait for them."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from typing import TYPE_CHECKING, Any

from davy.server.adapter import Adapter

if TYPE_CHECKING:
    from davy.auth.guard import Guard
    from davy.home import Home
    from davy.protocols.mlflow.api import Api
    from davy.server.app import App


def load(application: App, home: Home, guard: Guard | None) -> None:
    """Load MLflow's protocol, then the pages, in a thread: importing them takes longer than the gateway may wait."""
    loop = asyncio.get_running_loop()

    def work() -> None:
        try:
            api = load_mlflow(home)
            loop.call_soon_threadsafe(application.track, api)
            application.pages = load_pages(home, guard, alone=application.tracks_alone)
        except BaseException:  # noqa: BLE001 - without these parts the process is of no use
            traceback.print_exc()
            os._exit(1)  # the supervisor starts it again, and tells when that does not help

    threading.Thread(target=work, name="pages", daemon=True).start()


def load_mlflow(home: Home) -> Api:
    """What answers MLflow's clients."""
    from davy.protocols.mlflow.api import Api
    from davy.store.writer import GroupWriter

    return Api(home, GroupWriter(home.database, lazy=home.config.tracking.durability == "process"))


def load_pages(home: Home, guard: Guard | None, *, alone: bool = False) -> Adapter:
    """The pages' application.

    Args:
        alone: of a server that tracks runs and models and does nothing else.
    """
    from starlette.applications import Starlette
    from starlette.responses import Response

    from davy.errors import DavyError, NotFound
    from davy.protocols import prometheus
    from davy.server.app import nowhere
    from davy.server.refusals import error_body
    from davy.web import account, login
    from davy.web.pages import routes
    from davy.web.render import page

    async def explain(request: Any, error: Exception) -> Response:
        assert isinstance(error, DavyError)
        return Response(error_body(error), status_code=error.status, media_type="application/json")

    async def missing(request: Any, error: Exception) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return await explain(request, nowhere(request.url.path))
        lost = NotFound(f"There is no page at {request.url.path}.", "", "Go on from the line above, or search.")
        return page(request, "error.html", status=lost.status, error=lost, project=home.config.project)

    found = [*routes(home, alone=alone), prometheus.route(home), *((*login.routes(home, guard), *account.routes(home, guard)) if guard is not None else ())]
    application = Starlette(routes=found, exception_handlers={DavyError: explain, 404: missing})
    application.state.alone = alone
    return Adapter(application)
