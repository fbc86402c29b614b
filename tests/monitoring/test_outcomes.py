"""Outcomes find their predictions whatever the order, the number and the spelling in which they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest

from davy.config import Kpi, Release
from davy.core.clock import new_id
from davy.core.fields import Field
from davy.errors import InvalidInput
from davy.events import client
from davy.features.kpi import kpi
from davy.monitoring.cohorts import mature_until, read_cohorts, update_cohorts
from davy.monitoring.kpis import kpi_events
from davy.monitoring.outcomes import count_outcomes, labelled
from davy.release.sources import Outcomes
from davy.training.evaluation import auc
from events_kit import HOUR, NOON, SECOND
from monitoring_kit import MINUTE, NAME, Served, project_with, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DELAY = Field("delay", "float", 6)
MATURES = 2 * HOUR


class Told(Served):
    """A home whose outcomes are pushed, too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, training_rows=200)
        self.events = client.connect(self.home)
        self.definition = project_with(root, self.features, (cost, gain)).models[NAME]

    def tell(self, *rows: dict[str, Any], at: int | None = None) -> None:
        if at is not None:
            self.home.clock.set(at)  # type: ignore[attr-defined]
        self.events.outcomes(NAME, list(rows), DELAY)
        self.events.flush()

    def values(self) -> list[Any]:
        self.settle()
        return labelled(self.home, NAME, matures_after=MATURES)["value"].to_list()

    def close(self) -> None:
        self.events.close()
        super().close()


@kpi(unit="USD")
def cost(prediction: float, outcome: float) -> float:
    return 200.0 if outcome > 15 and prediction < 0.5 else 20.0 if outcome <= 15 and prediction >= 0.5 else 0.0


def gain(prediction: float, outcome: float) -> float:
    if outcome < 0:
        raise ValueError("never negative")
    return outcome / 2


PROJECT = '''
import davy
from davy import agg
payments = davy.Stream("payments", time="at", fields={"card": str, "amount": float})

class Card(davy.View):
    stream, entity = payments, "card"
    n_1h = agg.count(window="1h")

def cost(prediction, outcome):
    return 200.0 if outcome > 15 and prediction < 0.5 else 0.0

@davy.kpi(bad=lambda value: value > 10)
def gain(prediction, outcome):
    return outcome / 2

@davy.model(entities=["card"], features=[Card], outcome=davy.Outcome("delay"), kpis=[cost, gain])
def fraud(data):
    """Never trained here."""
'''


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    opened = Told(tmp_path)
    yield opened
    opened.close()


def test_by_prediction(told: Told) -> None:
    first, second, third = told.serve(vectors(3))
    told.tell({"prediction": second.id, "delay": 20}, {"prediction": first.id, "delay": 3.5, "time": NOON + HOUR}, at=NOON + 3 * HOUR)
    assert told.values() == [3.5, 20.0, None]
    frame = labelled(told.home, NAME, matures_after=MATURES)
    assert frame["known"].to_list() == [NOON + HOUR, NOON + 3 * HOUR, None]
    assert frame["arrived"].null_count() == 1
    assert third.id == frame["prediction"][2]


def test_the_same_outcome_twice_counts_once_and_a_correction_replaces_it(told: Told) -> None:
    (served,) = told.serve(vectors(1))
    for _ in range(2):
        told.tell({"prediction": served.id, "delay": 5.0, "time": NOON + HOUR}, at=NOON + 5 * HOUR)
    told.tell({"prediction": served.id, "delay": 30.0, "time": NOON + 2 * HOUR})
    told.tell({"prediction": served.id, "delay": 7.0, "time": NOON + 90 * MINUTE})  # arrives last, and tells of an earlier time
    assert told.values() == [30.0]
    frame = labelled(told.home, NAME)
    assert frame.select("times", "values").row(0) == (3, 3)
    assert count_outcomes(told.home, NAME).corrected == 1


