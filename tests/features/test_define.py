"""What a definition means is its digest: the same in every process, another one when and only when the meaning changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import davy
from davy.core.fields import Field
from davy.core.time import parse_duration
from davy.errors import DefinitionError
from davy.features.define import Resolver, Stream, View, agg, derive, model
from davy.features.definition import FeatureSet, StreamSpec, ViewSpec

FIELDS: dict[str, Any] = {"origin": str, "tail": str, "delay": davy.Float(scale=3), "seats": int, "unrelated": str}


def stream(fields: dict[str, Any] | None = None, *, name: str = "flights", time: str = "at", **more: Any) -> Stream:
    return Stream(name, time=time, fields=FIELDS if fields is None else fields, **more)


def airport(source: Stream, *, mean: Any = None, key: Any = "origin") -> type[View]:
    class Airport(View):
        stream, entity = source, key
        departures_1h = agg.count(window="1h")
        mean_delay = agg.mean("delay", window="3h") if mean is None else mean
        last_seats = agg.last("seats", ttl="7d")

    return Airport


def rush(departures_1h, mean_delay):  # type: ignore[no-untyped-def]
    return departures_1h * mean_delay


def whole(view: type[View], features: list[Any] | None = None, **more: Any) -> FeatureSet:
    return Resolver([view]).feature_set([view, "distance"] if features is None else features, request={"distance": int} | more)


BASE = airport(stream())

SAME = {
    "the source": airport(stream(source="flights.parquet")),
    "an unrelated field": airport(stream({**FIELDS, "unrelated": int, "more": float})),
    "no unrelated field": airport(stream({name: kind for name, kind in FIELDS.items() if name not in ("unrelated", "tail")})),
    "the order of fields": airport(stream(dict(reversed(FIELDS.items())))),
    "how the log takes events": airport(stream(delay="2h", tolerance="1h", id="tail", ingest="came")),
    "the default hop, spelt out": airport(stream(), mean=agg.mean("delay", window="3h", hop="15min")),
    "the window in other units": airport(stream(), mean=agg.mean("delay", window="180min")),
}
CHANGED = {
    "window": airport(stream(), mean=agg.mean("delay", window="4h")),
    "hop": airport(stream(), mean=agg.mean("delay", window="3h", hop="5min")),
    "exact": airport(stream(), mean=agg.mean("delay", window="3h", hop="exact")),
    "aggregate": airport(stream(), mean=agg.max("delay", window="3h")),
    "field": airport(stream(), mean=agg.mean("seats", window="3h")),
    "scale": airport(stream({**FIELDS, "delay": davy.Float(scale=2)})),
    "kind": airport(stream({**FIELDS, "delay": davy.Decimal(scale=3)})),
    "kind of the key": airport(stream({**FIELDS, "origin": int})),
    "entity": airport(stream(), key="tail"),
    "two keys": airport(stream(), key=("origin", "tail")),
    "stream": airport(stream(name="departures")),
    "time": airport(stream(time="left")),
}


@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_value_changes_no_digest(case: str) -> None:
    assert SAME[case].spec.digest == BASE.spec.digest
    assert whole(SAME[case]).digest == whole(BASE).digest


def test_what_changes_a_value_changes_the_digest() -> None:
    digests = [BASE.spec.digest, *(view.spec.digest for view in CHANGED.values())]
    assert len(set(digests)) == len(digests)
    sets = [whole(BASE).digest, *(whole(view).digest for view in CHANGED.values())]
    assert len(set(sets)) == len(sets)


def test_a_feature_set_is_its_outputs_request_and_expressions_too() -> None:
    derived = derive(rush)

    def renamed(departures_1h, mean_delay):  # type: ignore[no-untyped-def]
        """The same expression under the same name, written in other words."""
        factor = mean_delay
        return departures_1h * factor

    def other(departures_1h, mean_delay):  # type: ignore[no-untyped-def]
        return departures_1h * mean_delay + 1

    renamed.__name__ = other.__name__ = "rush"
    base = whole(BASE, [BASE, derived])
    assert whole(BASE, [BASE, derive(renamed)]).digest == base.digest
    changed = [
        whole(BASE, [BASE, derive(other)]),
        whole(BASE, [derived, BASE]),
        whole(BASE, [BASE]),
        whole(BASE, [BASE, derived], more=float),
        whole(BASE, [BASE, derived], distance=davy.Float(scale=2)),
        base,
    ]
    assert len({found.digest for found in changed}) == len(changed)


def test_a_resolver_keeps_nothing_of_one_model_for_the_next() -> None:
    resolver = Resolver([BASE])
    resolver.feature_set([BASE, derive(rush)])
    with pytest.raises(DefinitionError, match="'rush', which is not defined"):
        resolver.feature_set([BASE, "rush"])


def test_definitions_survive_json() -> None:
    found = whole(BASE, [BASE, derive(rush), "distance"])
    again = msgspec.json.decode(msgspec.json.encode(found), type=FeatureSet)
    assert again == found
    assert again.sealed().digest == found.digest
    assert all(isinstance(view, ViewSpec) and view.sealed(again.stream(view.stream)) == view for view in again.views)


@pytest.mark.parametrize(
    ("window", "hop"),
    [("1min", "1min"), ("2h", "1min"), ("3h", "15min"), ("2d", "15min"), ("3d", "1h"), ("14d", "1h"), ("15d", "6h"), ("60d", "6h"), ("61d", "1d")],
)
def test_the_default_hop_grows_with_the_window(window: str, hop: str) -> None:
    spec = agg.count(window=window).spec("n", "n")
    assert (spec.window, spec.hop) == (parse_duration(window), parse_duration(hop))


def test_a_window_that_is_no_multiple_of_its_default_hop_is_refused() -> None:
    with pytest.raises(DefinitionError, match="not a multiple of its hop 1min"):
        agg.count(window="90s").spec("n", "n")
    assert agg.count(window="90s", hop="exact").spec("n", "n").hop == 1
    assert agg.count(window="90s", hop="30s").spec("n", "n").hop == 30_000_000


def test_kinds_of_features() -> None:
    whole_stream = Stream("s", time="at", fields={"k": str, "i": int, "f": float, "d": davy.Decimal, "b": bool, "t": davy.Time, "x": str})

    class All(View):
        stream, entity = whole_stream, "k"
        count_x = agg.count("x", window="1h")
        sum_i = agg.sum("i", window="1h")
        sum_b = agg.sum("b", window="1h")
        sum_d = agg.sum("d", window="1h")
        mean_b = agg.mean("b", window="1h")
        std_i = agg.std("i", window="1h")
        min_t = agg.min("t", window="1h")
        max_b = agg.max("b", window="1h")
        last_d = agg.last("d")
        last_x = agg.last("x")
        last_t = agg.last("t")

    found = Resolver([All]).feature_set([All, "k"])
    assert dict(zip(found.outputs, found.kinds, strict=True)) == {
        "count_x": "int", "sum_i": "int", "sum_b": "int", "sum_d": "float", "mean_b": "float", "std_i": "float", "min_t": "time", "max_b": "bool",
        "last_d": "float", "last_x": "str", "last_t": "time", "k": "str",
    }  # fmt: skip
    assert found.entities == (Field("k", "str"),)


def test_a_view_is_used_through_its_features() -> None:
    found = Resolver([BASE]).feature_set([BASE.mean_delay, "origin"])  # type: ignore[attr-defined]
    assert (found.outputs, found.kinds) == (("mean_delay", "origin"), ("float", "str"))
    assert repr(BASE.mean_delay) == "Airport.mean_delay"  # type: ignore[attr-defined]


def test_a_name_finds_a_view_that_is_not_listed() -> None:
    found = Resolver([BASE], [derive(rush)]).feature_set(["rush"])
    assert [view.name for view in found.views] == ["Airport"]
    assert found.outputs == ("rush",)
    assert isinstance(found.stream("flights"), StreamSpec)


def test_two_views_or_streams_of_one_name_are_told_apart() -> None:
    with pytest.raises(DefinitionError, match="two views named 'Airport'"):
        Resolver().feature_set([BASE, CHANGED["window"]])

    class Plane(View):
        stream, entity = globals()["stream"](delay="9h"), "tail"
        seats = agg.max("seats", window="1h")

    with pytest.raises(DefinitionError, match="two streams named 'flights'"):
        Resolver().feature_set([BASE, Plane])


def test_models_and_derived_features_stay_functions() -> None:
    assert derive(rush)(2, 3) == 6

    @model(entities=["origin"], features=[BASE], outcome=davy.Outcome("late"))
    def guess(data: Any) -> Any:
        """Learns nothing."""
        return data

    assert guess(7) == 7
    assert (guess.name, guess.__doc__) == ("guess", "Learns nothing.")
