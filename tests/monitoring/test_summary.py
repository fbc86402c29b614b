"""What the status and the pages are told: harm where labels show it, and nothing that is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from davy.core.fields import Field
from davy.events import client
from davy.monitoring.cohorts import update_cohorts
from davy.monitoring.monitor import Monitor
from davy.monitoring.performance import Cohort
from davy.monitoring.summary import Summary, summary
from events_kit import HOUR, NOON
from monitoring_kit import MINUTE, NAME, Served, project_with, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALM, MOVED = 900, 900


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    opened = Served(tmp_path, training_rows=5_000)
    yield opened
    opened.close()


def a_drift_with_labels(served: Served, skill: float) -> Summary:
    """`amount` moves half-way; from then on the answers are as good as `skill` makes them."""
    random = np.random.default_rng(3)
    frames = [vectors(CALM, 1), vectors(MOVED, 2, shift=1.2, start=NOON + CALM * MINUTE)]
    definition = project_with(served.home.root, served.features).models[NAME]
    with client.connect(served.home) as events:
        for frame, good in zip(frames, (0.8, skill), strict=True):
            late = random.random(frame.height) < 0.3
            guess = np.where(random.random(frame.height) < good, late, random.random(frame.height) < 0.3)
            outputs = np.where(guess, 0.8, 0.2) + random.random(frame.height) / 10
            records = served.serve(frame, outputs=outputs.tolist())
            served.home.clock.set(NOON + 60 * HOUR)  # type: ignore[attr-defined]
            rows = [{"prediction": record.id, "delay": 30.0 if is_late else 1.0, "time": record.time + HOUR}
                    for record, is_late in zip(records, late, strict=True)]
            events.outcomes(NAME, rows, Field("delay", "float", 6))
        events.flush()
    served.collect()
    update_cohorts(served.home, definition)
    return summary(served.home, NAME, definition=definition, collector=served.collector)


@pytest.mark.parametrize(("skill", "verdict"), [(0.0, "labels show harm"), (0.8, "labels show no harm")])
def test_whether_a_drift_did_harm_is_asked_of_the_labels(served: Served, skill: float, verdict: str) -> None:
    found = a_drift_with_labels(served, skill)
    (alarm,) = found.alarms
    assert alarm.feature == "amount"
    assert (alarm.harm.verdict, alarm.harm.metric) == (verdict, "auc")
    assert alarm.harm.labels_before + alarm.harm.labels_since == CALM + MOVED
    assert found.drift[0].columns[0].feature == "amount"
    assert found.drift[0].columns[0].verdict == "drifted"
    assert msgspec.json.decode(msgspec.json.encode(found), type=Summary) == found


def test_a_model_that_has_answered_nothing(served: Served) -> None:
    found = summary(served.home, NAME)
    assert (found.until, found.traffic, found.drift, found.alarms, found.performance, found.replay) == (None, [], [], [], [], None)
    Monitor(served.home).round(everything=True)


def test_two_rows(served: Served) -> None:
    served.serve(vectors(2))
    monitor = Monitor(served.home)
    assert monitor.round(everything=True) == 2
    found = summary(served.home, NAME)
    assert found.traffic[0].requests == 2
    assert {column.verdict for column in found.drift[0].columns} == {"not enough data"}
    assert found.performance == [], "no project declares what its outcome is"


def test_cohorts_add_up_to_the_whole() -> None:
    assert (Cohort() + Cohort(predictions=3)).predictions == 3
    assert Cohort().metrics() == {}
    assert Cohort().coverage is None
