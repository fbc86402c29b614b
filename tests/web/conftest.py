"""A home filled through the real interfaces, with names that try to break out of a page, served to a real browser."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from databases import write_settings
from davy import Float, Outcome, Stream, Time, View, agg, derive, model
from davy.core.clock import DrivenClock, new_id
from davy.core.digest import digest_bytes
from davy.core.time import EPOCH
from davy.events.client import connect
from davy.features.define import Resolver
from davy.features.definition import FeatureSet
from davy.features.expression import when
from davy.home import Home
from davy.registry.aliases import set_alias
from davy.registry.definitions import TrainingSetRecord, put_feature_set, put_training_set
from davy.registry.models import get_version, register, store_files
from davy.registry.signature import Signature
from davy.release.traffic import set_traffic
from davy.serving.predictions import PredictionLog, PredictionRecord, flush_predictions, folder_of
from davy.tracking.writer import start
from davy.web.pages import routes

from .loop import SETTINGS, fill_loop, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

MAY = 1_367_366_400_000_000
HOUR = 3_600_000_000
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

flights = Stream("flights", time="dep_time", fields={"origin": str, "carrier": str, "dep_delay": Float(scale=1)})
weather = Stream("weather", time="time", fields={"origin": str, "wind_speed": float})


class Airport(View):
    stream, entity = flights, "origin"
    departures_1h = agg.count(window="1h")
    mean_delay_3h = agg.mean("dep_delay", window="3h")
    worst_delay_1d = agg.max("dep_delay", window="1d")


class AirportWeather(View):
    stream, entity = weather, "origin"
    wind = agg.last("wind_speed", window="6h")


class Carrier(View):
    stream, entity = flights, "carrier"
    carrier_flights_7d = agg.count(window="7d")


@derive
def rush(departures_1h, scheduled):  # type: ignore[no-untyped-def]
    return when(scheduled.hour("America/New_York") >= 15, departures_1h * 2, departures_1h)


@model(entities=["origin", "carrier"], request={"distance": int, "scheduled": Time}, features=[Airport, AirportWeather, Carrier, rush, "distance", "carrier"],
       outcome=Outcome("arr_delay", matures_after="12h"))
def late(data: object) -> None:
    """Never trained here."""


@dataclass
class Filled:
    """What stands in the filled home."""

    home: Home
    predictions: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    feature_set: str = ""
    training_set: str = ""
    rolled_back: str = ""
    under_way: str = ""
    fares: int = 0
    address: str = ""


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("empty")
    write_settings(root, 'project = "empty"\n')
    home = Home(root)
    yield home
    home.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    root = tmp_path_factory.mktemp("flights")
    write_settings(root, SETTINGS)
    clock = DrivenClock(root / ".davy" / "run" / "clock", start=MAY - 26 * HOUR, seed=7)
    home = Home(root, clock=clock)
    found = Filled(home)
    specs = Resolver([Airport, AirportWeather, Carrier], [rush]).model(late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAVY_ACTOR", "ada")
        _runs(found, specs.feature_set, root)
        clock.set(MAY - 24 * HOUR)
        with home.database.read() as connection:
            signature = get_version(connection, "late", 1).signature
        assert signature is not None
        found.rolled_back, found.under_way, found.fares = fill_loop(home, clock, specs.feature_set, signature, found.training_set, HOSTILE)
        clock.set(MAY - 20 * HOUR)
        set_traffic(home, "late", {"late@1": 1.0})
        clock.set(MAY - 2 * HOUR)
        set_traffic(home, "late", {"late@1": 0.9, "late@2": 0.1}, actor=HOSTILE)
    _predictions(found, specs.feature_set, clock)
    clock.set(MAY)
    _events(home)
    watch(home)
    yield found
    home.close()


def _events(home: Home) -> None:
    count = 500
    times = [EPOCH + timedelta(microseconds=MAY - 20 * HOUR + index * 140_000_000) for index in range(count)]
    airports = [("JFK", "LGA", "EWR")[index % 3] for index in range(count)]
    delays = [((index * 37) % 900 - 100) / 10 for index in range(count)]
    winds = [(index * 1.37) % 30 for index in range(60)]
    with connect(home) as log:
        log.ensure_views([(flights.spec, Airport.spec), (weather.spec, AirportWeather.spec), (flights.spec, Carrier.spec)])
        log.push_history(flights.spec, pl.DataFrame({"dep_time": times, "origin": airports, "carrier": ["B6"] * count, "dep_delay": delays}))
        log.push_history(weather.spec, pl.DataFrame({"time": times[:60], "origin": airports[:60], "wind_speed": winds}))


def _runs(found: Filled, features: FeatureSet, root: Path) -> None:
    home = found.home
    found.feature_set = features.digest
    details = {"digest": digest_bytes(b"rows"), "feature_set": features.digest, "rows": 81_234, "as_known": "ingest", "start": None,
               "end": 1_366_516_800_000_000, "watermarks": {"flights": 500, "weather": 60}, "spine_digest": digest_bytes(b"spine"),
               "columns": {name: digest_bytes(name.encode()) for name in features.outputs}}
    record = TrainingSetRecord(digest_bytes(b"rows"), features.digest, 81_234, details)
    found.training_set = record.digest
    with home.database.begin() as connection:
        put_feature_set(connection, features, clock=home.clock)
        put_training_set(connection, record, clock=home.clock)
    carriers = ["AA", "B6", "DL", HOSTILE]
    signature = Signature.of(features.outputs, features.kinds, {"carrier": sorted(carriers)}, output="probability", classes=(False, True))
    for number, (name, kind) in enumerate((("baseline", "sklearn"), ("boosted", "lightgbm")), 1):
        with start(name, experiment="late", params={"learning_rate": 0.05 * number, "trees": 200, "note": HOSTILE}, home=home) as run:
            for step in range(2500 if number == 2 else 40):
                run.log({"train/logloss": 0.7 / (1 + step * 0.01) + 0.02 * ((step * 7919) % 13) / 13, "valid/logloss": 0.75 / (1 + step * 0.008)}, step=step)
            run.log(auc=0.66 + 0.03 * number, rows=81_234)
            run.artifact(PLOT.encode(), "roc.svg")
            run.text("precision,recall\n0.5,0.6\n" + HOSTILE, "report.csv")
            run.artifact(b"<h1>hello</h1><script>document.title='broken'</script>", "page.html")
            run.text(HOSTILE, "notes & <b>bold.txt")
            run.tag("davy.note", HOSTILE)
        found.runs[name] = run.id
        files = store_files(home.blobs, {"model.bin": bytes([number]) * 100})
        with home.database.begin() as connection:
            register(connection, clock=home.clock, actor=home.actor, name="late", format=kind, files=files, signature=signature, feature_set=features,
                     run_id=run.id, training_set=record.digest)
    with pytest.raises(RuntimeError), start(HOSTILE, experiment=HOSTILE, home=home) as run:  # noqa: PT012 - the run ends as failed
        run.log(auc=float("nan"))
        found.runs["hostile"] = run.id
        raise RuntimeError
    with home.database.begin() as connection:
        set_alias(connection, clock=home.clock, actor=home.actor, name="late", alias="production", version=1)
        register(connection, clock=home.clock, actor=home.actor, name=HOSTILE.replace("/", ""), format="pickle", files=files, signature=signature,
                 feature_set=features)


PLOT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 120" width="200" height="120"><rect width="200" height="120" fill="#fff"/>
<script>document.documentElement.setAttribute('data-ran', '1')</script>
<path d="M10 110 C40 30 90 20 190 10" fill="none" stroke="#2f7fc4" stroke-width="2"/><path d="M10 110 L190 10" stroke="#aaa"/>
<text x="60" y="118" font-size="8">False positive rate</text></svg>"""


