"""What can be known, an hour before it leaves, about a flight out of New York."""

import davy
from davy import agg

NEW_YORK = "America/New_York"

# The feeds are polled every quarter of an hour. History gets the same delay, so that a model never learns from what a live
# request could not have seen.
departures = davy.Stream(
    "departures", time="departed", id="flight_id", delay="15min", source="data/departures.parquet",
    fields={"flight_id": str, "origin": str, "carrier": str, "dep_delay": int})
arrivals = davy.Stream(
    "arrivals", time="arrived", id="flight_id", delay="15min", source="data/arrivals.parquet",
    fields={"flight_id": str, "dest": str, "carrier": str, "flight": int, "tailnum": str, "arr_delay": int})
weather = davy.Stream(
    "weather", time="observed", id="observation", delay="15min", source="data/weather.parquet",
    fields={"observation": str, "origin": str, "temp": davy.Float(scale=2), "wind_speed": davy.Float(scale=2),
            "wind_gust": davy.Float(scale=2), "precip": davy.Float(scale=3), "visib": davy.Float(scale=2)})


class Airport(davy.View):
    """How busy and how late an airport is right now."""

    stream, entity = departures, "origin"
    departures_1h = agg.count(window="1h")
    mean_delay_1h = agg.mean("dep_delay", window="1h")
    mean_delay_3h = agg.mean("dep_delay", window="3h")
    worst_delay_3h = agg.max("dep_delay", window="3h")


class Airline(davy.View):
    """How an airline is doing at an airport."""

    stream, entity = departures, ("origin", "carrier")
    airline_delay_3h = agg.mean("dep_delay", window="3h")
    airline_delay_1d = agg.mean("dep_delay", window="1d")


class Destination(davy.View):
    """How late flights land there: of late it is the weather, over a month the airport."""

    stream, entity = arrivals, "dest"
    dest_delay_3h = agg.mean("arr_delay", window="3h")
    dest_delay_1d = agg.mean("arr_delay", window="1d")
    dest_delay_30d = agg.mean("arr_delay", window="30d")


class Aircraft(davy.View):
    """A late aircraft makes its next flight late. What it did before yesterday says nothing any more."""

    stream, entity = arrivals, "tailnum"
    aircraft_delay = agg.last("arr_delay", ttl="1d")


class Flight(davy.View):
    """The record of a flight number."""

    stream, entity = arrivals, ("carrier", "flight")
    usual_delay_30d = agg.mean("arr_delay", window="30d")
    spread_30d = agg.std("arr_delay", window="30d")


class AirportWeather(davy.View):
    stream, entity = weather, "origin"
    rain_6h = agg.sum("precip", window="6h")
    gust_3h = agg.max("wind_gust", window="3h")
    wind = agg.last("wind_speed", window="6h")
    visibility = agg.last("visib", window="6h")
    temperature = agg.last("temp", window="6h")


@davy.derive
def minute_of_day(scheduled):
    """Delays add up over the day, by the clocks of New York."""
    return scheduled.hour(NEW_YORK) * 60 + scheduled.minute(NEW_YORK)


@davy.derive
def weekday(scheduled):
    return scheduled.weekday(NEW_YORK)


@davy.derive
def worsening(mean_delay_1h, mean_delay_3h):
    """Whether delays are growing."""
    return davy.coalesce(mean_delay_1h, 0.0) - davy.coalesce(mean_delay_3h, 0.0)


@davy.derive
def slack(block_minutes, distance):
    """Minutes that the timetable allows beyond flying at eight miles a minute."""
    return block_minutes - distance / 8