def test_two_that_contradict_each_other_at_one_time(told: Told) -> None:
    """Both are kept; what arrived last holds."""
    (served,) = told.serve(vectors(1))
    told.tell({"prediction": served.id, "delay": 5.0, "time": NOON + HOUR}, at=NOON + 5 * HOUR)
    told.tell({"prediction": served.id, "delay": 6.0, "time": NOON + HOUR})
    assert told.values() == [6.0]
    found = count_outcomes(told.home, NAME)
    assert (found.outcomes, found.predictions, found.corrected) == (2, 1, 1)


def test_outcomes_of_unknown_predictions_wait_for_them(told: Told) -> None:
    name = new_id(told.home.clock)
    told.tell({"prediction": name, "delay": 5.0}, {"prediction": "f" * 32, "delay": 1.0}, {"prediction": "never heard of", "delay": 1.0})
    found = count_outcomes(told.home, NAME)
    assert (found.outcomes, found.unknown) == (3, 3)
    update_cohorts(told.home, told.definition)
    told.serve(vectors(1), id=name)
    told.collect()
    update_cohorts(told.home, told.definition)
    assert count_outcomes(told.home, NAME).unknown == 2
    assert read_cohorts(told.home, NAME)[1].labelled == 1


def test_a_prediction_that_appears_after_its_outcome_was_evaluated(told: Told) -> None:
    told.serve(vectors(1))
    told.collect()
    name = new_id(told.home.clock)
    told.tell({"prediction": name, "delay": 44.0}, at=NOON + 5 * HOUR)
    update_cohorts(told.home, told.definition)
    assert read_cohorts(told.home, NAME)[1].labelled == 0
    told.serve(vectors(1, 1, start=NOON + MINUTE), id=name)
    told.home.clock.set(NOON + 5 * HOUR)  # type: ignore[attr-defined]
    told.collect()
    update_cohorts(told.home, told.definition)
    assert read_cohorts(told.home, NAME)[1].labelled == 1
    assert update_cohorts(told.home, told.definition) == 0


def test_an_outcome_before_its_prediction_is_joined_and_counted(told: Told) -> None:
    (served,) = told.serve(vectors(1))
    told.tell({"prediction": served.id, "delay": 5.0, "time": NOON - SECOND})
    assert told.values() == [5.0]
    assert count_outcomes(told.home, NAME).before == 1


def test_by_entity_and_time(told: Told) -> None:
    frame = vectors(4).with_columns(pl.Series("card", ["a", "b", "a", "a"]),
                                      pl.Series("time", [NOON, NOON + MINUTE, NOON + HOUR, NOON + 9 * HOUR]))
    told.serve(frame)
    entity = {"entity": {"card": "a"}, "time": NOON + 90 * MINUTE, "delay": 21.0}
    told.tell(entity, {"entity": {"card": "nobody"}, "time": NOON + HOUR, "delay": 1.0}, at=NOON + 10 * HOUR)
    assert told.values() == [None, None, 21.0, None], "the last prediction of the entity before that time"
    told.tell({"entity": {"card": "b"}, "time": NOON + 4 * HOUR, "delay": 2.0})
    assert told.values() == [None, None, 21.0, None], "later than it could have matured"
    told.tell({"entity": {"card": 7}, "time": NOON + HOUR, "delay": 2.0}, {"entity": {"shop": "a"}, "time": NOON + HOUR, "delay": 2.0})
    assert told.values() == [None, None, 21.0, None], "keys that no prediction has match nothing"
    before = labelled(told.home, NAME, matures_after=MATURES, start=NOON, end=NOON + HOUR)
    assert before["value"].to_list() == [None, None], "its prediction lies behind the end"
    assert count_outcomes(told.home, NAME, matures_after=MATURES).unknown == 4