def _predictions(found: Filled, features: FeatureSet, clock: DrivenClock) -> None:
    log = PredictionLog(folder_of(found.home))
    for index in range(300):
        moment = MAY - 19 * HOUR + index * 200_000_000
        clock.set(moment)
        values = [index % 17, 12.345678901234567 + index, 88.0, None if index % 5 == 0 else 11.5, index, (index % 17) * 2, 1089, "B6"]
        version, arm = (2, "canary") if index % 10 == 0 else (1, "stable")
        entities = {"origin": "JFK", "carrier": HOSTILE if index == 299 else "B6"}
        record = PredictionRecord(
            new_id(clock), moment, moment + 900, "late", version, arm, False, f"user-{index}", features.digest, entities,
            {"distance": 1089, "scheduled": moment + HOUR}, {"flights": 200 + index, "weather": 40}, values, 0.1234567 + index / 1000, 800 + index, 60, 300)
        log.append([record])
        found.predictions.append(record.id)
        if index == 250:
            flush_predictions(found.home)
    log.close()


@pytest.fixture(scope="session")
def address(filled: Filled) -> Iterator[str]:
    yield from served(filled.home)


@pytest.fixture(scope="session")
def empty_address(empty_home: Home) -> Iterator[str]:
    yield from served(empty_home)


def served(home: Home) -> Iterator[str]:
    import asyncio

    from granian.constants import Interfaces
    from granian.server.embed import Server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(Starlette(routes=routes(home)), address="127.0.0.1", port=port, interface=Interfaces.ASGI)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()), daemon=True)
    thread.start()
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(server.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(home))) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield opened
        opened.close()


@dataclass
class Tab:
    """A page of the browser, with all that it complained of and asked for."""

    page: Page
    complaints: list[str]
    asked: list[str]


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    yield from open_tab(browser, "light")


def open_tab(browser: Browser, scheme: str) -> Iterator[Tab]:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1366, "height": 768})  # type: ignore[arg-type]
    page = context.new_page()
    found = Tab(page, [], [])
    page.on("console", lambda message: found.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.asked.append(request.url))
    page.on("dialog", lambda dialog: (found.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    yield found
    context.close()
