"""Replay: what was served is what the log gives, late events are lateness and no skew, and tampering is found with its cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable

import davy
from davy.core.clock import DrivenClock, new_id
from davy.errors import CorruptData
from davy.events import client
from davy.features.define import Resolver, Stream, View, agg, derive
from davy.features.definition import FeatureSet
from davy.features.kernel import code_digest
from davy.features.online import OnlineFeatures
from davy.home import Home
from davy.monitoring.monitor import Monitor
from davy.monitoring.skew import CODE, DEFINITION, EVENT, STATE, Replay, replay
from davy.monitoring.summary import alert_states, last_replay
from davy.registry.models import register, store_files
from davy.registry.signature import Signature
from davy.schema.tables import feature_sets
from davy.serving.predictions import PredictionLog, PredictionRecord, flush_predictions, folder_of
from events_kit import HOUR, NOON, SECOND, driven_home

MINUTE = 60 * SECOND
FIELDS: dict[str, Any] = {"card": str, "amount": float, "online": bool, "due": davy.Time}
payments = Stream("payments", time="at", fields=FIELDS, tolerance="1min")
logins = Stream("logins", time="at", fields={"card": str, "country": str}, tolerance="1min")


class Card(View):
    stream, entity = payments, "card"
    n_1h = agg.count(window="1h")
    mean_1h = agg.mean("amount", window="1h")
    due = agg.max("due", window="1h")


class Login(View):
    stream, entity = logins, "card"
    country = agg.last("country")


@derive
def above(price, mean_1h):  # type: ignore[no-untyped-def]
    return price - mean_1h


def features() -> FeatureSet:
    return Resolver([Card, Login]).feature_set([Card, Login, above, "price", "asked", "card"], request={"price": davy.Decimal, "asked": davy.Time})


class Shop:
    """A home in which payments are pushed and vectors are served, both at moments of its own clock."""

    def __init__(self, root: Path) -> None:
        self.home = driven_home(root)
        self.features = features()
        self.log = client.connect(self.home)
        self.log.ensure_views([(self.features.stream(view.stream), view) for view in self.features.views])
        self.predictions = PredictionLog(folder_of(self.home))
        self.register(self.features)
        self.reader = OnlineFeatures(self.home.online).reader(self.features, self.home.clock)

    def register(self, chosen: FeatureSet) -> None:
        names = {name: ["a"] for name, kind in zip(chosen.outputs, chosen.kinds, strict=True) if kind == "str"}
        signature = Signature.of(chosen.outputs, chosen.kinds, names)
        with self.home.database.begin() as connection:
            files = store_files(self.home.blobs, {"model.txt": b"a tree"})
            register(connection, clock=self.home.clock, actor="tester", name="fraud", format="lightgbm", files=files, signature=signature, feature_set=chosen)

    def at(self, moment: int) -> None:
        assert isinstance(self.home.clock, DrivenClock)
        self.home.clock.set(moment)

    def pay(self, moment: int, card: str = "a", amount: float | None = 1.5) -> None:
        self.log.push(payments.spec, [{"at": moment, "card": card, "amount": amount, "online": True, "due": moment + HOUR}])

    def serve(self, card: str | None = "a", **changes: Any) -> PredictionRecord:
        request = {"price": 9.99, "asked": NOON}
        vector = self.reader.read({"card": card}, request)
        record = PredictionRecord(
            new_id(self.home.clock), vector.time, vector.time + 7, "fraud", 1, "fraud@1", False, str(card), self.features.digest, {"card": card}, request,
            vector.watermarks, vector.values, 0.5, 900, 80, 200, code_digest(),
        )  # fmt: skip
        self.predictions.append([msgspec.structs.replace(record, **changes)])
        return record

    def day(self) -> None:
        """Twenty payments and logins of two cards, a prediction after each."""
        for number in range(20):
            moment = NOON + number * 11 * MINUTE
            self.at(moment)
            self.pay(moment - number * SECOND, "ab"[number % 2], None if number % 5 == 0 else number / 3)
            self.log.push(logins.spec, [{"at": moment, "card": "ab"[number % 3 % 2], "country": f"c{number}"}])
            self.serve("ab"[number % 2])
        self.serve("nobody")
        self.serve(None)

    def close(self) -> None:
        self.predictions.close()
        self.log.close()
        self.home.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(tmp_path)
    yield opened
    opened.close()


def settle(shop: Shop) -> None:
    """Everything is in its table."""
    shop.log.flush()
    flush_predictions(shop.home)


def forget_runs(home: Home) -> None:
    """The sorted runs are derived from the tables, and may be deleted."""
    shutil.rmtree(home.path / "sorted", ignore_errors=True)


def alter(home: Home) -> None:
    """Change a value of the log with the table format's own tools, as somebody with access to the storage could."""
    table = DeltaTable(str(home.path / "tables" / "events" / "payments"))
    assert table.update(predicate="_offset = 4", updates={"amount": "CAST(77.25 AS DECIMAL(18, 6))"})["num_updated_rows"] == 1


def causes(found: Replay) -> set[str]:
    return {item.cause for item in found.different}


