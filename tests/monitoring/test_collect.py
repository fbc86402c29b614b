"""Profiles are sums over the prediction log: whatever is killed, read twice or merged, each prediction counts once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
import sqlalchemy as sa

from davy.errors import Conflict
from davy.monitoring.collect import Collector
from davy.monitoring.columns import count
from davy.monitoring.drift import drift, drifted
from davy.monitoring.profiles import by_version, merged, read_profiles, slices, thin
from davy.schema.tables import monitor_alarms, monitor_cursors
from events_kit import HOUR, NOON
from monitoring_kit import DAY, MINUTE, NAME, Served, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    opened = Served(tmp_path)
    yield opened
    opened.close()


def rows(served: Served) -> int:
    return sum(profile.rows for profile in read_profiles(served.home, NAME).values())


def test_what_was_served_is_counted_once(served: Served) -> None:
    served.serve(vectors(300))
    assert served.collect() == 300
    assert served.collect() == 0
    served.serve(vectors(50, 1, start=NOON + DAY), version=2, arm="canary")
    assert served.collect() == 50
    found = read_profiles(served.home, NAME)
    assert {key: profile.rows for key, profile in found.items()} == {(1, "stable"): 300, (2, "canary"): 50}
    assert found[1, "stable"].latency.quantile(0.5) == pytest.approx(900, rel=0.01)
    assert found[1, "stable"].output.quantile(0.5) == pytest.approx(0.25, rel=0.01)
    assert found[1, "stable"].first == NOON


def test_the_profile_of_a_span_is_the_sum_of_its_slices(served: Served) -> None:
    frame = vectors(300)
    served.serve(frame)
    served.collect()
    reference = served.collector.reference(NAME, 1)
    whole = count(reference, frame)
    for start, end, first, last in [(None, None, 0, 300), (NOON + HOUR, NOON + 3 * HOUR, 60, 180)]:
        (profile,) = by_version(read_profiles(served.home, NAME, start=start, end=end)).values()
        expected = count(reference, frame[first:last])
        for name, column in expected.items():
            assert profile.columns[name].counts.tolist() == column.counts.tolist()
            assert profile.columns[name].nulls == column.nulls
    assert profile.columns["amount"].mean(reference.by_name["amount"]) == pytest.approx(frame["amount"][60:180].mean())
    assert profile.columns["amount"].sd(reference.by_name["amount"]) == pytest.approx(frame["amount"][60:180].std(ddof=0))
    assert sum(whole["shop"].counts) == 300


def test_slices_that_were_summed_up_into_days_keep_every_count(served: Served) -> None:
    served.serve(vectors(600, pace=8 * MINUTE))
    served.collect()
    before = read_profiles(served.home, NAME, start=NOON - DAY)
    fine = len(slices(served.home, NAME))
    assert thin(served.home, NAME, before=NOON + 3 * DAY) > 0
    assert len(slices(served.home, NAME)) < fine
    after = merged(slices(served.home, NAME))
    assert after[1, "stable"].rows == before[1, "stable"].rows == 600
    assert after[1, "stable"].columns["amount"].counts.tolist() == before[1, "stable"].columns["amount"].counts.tolist()


def test_one_who_comes_second_counts_nothing(served: Served, tmp_path: Path) -> None:
    """Two collectors read the same commits; the one whose cursor has moved meanwhile gives up what it has computed."""
    served.serve(vectors(100))
    served.settle()
    other = Collector(served.home)
    taken = other._take

    def late(*args: object, **kwargs: object) -> object:
        served.collector.collect()
        return taken(*args, **kwargs)  # type: ignore[arg-type]

    other._take = late  # type: ignore[method-assign, assignment]
    assert other.collect().rows == 0
    assert rows(served) == 100


def test_one_that_fails_before_its_end_has_counted_nothing(served: Served) -> None:
    served.serve(vectors(100))
    served.settle()
    with served.home.database.begin() as connection:
        connection.exec_driver_sql("INSERT INTO monitor_cursors (name, position, data) VALUES ('in the way', 0, '')")
        connection.exec_driver_sql("CREATE UNIQUE INDEX only_one ON monitor_cursors ((name > ''))")
    with pytest.raises(Conflict):
        served.collect()
    assert rows(served) == 0
    with served.home.database.begin() as connection:
        connection.exec_driver_sql("DROP INDEX only_one")
    assert served.collect() == 100
    assert rows(served) == 100


def test_merging_the_logs_files_counts_nothing_twice(served: Served) -> None:
    for part in range(3):
        served.serve(vectors(20, part, start=NOON + part * HOUR))
        served.collect()
    served.home.table(f"predictions/{NAME}/{served.features.digest.removeprefix('sha256:')[:12]}").compact()
    served.serve(vectors(20, 9, start=NOON + 9 * HOUR))
    assert served.collect() == 20
    assert rows(served) == 80


def test_profiles_are_made_anew_when_the_logs_history_is_gone(served: Served) -> None:
    for part in range(4):
        served.serve(vectors(20, part, start=NOON + part * HOUR))
        served.settle()
    table = served.home.table(f"predictions/{NAME}/{served.features.digest.removeprefix('sha256:')[:12]}")
    table.compact(keep_hours=0)
    assert served.collect() == 80
    assert rows(served) == 80
    assert served.collect() == 0
    assert served.collector.rebuild(NAME).rows == 80
    assert rows(served) == 80


def test_failures_are_counted_and_have_no_vector(served: Served) -> None:
    served.serve(vectors(90))
    served.serve(vectors(6, 1), status="error", outputs=[None] * 6, kernel="", values=[None] * 6)
    served.serve(vectors(4, 2), status="timeout", outputs=[None] * 4)
    served.collect()
    (profile,) = read_profiles(served.home, NAME).values()
    assert profile.statuses == {"ok": 90, "error": 6, "timeout": 4}
    assert profile.share("error", "timeout") == pytest.approx(0.1)
    assert profile.columns["amount"].rows == 94
    assert profile.output.count == 90


def test_a_shift_is_found_with_its_beginning_and_only_once(served: Served) -> None:
    calm = vectors(1500, 3, pace=MINUTE)
    moved = vectors(1500, 4, shift=0.8, start=NOON + 1500 * MINUTE)
    served.serve(calm)
    served.collect()
    with served.home.database.read() as connection:
        assert connection.execute(sa.select(monitor_alarms)).all() == []
    served.serve(moved)
    served.collect()
    with served.home.database.read() as connection:
        (alarm,) = connection.execute(sa.select(monitor_alarms)).all()
    assert alarm.feature == "amount"
    assert abs(alarm.began - (NOON + 1500 * MINUTE)) < 120 * MINUTE
    assert alarm.raised > alarm.began
    profiles = by_version(read_profiles(served.home, NAME, start=NOON + 1500 * MINUTE))[1].columns
    assert drifted(drift(served.collector.reference(NAME, 1), profiles)) == ["amount"]


def test_how_the_log_was_cut_changes_no_alarm(tmp_path: Path) -> None:
    frame = pl.concat([vectors(1000, 3), vectors(1000, 4, shift=0.8, start=NOON + 1000 * MINUTE)])
    found = []
    for name, step in (("one", 2000), ("many", 250)):
        served = Served(tmp_path / name)
        for first in range(0, 2000, step):
            served.serve(frame[first:first + step])
            served.collector.collect()
            served.collector = Collector(served.home)  # as after a restart
        with served.home.database.read() as connection:
            found.append(connection.execute(sa.select(monitor_alarms.c.feature, monitor_alarms.c.began, monitor_alarms.c.raised)).all())
        served.close()
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_a_clock_that_jumps_raises_no_alarm(served: Served) -> None:
    for part, start in enumerate([NOON, NOON + 400 * DAY, NOON - 30 * DAY, NOON + HOUR]):
        served.serve(vectors(300, part, start=start))
        served.collect()
    with served.home.database.read() as connection:
        assert connection.execute(sa.select(monitor_alarms)).all() == []
    assert rows(served) == 1200


def test_a_version_without_a_kept_training_set_is_counted_without_features(served: Served) -> None:
    served.serve(vectors(10), version=7)
    assert served.collect() == 10
    assert read_profiles(served.home, NAME)[7, "stable"].columns == {}
    with served.home.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(monitor_cursors)) == 1
