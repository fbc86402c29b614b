"""The pages of a home, as Starlette routes. Each reads in a thread of the pool, and changes nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from davy.errors import DavyError, NotFound
from davy.web import artifacts, comparing, gates, journal, models, releases, runs, streams, traces
from davy.web.render import page, static, to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from davy.home import Home

Reader = "Callable[[Home, Request], Response]"


def routes(home: Home, *, alone: bool = False) -> list[Route]:
    """All pages of this home; mount them at the root of an application.

    Args:
        alone: the server tracks runs and models and does nothing else, so that its first page is the one of runs.
    """
    readers: list[tuple[str, Callable[[Home, Request], Response]]] = [
        ("/models", models.all_models),
        ("/models/{name}", models.model),
        ("/models/{name}/{version:int}", models.version),
        ("/models/{name}/{version:int}/gate", gates.gate),
        ("/models/{name}/releases", releases.releases),
        ("/releases/{release}", releases.release),
        ("/releases/{release}/series", releases.release_series),
        ("/alerts", alerts),
        ("/feature-sets/{digest}", models.feature_set),
        ("/training-sets/{digest}", models.training_set),
        ("/runs", runs.all_runs),
        ("/compare", comparing.compare),
        ("/compare/series", comparing.compare_series),
        ("/runs/{run}", runs.run),
        ("/runs/{run}/metrics", runs.metric),
        ("/runs/{run}/artifacts/{path:path}", artifacts.artifact),
        ("/traces", traces.all_traces),
        ("/traces/{trace}", traces.trace),
        ("/predictions/{prediction}", prediction),
        ("/streams", streams.streams),
        ("/journal", journal.journal),
        ("/search", search),
    ]
    found: list[tuple[str, str, Callable[[Request], Response]]] = [(path, reader.__name__, partial(reader, home)) for path, reader in readers]
    found += [("/", "runs_first", runs_first)] if alone else _watching(home)
    return [Route("/static/{name}", static), *(Route(path, _guarded(home, reader), name=name) for path, name, reader in found)]


def _watching(home: Home) -> list[tuple[str, str, partial[Response]]]:
    """The pages of what is live, which bring the engines along; a server that only tracks does without."""
    from davy.web import monitoring, overview, quality
    from davy.web.watched import Watched

    watchers: list[tuple[str, Callable[[Watched, Request], Response]]] = [
        ("/", overview.overview),
        ("/models/{name}/monitoring", monitoring.monitoring),
        ("/models/{name}/monitoring/traffic", monitoring.traffic_series),
        ("/models/{name}/monitoring/distribution", monitoring.distribution_series),
        ("/models/{name}/monitoring/quality", quality.quality_series),
    ]
    watched = Watched(home)
    return [(path, watcher.__name__, partial(watcher, watched)) for path, watcher in watchers]


def alerts(home: Home, request: Request) -> Response:
    """`/alerts`."""
    from davy.web.alerts import alerts

    return alerts(home, request)


def prediction(home: Home, request: Request) -> Response:
    """`/predictions/ID`."""
    from davy.web.predictions import prediction

    return prediction(home, request)


def runs_first(request: Request) -> Response:
    """`/` of a server that only tracks."""
    return RedirectResponse("/runs", 303)


def search(home: Home, request: Request) -> Response:
    """Go to what an id or a name means: a model or version, a run, or a prediction."""
    from davy.registry.models import resolve
    from davy.serving.predictions import find_prediction
    from davy.tracking.runs import get_run

    text = request.query_params.get("q", "").strip()
    if not text:
        return RedirectResponse("/", 303)
    with home.database.read() as connection:
        try:
            found = resolve(connection, text)
            return RedirectResponse(to("models", found.name, *([found.version] if "@" in text else [])), 303)
        except DavyError:
            pass
        try:
            return RedirectResponse(to("runs", get_run(connection, text).id), 303)
        except DavyError:
            pass
    try:
        return RedirectResponse(to("predictions", find_prediction(home, text).id), 303)
    except NotFound:
        pass
    error = NotFound(f"Nothing is called {text!r}.", "A prediction is found by its whole id, a run by the first six digits of its id, a model by its name.",
                     "Correct it, and search again.")
    return _error(home, request, error)


def _guarded(home: Home, reader: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(reader, request)
        except DavyError as error:
            return _error(home, request, error)

    return endpoint


def _error(home: Home, request: Request, error: DavyError) -> Response:
    context: dict[str, Any] = {"error": error, "project": home.config.project}
    return page(request, "error.html", status=error.status, **context)