def test_what_was_served_comes_out_equal(shop: Shop) -> None:
    shop.day()
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal, found.different) == (22, 22, [])
    assert found.lateness["features"] == {}
    assert replay(shop.home, "fraud") == found
    forget_runs(shop.home)
    assert replay(shop.home, "fraud") == found


def test_predictions_of_the_last_moment_are_checked_with_all_events_behind_them(shop: Shop) -> None:
    """Nothing was flushed: some predictions and events are in the write-ahead logs only."""
    shop.day()
    settle(shop)
    replay(shop.home, "fraud")
    shop.pay(NOON + 5 * HOUR, amount=1000.0)
    shop.at(NOON + 5 * HOUR)
    shop.serve()
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal) == (23, 23)


def test_the_json_is_what_the_command_line_promises(shop: Shop) -> None:
    shop.day()
    found = json.loads(msgspec.json.encode(replay(shop.home, "fraud")))
    assert list(found) == ["checked", "equal", "different", "lateness"]
    assert set(found["lateness"]) == {"streams", "features"}
    assert set(found["lateness"]["streams"]["payments"]) == {"events", "late", "p50_us", "p99_us", "max_us"}
    shop.serve(values=[0, None, None, None, None, 9.99, NOON, "a"])
    (item, *_) = json.loads(msgspec.json.encode(replay(shop.home, "fraud")))["different"]
    assert list(item) == ["prediction", "feature", "served", "recomputed", "cause"]


def test_no_predictions(shop: Shop) -> None:
    assert replay(shop.home, "fraud") == Replay(0, 0, [], {"streams": {}, "features": {}})


def test_late_events_are_lateness_and_no_difference(shop: Shop) -> None:
    shop.day()
    before = replay(shop.home, "fraud")
    late = NOON + 5 * HOUR
    shop.at(late)
    for number in range(10):
        shop.pay(NOON + number * 11 * MINUTE - 1, amount=500.0)
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal, found.different) == (22, 22, [])
    assert before.lateness["features"] == {}
    assert set(found.lateness["features"]) == {"n_1h", "mean_1h", "due", "above"}
    assert found.lateness["features"]["n_1h"]["changed"] > 0
    assert found.lateness["features"]["n_1h"]["max"] >= 1
    assert found.lateness["streams"]["payments"]["late"] == 0, "they came after the last prediction"
    shop.serve()
    after = replay(shop.home, "fraud")
    assert (after.checked, after.equal) == (23, 23)
    assert after.lateness["streams"]["payments"]["late"] == 10
    assert after.lateness["streams"]["logins"]["late"] == 0
    assert after.lateness["streams"]["payments"]["max_us"] == late - NOON + 1


def test_spans_and_versions(shop: Shop) -> None:
    shop.day()
    assert replay(shop.home, "fraud", start=NOON + 55 * MINUTE).checked == 17
    assert replay(shop.home, "fraud", end=NOON + 55 * MINUTE).checked == 5
    assert replay(shop.home, "fraud", version=1).checked == 22
    assert replay(shop.home, "fraud", version=2).checked == 0
    assert replay(shop.home, "frod").checked == 0


def test_two_versions_with_other_features(shop: Shop) -> None:
    shop.day()
    other = Resolver([Card]).feature_set([Card.n_1h, "card"])  # type: ignore[attr-defined]
    shop.register(other)
    vector = OnlineFeatures(shop.home.online).reader(other, shop.home.clock).read({"card": "a"})
    shop.serve(version=2, feature_set=other.digest, request={}, values=vector.values, watermarks=vector.watermarks, time=vector.time)
    shop.serve(version=2, feature_set=other.digest, request={}, values=[99, "a"], watermarks=vector.watermarks, time=vector.time)
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal) == (24, 23)
    assert [(item.feature, item.served, item.cause) for item in found.different] == [("n_1h", 99, STATE)]


@pytest.mark.parametrize("place", range(8))
def test_a_changed_vector_is_damaged_state(shop: Shop, place: int) -> None:
    shop.day()
    right = shop.serve("a")
    wrong = list(right.values)
    wrong[place] = {int: 77, float: 77.5, str: "zz"}[type(wrong[place])]
    damaged = new_id(shop.home.clock)
    shop.serve("a", values=wrong, id=damaged)
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal) == (24, 23)
    name = shop.features.outputs[place]
    assert found.different == [msgspec.structs.replace(found.different[0], prediction=damaged, feature=name, cause=STATE)]
    recomputed = found.different[0].recomputed
    assert recomputed == right.values[place]


def test_one_bit_is_a_difference(shop: Shop) -> None:
    shop.day()
    right = shop.serve("a")
    values = list(right.values)
    values[1] = values[1] + 2**-50
    assert values[1] != right.values[1]
    shop.serve("a", values=values)
    assert [item.feature for item in replay(shop.home, "fraud").different] == ["mean_1h"]
    shop.serve("a", values=[None, *right.values[1:]])
    assert {(item.feature, item.served is None) for item in replay(shop.home, "fraud").different} == {("mean_1h", False), ("n_1h", True)}


