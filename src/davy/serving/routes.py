"""Which versions answer now. The routes follow the traffic in the database, and change only when a new version has answered its warm-up."""

from __future__ import annotations

import asyncio
import shutil
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from davy import errors
from davy.errors import DavyError, InvalidInput, NotFound, Unavailable, UnsafeModel
from davy.serving.assignment import Assignment, arms
from davy.serving.fleet import worker_name, workers_folder
from davy.serving.link import Link
from davy.serving.requests import RequestSchema
from davy.serving.traffic import Traffic, read_traffic
from davy.serving.udfs import Split
from davy.serving.worker_spec import Problem, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from davy.features.definition import FeatureSet
    from davy.features.online import OnlineFeatures
    from davy.home import Home
    from davy.registry.models import ModelVersion
    from davy.serving.fleet import Fleet

WATCH_SECONDS = 0.1
START_SECONDS = 60.0
LINGER_SECONDS = 5.0
PINNED_SECONDS = 60.0
_RETRY_SECONDS = (0.5, 30.0)


class VersionRoute:
    """Everything that one version needs to answer.

    Attributes:
        in_flight: requests that have chosen this version and have no answer yet.
        split: how its vectors are put together when its worker computes the derived features; None when the gateway does.
    """

    def __init__(self, found: ModelVersion, feature_set: FeatureSet, features: OnlineFeatures, link: Link, home: Home) -> None:
        assert found.signature is not None
        self.model, self.version, self.reference = found.name, found.version, found.reference
        self.feature_set = feature_set
        self.schema = RequestSchema(found.reference, feature_set.entities, feature_set.request)
        self.split = Split(feature_set) if feature_set.has_udfs else None
        self.reader = features.reader(feature_set if self.split is None else self.split.base, home.clock)
        self.encode = found.signature.encode
        self.pack = _pack_texts if found.signature.texts else struct.Struct(f"<{len(found.signature.columns)}d").pack
        self.link = link
        self.in_flight = 0
        self.used = time.perf_counter()
        self._entities = [(field.name, field.decode) for field in feature_set.entities]
        self._request = [(field.name, field.decode) for field in feature_set.request]

    def try_out(self) -> None:
        """Read one vector of nobody, so that what is opened at the first read is open, and a state that is not built yet is told now."""
        entities = {field.name: "" if field.kind == "str" else 0 for field in self.feature_set.entities}
        with suppress(InvalidInput):
            vector = self.reader.read_encoded(entities, {field.name: None for field in self.feature_set.request})
            if self.split is None:
                self.encode(vector.values)

    def typed(self, entities: dict[str, Any], request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Entity keys and request fields of this version as the log keeps them, from their stored form."""
        return {name: decode(entities[name]) for name, decode in self._entities}, {name: decode(request[name]) for name, decode in self._request}


def _pack_texts(*values: Any) -> bytes:
    return msgspec.msgpack.encode(values)


class ModelRoute:
    """One model's traffic: who answers which routing key, who answers when that one fails, and who is asked as well.

    Args:
        versions: the routes of all that the traffic names, also those that take no traffic.
    """

    def __init__(self, traffic: Traffic, versions: dict[int, VersionRoute]) -> None:
        self.revision, self.release = traffic.revision, traffic.release
        self.shares = traffic.versions
        self.assignment = Assignment(traffic.model, self.shares)
        self.arms = arms(self.shares, traffic.stable)
        self.versions = versions
        stable = traffic.stable if traffic.stable is not None else next(version for version, arm in self.arms.items() if arm == "stable")
        self.fallbacks = {version: versions[stable] if version != stable else None for version in versions}
        self.shadow = versions[traffic.shadow] if traffic.shadow is not None else None
        ordered = [versions[version] for version in sorted(versions)]
        self.schema = ordered[0].schema if len(ordered) == 1 else RequestSchema.union(traffic.model, [route.schema for route in ordered])
        common = set.intersection(*({field.name for field in route.feature_set.entities} for route in ordered))
        self.key_names = tuple(sorted(common))


class Routes:
    """The routes of all models.

    Args:
        fleet: who runs the workers.
        ensure_views: makes the online state of a feature set be kept; may take long, runs in a thread.
    """

    def __init__(self, home: Home, features: OnlineFeatures, fleet: Fleet, ensure_views: Callable[[FeatureSet], None], timeout: float) -> None:
        self._home, self._features, self._fleet, self._ensure_views, self._timeout = home, features, fleet, ensure_views, timeout
        self.models: dict[str, ModelRoute] = {}
        self.problems: dict[str, DavyError] = {}
        self._versions: dict[tuple[str, int], asyncio.Task[VersionRoute]] = {}
        self._pinned: dict[tuple[str, int], float] = {}
        self._idle: dict[tuple[str, int], float] = {}
        self._applying: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._targets: dict[str, tuple[int, ...]] = {}
        self._laid_out: set[tuple[str, int]] = set()
        self._seen = -1
        self.looked = False

    async def start(self) -> None:
        """Bring up what has traffic now; returns when each model answers or has failed to."""
        self._order()
        await self._look()
        await asyncio.gather(*(self._first_try(model) for model in list(self._applying)))

    async def watch(self) -> None:
        """Follow the database until cancelled. While it is away, go on with what it has said last."""
        told = ""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._look()
                told = ""
            except DavyError as error:
                if told != error.came:
                    told = error.came
                    _tell(f"The traffic can't be read: {error}")
            self._retire()

    def close(self) -> None:
        """Let go of all workers."""
        for _, task in self._applying.values():
            task.cancel()
        for prepared in self._versions.values():
            if _has_route(prepared):
                prepared.result().link.close()
            else:
                prepared.cancel()

    def model(self, name: str) -> ModelRoute:
        """The route of this model.

        Raises:
            NotFound: no such model, or none of its versions takes traffic. Unavailable: they can't be started, or not yet.
        """
        route = self.models.get(name)
        if route is not None:
            return route
        problem = self.problems.get(name)
        if problem is not None:
            raise Unavailable(f"No version of {name!r} can answer. {problem.came}", problem.allowed, problem.fix)
        if name in self._applying or not self.looked:
            raise Unavailable(f"{name!r} is being started.", "", "Try again in a moment.")
        from davy.registry.models import resolve

        with self._home.database.read() as connection:
            found = resolve(connection, name)
        raise NotFound(f"No version of {name!r} takes traffic.", "It answers once one of its versions has a weight.",
                       f"Give it some: davy traffic {name} {found.reference}=1")

    async def version(self, model: str, version: int) -> VersionRoute:
        """One version by number, started if it isn't running.

        Raises:
            NotFound: there is none. Unavailable: it does not come up in time. UnsafeModel, CorruptData: it can't be loaded.
        """
        try:
            route = await asyncio.wait_for(asyncio.shield(self._prepare(model, version)), START_SECONDS)
        except TimeoutError:
            raise _not_up(f"{model}@{version}") from None
        self._pinned[model, version] = time.perf_counter()
        return route

    async def _look(self) -> None:
        """Apply each model's traffic whose revision is new."""
        seen = await asyncio.to_thread(self._home.database.version)
        if seen == self._seen:
            return
        found = await asyncio.to_thread(self._read)
        for traffic in found:
            revision, task = self._applying.get(traffic.model, (0, None))
            if traffic.revision != revision:
                if task is not None:
                    task.cancel()
                self._targets[traffic.model] = traffic.standing
                self._applying[traffic.model] = traffic.revision, asyncio.create_task(self._apply(traffic))
        self._seen, self.looked = seen, True

    def _read(self) -> list[Traffic]:
        with self._home.database.read() as connection:
            return read_traffic(connection)

    async def _first_try(self, model: str) -> None:
        while model not in self.models and model not in self.problems:
            await asyncio.sleep(0.01)

    async def _apply(self, traffic: Traffic) -> None:
        """Switch to this traffic as soon as all its versions are warm; until then what was before stays."""
        pause, longest = _RETRY_SECONDS
        while True:
            try:
                prepared = [await asyncio.shield(self._prepare(traffic.model, version)) for version in traffic.standing]
                for route in prepared:
                    await self._until_warm(route.link, worker_name(route.model, route.version))
                self.models[traffic.model] = ModelRoute(traffic, {route.version: route for route in prepared})
                self.problems.pop(traffic.model, None)
                return
            except DavyError as error:
                self.problems[traffic.model] = error
                _tell(f"The traffic of {traffic.model} (revision {traffic.revision}) can't be applied, and stays as it was: {error}")
                await self._stand_in(traffic)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _stand_in(self, traffic: Traffic) -> None:
        """When another version keeps the traffic from being applied and nothing was before it, let the stable one answer everything meanwhile."""
        if traffic.model in self.models or traffic.stable is None:
            return
        with suppress(DavyError):
            route = await asyncio.shield(self._prepare(traffic.model, traffic.stable))
            await self._until_warm(route.link, worker_name(route.model, route.version))
            alone = msgspec.structs.replace(traffic, weights={route.reference: 1.0}, shadow=None)
            self.models[traffic.model] = ModelRoute(alone, {route.version: route})

    def _prepare(self, model: str, version: int) -> asyncio.Task[VersionRoute]:
        """The version's route, being made or made."""
        task = self._versions.get((model, version))
        if task is None or (task.done() and not _has_route(task)):
            task = self._versions[model, version] = asyncio.create_task(self._make(model, version))
            task.add_done_callback(_seen_by_us)
        return task

    async def _make(self, model: str, version: int) -> VersionRoute:
        found, feature_set = await asyncio.to_thread(self._materialize, model, version)
        self._laid_out.add((model, version))
        name = worker_name(model, version)
        folder = workers_folder(self._home)
        link = Link(found.reference, folder / f"{name}.sock", len(feature_set.outputs), self._timeout, lambda: self._fleet.restart(name))
        try:
            self._order()
            await self._until_warm(link, name)
            route = VersionRoute(found, feature_set, self._features, link, self._home)
            await asyncio.to_thread(route.try_out)
            return route
        except BaseException:
            link.close()
            raise

    def _materialize(self, model: str, version: int) -> tuple[ModelVersion, FeatureSet]:
        """Lay out the version's files and its worker's specification."""
        from davy.registry.adopt import adopt
        from davy.registry.definitions import get_feature_set
        from davy.registry.reference import Reference

        serving, found = self._home.config.serving, adopt(self._home, Reference(model, version))
        assert found.feature_set is not None
        assert found.signature is not None
        assert found.format is not None
        if found.format == "pyfunc" and not serving.allow_pyfunc:
            raise UnsafeModel(f"{found.reference} can only be loaded by mlflow.pyfunc, which runs any code that the model brings.",
                              "davy.toml does not allow that.", "If you trust whoever may register models: [serving] allow_pyfunc = true")
        with self._home.database.read() as connection:
            feature_set = get_feature_set(connection, found.feature_set)
        self._ensure_views(feature_set)
        name, folder = worker_name(model, version), workers_folder(self._home)
        files = folder / name
        shutil.rmtree(files, ignore_errors=True)
        for path, digest in found.files.items():
            target = files / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._home.blobs.download(digest, target)
        signature, derived = found.signature, (feature_set.derived, Split(feature_set).base.outputs) if feature_set.has_udfs else ((), ())
        spec = WorkerSpec(model, version, found.format, str(files), found.files, signature.output, len(signature.columns), str(self._home.root),
                          serving.allow_globals, serving.memory_mb, signature.names if found.origin is not None else (), *derived,
                          kinds=tuple(column.kind for column in signature.columns) if found.origin is not None else ())
        (folder / f"{name}.error").unlink(missing_ok=True)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(spec))
        return found, feature_set

    async def _until_warm(self, link: Link, name: str) -> None:
        trouble = workers_folder(self._home) / f"{name}.error"
        deadline = time.perf_counter() + START_SECONDS
        while not link.is_warm:
            with suppress(TimeoutError):
                await asyncio.wait_for(link.warm(), WATCH_SECONDS)
            if not link.is_warm and trouble.exists():
                raise _as_error(trouble)
            if time.perf_counter() > deadline:
                raise _not_up(link.name)

    def _order(self) -> None:
        """Tell the fleet which workers to keep."""
        self._fleet.want(worker_name(*key) for key in self._versions if key in self._laid_out)

    def _retire(self) -> None:
        """Stop workers that neither traffic nor a pinned request has wanted for a while, once they have answered everything."""
        now = time.perf_counter()
        wanted = {(model, version) for model, route in self.models.items() for version in route.versions}
        wanted |= {(model, version) for model, versions in self._targets.items() for version in versions}
        wanted |= {key for key, used in self._pinned.items() if now - used < PINNED_SECONDS}
        for key, task in list(self._versions.items()):
            busy = not task.done() or (_has_route(task) and task.result().in_flight > 0)
            if key in wanted or busy:
                self._idle.pop(key, None)
            elif now - self._idle.setdefault(key, now) > LINGER_SECONDS:
                del self._versions[key], self._idle[key]
                self._pinned.pop(key, None)
                self._laid_out.discard(key)
                if _has_route(task):
                    task.result().link.close()
                self._order()


def _has_route(task: asyncio.Task[VersionRoute]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _seen_by_us(task: asyncio.Task[VersionRoute]) -> None:
    """A failure belongs to whoever awaits the task; without one, asyncio would complain about it."""
    if not task.cancelled():
        task.exception()


def _not_up(name: str) -> Unavailable:
    return Unavailable(f"The process of {name} did not answer its warm-up within {START_SECONDS:.0f} s.", "", "See .davy/run/up.log, then try again.")


def _as_error(path: Path) -> DavyError:
    """What a worker wrote when it could not load its model."""
    problem = msgspec.json.decode(path.read_bytes(), type=Problem)
    kind = getattr(errors, problem.code, errors.ModelFailed)
    made: DavyError = kind(problem.came, problem.allowed, problem.fix)
    return made


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