def test_a_shadow_and_a_failed_version_have_the_outcome_of_the_answer(told: Told) -> None:
    (answer,) = told.serve(vectors(1))
    told.serve(vectors(1), version=2, arm="shadow", answered=answer.id, share=0.0)
    told.serve(vectors(1), version=2, arm="canary", answered=answer.id, status="error", outputs=[None])
    told.tell({"prediction": answer.id, "delay": 9.0})
    assert told.values() == [9.0, 9.0, 9.0]


@pytest.mark.parametrize(("row", "words"), [
    ({"delay": 1.0}, "names no prediction"), ({"prediction": "", "delay": 1.0}, "names no prediction"),
    ({"prediction": 7, "delay": 1.0}, "names no prediction"),
    ({"prediction": "a", "entity": {"card": "a"}, "delay": 1.0}, "names no prediction"), ({"entity": {"card": "a"}, "delay": 1.0}, "no time"),
    ({"entity": {}, "time": NOON, "delay": 1.0}, "names no prediction"), ({"prediction": "a"}, "has no 'delay'"),
    ({"prediction": "a", "delya": 1.0}, "unknown field"), ({"prediction": "a", "delay": "x"}, "delay"), ({"prediction": "a", "delay": float("nan")}, "delay"),
    ({"prediction": "a", "delay": 1.0, "time": "2013-05-01T00:00:00"}, "zone")])