def test_a_vector_of_other_code_is_told_from_damage(shop: Shop) -> None:
    shop.day()
    shop.serve("a", values=[5, 5.0, None, None, None, 9.99, NOON, "a"], kernel="0123456789ab")
    assert causes(replay(shop.home, "fraud")) == {CODE}


@pytest.mark.parametrize("fresh", [True, False])
def test_an_altered_event_is_found(shop: Shop, fresh: bool) -> None:
    """Also where the files that were derived from the log still hold what it was."""
    shop.day()
    settle(shop)
    assert replay(shop.home, "fraud").different == []
    alter(shop.home)
    if fresh:
        forget_runs(shop.home)
    found = replay(shop.home, "fraud")
    assert causes(found) == {EVENT}
    assert {item.feature for item in found.different} == {"mean_1h", "above"}
    assert found.equal + len({item.prediction for item in found.different}) == found.checked


def test_an_altered_stream_is_not_blamed_for_another(shop: Shop) -> None:
    shop.day()
    settle(shop)
    alter(shop.home)
    right = shop.serve("nobody")
    shop.serve("nobody", values=[*right.values[:3], "atlantis", *right.values[4:]])
    found = replay(shop.home, "fraud")
    assert {item.feature: item.cause for item in found.different} == {"mean_1h": EVENT, "above": EVENT, "country": STATE}


def test_a_rewritten_file_is_named(shop: Shop) -> None:
    shop.day()
    settle(shop)
    replay(shop.home, "fraud")
    (path,) = (shop.home.path / "tables" / "events" / "payments").glob("*.parquet")
    pl.read_parquet(path).with_columns(pl.col("amount") * 2).write_parquet(path)
    with pytest.raises(CorruptData, match=path.name):
        replay(shop.home, "fraud")


def test_damaged_derived_files_are_made_anew_and_blame_nobody(shop: Shop) -> None:
    shop.day()
    assert replay(shop.home, "fraud").different == []
    for path in (shop.home.path / "sorted" / "payments").rglob("amount.npy"):
        data = bytearray(path.read_bytes())
        data[-16:-8] = (12345).to_bytes(8, "little")
        path.write_bytes(data)
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal, found.different) == (22, 22, [])


def test_a_field_that_the_stream_got_later_alters_no_event(shop: Shop) -> None:
    """The digests of the log cover fields that this model has never heard of."""
    wider = Stream("payments", time="at", fields=FIELDS | {"country": str}, tolerance="1min")
    shop.day()
    shop.log.push(wider.spec, [{"at": shop.home.clock.now(), "card": "a", "amount": 1.0, "country": "dk"}])
    shop.serve("a")
    shop.serve("a", values=[5, 5.0, None, None, None, 9.99, NOON, "a"])
    found = replay(shop.home, "fraud")
    assert (found.checked, found.equal) == (24, 23)
    assert causes(found) == {STATE}


def damage(shop: Shop, old: str, new: str) -> None:
    with shop.home.database.begin() as connection:
        text = connection.scalar(sa.select(feature_sets.c.json).where(feature_sets.c.digest == shop.features.digest))
        assert old in text
        connection.execute(sa.update(feature_sets).where(feature_sets.c.digest == shop.features.digest).values(json=text.replace(old, new)))


def test_a_damaged_definition_is_found(shop: Shop) -> None:
    shop.day()
    settle(shop)
    damage(shop, '"window":3600000000', '"window":1200000000')
    found = replay(shop.home, "fraud")
    assert found.checked == 22
    assert causes(found) == {DEFINITION}
    assert {"n_1h", "mean_1h", "above"} <= {item.feature for item in found.different}


def test_a_definition_that_can_not_be_read_is_corrupt(shop: Shop) -> None:
    shop.day()
    settle(shop)
    damage(shop, '"window":3600000000', '"window":"an hour"')
    with pytest.raises(CorruptData, match=r"feature set .* is damaged") as caught:
        replay(shop.home, "fraud")
    assert "backup" in caught.value.fix


def test_what_is_served_is_replayed_on_a_schedule(shop: Shop) -> None:
    monitor = Monitor(shop.home)
    shop.day()
    settle(shop)
    monitor.collector.collect()
    assert not monitor.replay("other")
    assert monitor.replay("fraud")
    first = last_replay(shop.home, "fraud")
    assert first is not None
    shop.at(NOON + 4 * HOUR)
    assert not monitor.replay("fraud"), "nothing came since, and it is not time yet"
    shop.at(NOON + 8 * HOUR)
    shop.serve("a")
    shop.serve("a", values=[5, 5.0, None, None, None, 9.99, NOON, "a"])
    settle(shop)
    monitor.collector.collect()
    shop.at(NOON + 8 * HOUR + MINUTE)
    assert monitor.replay("fraud")
    found = last_replay(shop.home, "fraud")
    assert found is not None
    assert (found.start, found.checked, found.equal) == (first.until, 5, 4), "three were too fresh for the first one"
    monitor.judge("fraud")
    (state,) = [state for state in alert_states(shop.home, "fraud") if state.rule == "skew"]
    assert (state.state, state.value) == ("firing", 1.0)
    assert "1 of 5 replayed vectors differ" in state.text