def test_wrong_rows_are_named_and_refuse_the_push(told: Told, row: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        told.tell({"prediction": "b", "delay": 1.0}, row)
    assert count_outcomes(told.home, NAME).outcomes == 0


def test_performance_of_mature_hours(told: Told) -> None:
    random = np.random.default_rng(5)
    outputs = random.random(600).round(3)
    delays = np.where(random.random(600) < outputs, 30.0, 2.0)
    served = told.serve(vectors(600), outputs=outputs.tolist())
    labelled_until = 480
    rows = [{"prediction": record.id, "delay": float(delay), "time": record.time + HOUR} for record, delay in
            zip(served[:labelled_until], delays, strict=False)]
    told.tell(*rows, at=NOON + 10 * HOUR)
    told.collect()
    update_cohorts(told.home, told.definition)
    mature = mature_until(told.definition, told.home.clock.now())
    assert mature == NOON + 8 * HOUR
    found = read_cohorts(told.home, NAME, end=mature)[1]
    assert (found.predictions, found.labelled, found.coverage) == (480, 480, 1.0)
    metrics, positive = found.metrics(), delays[:480] > 15
    assert metrics["auc"] == pytest.approx(auc(outputs[:480], positive), abs=0.002)
    likely = np.clip(np.where(positive, outputs[:480], 1 - outputs[:480]), 1e-15, 1)
    assert metrics["logloss"] == pytest.approx(-np.log(likely).mean())
    assert metrics["accuracy"] == pytest.approx(((outputs[:480] >= 0.5) == positive).mean())
    assert metrics["positive_rate"] == pytest.approx(positive.mean())
    assert metrics["mean_prediction"] == pytest.approx(outputs[:480].mean())
    assert found.lag.quantile(0.5) == pytest.approx(6 * HOUR, rel=0.05)
    young = read_cohorts(told.home, NAME, start=mature)[1]
    assert (young.predictions, young.labelled, young.metrics()) == (120, 0, {})
    spent = [cost(output, delay) for output, delay in zip(outputs[:480], delays, strict=False)]
    assert found.kpis["cost"].mean == pytest.approx(np.mean(spent))
    assert found.kpis["cost"].bad == sum(value > 0 for value in spent)
    assert found.kpis["cost"].error == pytest.approx(np.std(spent) / np.sqrt(479))


def test_a_corrected_outcome_changes_its_hour_and_no_other(told: Told) -> None:
    served = told.serve(vectors(120), outputs=[0.9] * 120)
    told.tell(*({"prediction": record.id, "delay": 30.0} for record in served), at=NOON + 6 * HOUR)
    told.collect()
    assert update_cohorts(told.home, told.definition) == 2
    assert read_cohorts(told.home, NAME)[1].correct == 120
    told.tell({"prediction": served[0].id, "delay": -3.0}, at=NOON + 7 * HOUR)
    assert update_cohorts(told.home, told.definition) == 1
    found = read_cohorts(told.home, NAME)[1]
    assert (found.labelled, found.correct, found.corrected) == (120, 119, 1)
    assert found.kpis["gain"].failed == 1, "a KPI that fails is counted, and stops nothing"
    assert found.kpis["gain"].count == 119


def test_kpi_events_for_the_judge(told: Told) -> None:
    served = told.serve(vectors(40), outputs=[0.1] * 40, share=0.9, release="r1")
    canary = told.serve(vectors(10, 1), version=2, arm="canary", share=0.1, outputs=[0.9] * 10, release="r1")
    told.serve(vectors(1, 2), version=2, arm="shadow", share=0.0, release="r1", answered=served[0].id)
    other = told.serve(vectors(1, 3), outputs=[0.1])
    told.tell(*({"prediction": record.id, "delay": 30.0} for record in [*served, *canary, *other]), at=NOON + 6 * HOUR)
    found = list(kpi_events(told.home, told.definition, [cost], release="r1"))
    assert len(found) == 50
    assert {(item.version, item.share, item.value, item.bad) for item in found} == {(1, 0.9, 200.0, True), (2, 0.1, 0.0, False)}
    assert [item.offset for item in found] == sorted(item.offset for item in found)
    assert {item.routing_key for item in found} <= {f"c{number}" for number in range(40)}
    assert {item.kpi for item in kpi_events(told.home, told.definition)} == {"cost", "gain"}
    assert list(kpi_events(told.home, told.definition, after=found[-1].offset + 1)) == []
    told.tell({"prediction": canary[0].id, "delay": 1.0}, at=NOON + 7 * HOUR)
    assert list(kpi_events(told.home, told.definition, [cost], release="r1")) == found, "a correction gives no second event, nor another first"


def test_kpi_events_of_predictions_that_are_not_in_a_table_yet(told: Told) -> None:
    name = new_id(told.home.clock)
    told.tell({"prediction": name, "delay": 30.0}, at=NOON + HOUR)
    assert list(kpi_events(told.home, told.definition, [cost])) == []
    told.serve(vectors(1), id=name)
    (found,) = kpi_events(told.home, told.definition, [cost])
    assert (found.prediction, found.value, found.logged) == (name, 200.0, NOON + 900)
    told.settle()
    assert list(kpi_events(told.home, told.definition, [cost])) == [found]


def test_a_releases_judge_is_given_the_kpis_that_it_is_told_to_look_at(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Outcomes(told.home)
    assert source.observations(NAME, "r1", "") == ([], "")
    (told.home.root / "models.py").write_text(PROJECT)
    told.home.config = msgspec.structs.replace(told.home.config, release=Release(kpis={"cost": Kpi("mean", cap=300), "gain": Kpi()}))
    monkeypatch.setattr(Outcomes, "_began", lambda self, release: NOON)
    one = told.serve(vectors(3), outputs=[0.1] * 3, share=0.9, release="r1")
    told.tell(*({"prediction": record.id, "delay": 30.0} for record in one), at=NOON + HOUR)
    found, cursor = source.observations(NAME, "r1", "")
    assert {(item.metric, item.value, item.version, item.share) for item in found} == {("cost", 200.0, 1, 0.9), ("gain", 1.0, 1, 0.9)}
    assert source.observations(NAME, "r1", cursor) == ([], cursor)
    two = told.serve(vectors(2, 1), version=2, arm="canary", outputs=[0.9] * 2, share=0.1, release="r1")
    told.tell(*({"prediction": record.id, "delay": 30.0} for record in two), at=NOON + 2 * HOUR)
    more, last = source.observations(NAME, "r1", cursor)
    assert {item.version for item in more} == {2}
    assert Outcomes(told.home).observations(NAME, "r1", "") == ([*found, *more], last), "one that starts anew is given the same"
