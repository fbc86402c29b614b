"""Search finds and orders runs as the obvious program would, page by page, also while others write."""

from __future__ import annotations

import base64
import itertools
import math
import random
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curves_kit import put_points
from databases import open_at
from davy.core.clock import DrivenClock
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import datasets, input_tags, inputs, latest_metrics
from davy.store import journal
from davy.tracking import experiments, plan, runs
from davy.tracking.languages import CONTEXT
from davy.tracking.records import RunRecord
from davy.tracking.search import search_experiments, search_run_ids, search_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from davy.store.database import Database

WALKING = plan.Limits(small=-1, bound=3, patience=6, stretch=1)
PATIENT = plan.Limits(small=-1, bound=0, patience=10**8, stretch=1)
IMPATIENT = plan.Limits(small=-1, bound=0, patience=0, stretch=1)
KINDS = [plan.LIMITS, WALKING, PATIENT, IMPATIENT]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_at(tmp_path_factory.mktemp("search") / "davy.db")
    yield opened
    opened.close()


@pytest.fixture
def clock(tmp_path: Path) -> DrivenClock:
    return DrivenClock(tmp_path / "clock", start=1_000_000_000)


class Known(msgspec.Struct):
    """A run as the oracle sees it."""

    id: str
    facts: dict[str, Any]
    metrics: dict[tuple[str, str], float]
    datasets: list[dict[str, str]]

    def __repr__(self) -> str:
        return self.id[-4:]


TEXTS = ["lr", "LR", "l%", "_", "a*b", "[x]", "", 'q"t', "Änderung", "lrlr", "l\\r", "y" * 100, "x" * 101]
NUMBERS = [math.nan, math.inf, -math.inf, 0.0, 0.5, -1.0, 0.25, 1e300]


@pytest.fixture(scope="module")
def world(database: Database, tmp_path_factory: pytest.TempPathFactory) -> list[Known]:
    """Runs of three experiments, two of them called e and f, with everything that a filter can name."""
    clock = DrivenClock(tmp_path_factory.mktemp("world") / "clock", start=1_000_000_000)
    made: list[Known] = []
    pick = random.Random(5).choice

    with database.begin() as connection:
        ids = [experiments.create_experiment(connection, clock=clock, actor="ada", name=name).id for name in ("e", "f", "g")]
        for name, digest in (("flights", "d1"), ("Flights", "d2")):
            connection.execute(sa.insert(datasets).values(dataset_id=name, experiment_id=ids[0], name=name, digest=digest, source_type="local", source="x"))
        for number in range(48):
            started = pick([1000, 2000, 3000, 4000])
            texts = {"params.a": pick([*TEXTS, None]), "params.b c": pick([None, "x"]), "tags.t": pick([*TEXTS, None]), "run_name": pick(TEXTS[:4])}
            run_id = runs.create_run(connection, clock=clock, user=pick(["ada", "Bob"]), experiment_id=ids[number % 3], name=texts["run_name"],
                                     started=started * 1000, tags={} if texts["tags.t"] is None else {"t": texts["tags.t"]})
            runs.log_params(connection, run_id, {name[7:]: value for name, value in texts.items() if name.startswith("params") and value is not None})
            ended = pick([None, 5000, 6000])
            if ended is not None:
                runs.finish_run(connection, run_id, status=pick(["FINISHED", "FAILED"]), ended=ended * 1000)
            record = runs.get_run(connection, run_id)
            made.append(Known(run_id, {**texts, "run_id": run_id, "start_time": started, "end_time": ended, "status": record.status, "user_id": record.user,
                                       "experiment": "efg"[number % 3], "deleted": number % 11 == 5}, {}, []))
            for key in ("x", "y"):
                points = [(pick([0, 1, 2]), pick(NUMBERS)) for _ in range(pick([0, 1, 1, 3]))]
                put_points(connection, run_id, [(key, value, step, 0) for step, value in points])
            made[-1].metrics |= _summary(connection, run_id)
            for name, context in ((name, context) for name in ("flights", "Flights") if (context := pick([None, "train", "eval"])) is not None):
                connection.execute(sa.insert(inputs).values(run_id=run_id, dataset_id=name))
                connection.execute(sa.insert(input_tags).values(run_id=run_id, dataset_id=name, key=CONTEXT, value=context))
                made[-1].datasets.append({"name": name, "digest": {"flights": "d1", "Flights": "d2"}[name], "context": context})
            if made[-1].facts["deleted"]:
                runs.set_run_stage(connection, run_id, clock=clock, actor="ada", stage="deleted")
    return made


def _summary(connection: sa.Connection, run_id: str) -> dict[tuple[str, str], float]:
    """What is kept of each curve; that it is right is tested with the points."""
    found: dict[tuple[str, str], float] = {}
    for row in connection.execute(sa.select(latest_metrics).where(latest_metrics.c.run_id == run_id)):
        found |= {("", row.key): math.nan if row.is_nan else row.value, ("last", row.key): math.nan if row.last_is_nan else row.last,
                  ("max", row.key): math.nan if row.highest is None else row.highest, ("min", row.key): math.nan if row.lowest is None else row.lowest}
    return found


Test = tuple[str, "Callable[[Known], bool]"]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "IN": lambda a, b: a in b, "NOT IN": lambda a, b: a not in b, "BETWEEN": lambda a, b: b[0] <= a <= b[1], "NOT BETWEEN": lambda a, b: not b[0] <= a <= b[1],
}


def _like(value: str, pattern: str, folded: bool) -> bool:
    if folded:
        value, pattern = (re.sub("[A-Z]+", lambda found: found[0].lower(), text) for text in (value, pattern))
    return re.fullmatch("".join({"%": ".*", "_": "."}.get(letter) or re.escape(letter) for letter in pattern), value, re.DOTALL) is not None


LIKES: dict[str, Callable[[str, str], bool]] = {
    "LIKE": lambda a, b: _like(a, b, False), "ILIKE": lambda a, b: _like(a, b, True), "NOT LIKE": lambda a, b: not _like(a, b, False),
    "NOT ILIKE": lambda a, b: not _like(a, b, True)}


@st.composite
def _number_test(draw: st.DrawFn) -> Test:
    name = draw(st.sampled_from(["metrics.x", "metric.y", "metrics.`z`", "max(metrics.x)", "min(metrics.y)", "last(metrics.x)", "latest(metrics.x)",
                                 "start_time", "end_time", "attributes.created"]))
    pool = ["0.5", "0", "-1", "1e300", "inf", ".25", "-2.5e-1"] if "metric" in name else ["1000", "2000", "2000.5", "5000", "99999999999999999999"]
    op = draw(st.sampled_from([*list(COMPARE), "IS NULL", "IS NOT NULL"]))
    values = draw(st.lists(st.sampled_from(pool), min_size=2, max_size=3))
    numbers = [float(value) for value in values]
    text = {"IN": f"({', '.join(values)})", "NOT IN": f"({','.join(values)})", "BETWEEN": f"{values[0]} AND {values[1]}",
            "NOT BETWEEN": f"{values[0]} and {values[1]}"}.get(op, "" if op.startswith("IS") else values[0])
    function, key = ("", name) if "metric" not in name else (name.split("(")[0].replace("latest", "") if "(" in name else "", name.strip("`)")[-1])

    def holds(run: Known) -> bool:
        value = run.metrics.get((function, key)) if "metric" in name else run.facts[{"attributes.created": "start_time"}.get(name, name)]
        if value is None or op.startswith("IS"):
            return (op == "IS NULL") is (value is None) and op.startswith("IS")
        if math.isnan(value):
            return op in ("!=", "NOT IN", "NOT BETWEEN")
        return COMPARE[op](value, numbers if op.endswith(("IN", "BETWEEN")) else numbers[0])

    return f"{name} {op} {text}", holds


@st.composite
def _text_test(draw: st.DrawFn) -> Test:
    name = draw(st.sampled_from(["params.a", "params.`b c`", 'param."b c"', "tags.t", "tag.`mlflow.runName`", "run_name", "attr.status", "user_id",
                                 "dataset.name", "datasets.context", "parameter.none"]))
    op = draw(st.sampled_from(["=", "!=", "IN", "NOT IN", *LIKES, "IS NULL", "IS NOT NULL"]))
    pool = [text for text in TEXTS if "\\" not in text] + ["L%", "%R", "_r", "%", "FINISHED", "ADA", "ada", "flights", "train", "%änderung", "[%"]
    values = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    text = "(" + ", ".join(f"'{value}'" for value in values) + ")" if op.endswith("IN") else "" if op.startswith("IS") else f"'{values[0]}'"
    plain = {"params.`b c`": "params.b c", 'param."b c"': "params.b c", "tag.`mlflow.runName`": "run_name", "attr.status": "status"}.get(name, name)

    def one(value: str | None) -> bool:
        if value is None or op.startswith("IS"):
            return (op == "IS NULL") is (value is None) and op.startswith("IS")
        return LIKES[op](value, values[0]) if op in LIKES else COMPARE[op](value, values if op.endswith("IN") else values[0])

    def holds(run: Known) -> bool:
        if "dataset" not in name:
            return one(run.facts.get(plain))
        found = [used[name.split(".")[1]] for used in run.datasets]
        return one(None) if not found else any(one(value) for value in found)

    return f"{name} {op.lower() if len(values) == 2 else op} {text}", holds


def _either(tests: list[Test]) -> Test:
    return " or ".join(f"({text})" for text, _ in tests), lambda run: any(holds(run) for _, holds in tests)


def _both(tests: list[Test]) -> Test:
    return " AND ".join(f"({text})" for text, _ in tests), lambda run: all(holds(run) for _, holds in tests)


def _neither(test: Test) -> Test:
    return f"not ({test[0]})", lambda run: not test[1](run)


LEAVES = _number_test() | _text_test()
FILTERS = st.just(("", lambda run: True)) | LEAVES | st.lists(LEAVES, min_size=2, max_size=3).map(
    lambda tests: (" and ".join(text for text, _ in tests), lambda run: all(holds(run) for _, holds in tests))) | st.recursive(
    LEAVES, lambda inner: st.lists(inner, min_size=2, max_size=3).map(_either) | st.lists(inner, min_size=2, max_size=3).map(_both) | inner.map(_neither),
    max_leaves=6)
ORDERS = ["metrics.x", "metric.y", "metrics.none", "max(metrics.x)", "min(metrics.x)", "last(metrics.y)", "params.a", "params.`b c`", "tags.t", "start_time",
          "end_time", "status", "user_id", "run_id"]


def _value(run: Known, field: str) -> Any:
    found = re.fullmatch(r"(?:(\w+)\()?metrics?\.(\w+)\)?", field)
    return run.metrics.get((found[1] or "", found[2])) if found else run.facts.get(field.replace("`", ""))


def _sorted(found: list[Known], order: list[tuple[str, bool]]) -> list[str]:
    """Stable sorts, the last key first; missing values last, NaN before them."""
    found = sorted(found, key=lambda run: run.id)
    if not any(field == "start_time" for field, _ in order):
        found.sort(key=lambda run: -run.facts["start_time"])
    for field, down in reversed(order):
        there = [run for run in found if (value := _value(run, field)) is not None and value == value]
        there.sort(key=lambda run: _value(run, field), reverse=down)
        found = [*there, *(run for run in found if (value := _value(run, field)) is not None and value != value),
                 *(run for run in found if _value(run, field) is None)]
    return [run.id for run in found]


def _pages(connection: sa.Connection, limit: int, **asked: Any) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = search_run_ids(connection, limit=limit, after=after, **asked)
        found += page.ids
        after = page.next
        if after is None:
            return found
        assert len(page.ids) == limit


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(test=FILTERS, order=st.lists(st.tuples(st.sampled_from(ORDERS), st.booleans()), max_size=3, unique_by=lambda item: item[0]), limit=st.integers(1, 30),
       names=st.sampled_from([["e", "f", "g"], ["e"], ["e", "f"], ["f", "nothing"], []]), view=st.sampled_from(["active", "deleted", "all"]),
       limits=st.sampled_from(KINDS))
def test_a_search_is_the_obvious_one(database: Database, world: list[Known], monkeypatch: pytest.MonkeyPatch, test: Test, order: list[tuple[str, bool]],
                                     limit: int, names: list[str], view: str, limits: plan.Limits) -> None:
    monkeypatch.setattr(plan, "LIMITS", limits)
    text, holds = test
    wanted = [run for run in world if run.facts["experiment"] in names and holds(run) and view in ("all", "deleted" if run.facts["deleted"] else "active")]
    with database.read() as connection:
        found = _pages(connection, limit, experiments=names, filter=text, order_by=[f"{field} {'DESC' if down else 'asc'}" for field, down in order],
                       view=view)
    assert found == _sorted(wanted, order)


def test_not_binds_closer_than_and_and_closer_than_or(database: Database, world: list[Known]) -> None:
    with database.read() as connection:
        for plain, whole in (("status = 'FAILED' or user_id = 'ada' and params.a = 'lr'", "status = 'FAILED' or (user_id = 'ada' and params.a = 'lr')"),
                             ("not user_id = 'ada' and params.a = 'lr'", "(not user_id = 'ada') and params.a = 'lr'"),
                             ("params.a = 'lr' tags.t != 'lr'", "params.a = 'lr' and tags.t != 'lr'"), ("and user_id = 'ada' and", "user_id = 'ada'")):
            asked = [_pages(connection, 50, filter=text) for text in (plain, whole)]
            assert asked[0] == asked[1] != []
        assert search_run_ids(connection, filter="params.a like 'l!%' escape '!'").ids == search_run_ids(connection, filter="params.a = 'l%'").ids != []


@pytest.mark.parametrize("limits", [plan.LIMITS, WALKING])
def test_what_is_large_is_taken(database: Database, world: list[Known], monkeypatch: pytest.MonkeyPatch, limits: plan.Limits) -> None:
    monkeypatch.setattr(plan, "LIMITS", limits)
    with database.read() as connection:
        numbers = [*range(1, 20_000), *(10**18 + number for number in range(20_000))]
        wanted = search_run_ids(connection, experiments=["e", "f", "g"], limit=500).ids
        many = ",".join([*(f"'{run_id}'" for run_id in wanted[:5]), *["'x'"] * 19_000])
        assert search_run_ids(connection, experiments=["e", "f", "g", *numbers], filter=f"run_id in ({many})").ids == wanted[:5]
        few, long = (search_run_ids(connection, experiments=["e", "f"], filter=f"metrics.x in ({','.join(['0.5'] * count)})", order_by=["metrics.x"]).ids
                     for count in (1, 19_000))
        assert few == long != []
        conditions = " and ".join(["not (metrics.x > 1e300 or params.a like '%x%x%x%')"] * 120)
        assert search_run_ids(connection, experiments=["e"], filter=conditions).ids
        for pattern in ("%" * 9_999, "[*" * 4_999, "\U0001f600" * 9_999):
            assert search_run_ids(connection, experiments=["e"], filter=f"params.a not like '{pattern}x'").ids
        keys = [f"{name}(metrics.k{number})" for name in ("max", "min", "last", "latest") for number in range(4)]
        assert search_run_ids(connection, experiments=["e"], order_by=keys).ids


CHANGES = st.lists(st.tuples(st.sampled_from(["new", "move", "delete", "lose"]), st.integers(0, 30), st.sampled_from(NUMBERS)), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(1, 5), st.none() | st.sampled_from(NUMBERS)), min_size=1, max_size=14),
       between=st.lists(CHANGES, min_size=3, max_size=3),
       order=st.sampled_from(["metrics.auc DESC", "metrics.auc", "max(metrics.auc)", "last(metrics.auc) desc", "tags.team", "start_time", "end_time", ""]),
       limit=st.integers(1, 4), limits=st.sampled_from(KINDS))
def test_pages_neither_skip_nor_repeat_what_stays_while_others_write(database: Database, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch,
                                                                     rows: list[tuple[int, float | None]], between: list[list[tuple[str, int, float]]],
                                                                     order: str, limit: int, limits: plan.Limits) -> None:
    monkeypatch.setattr(plan, "LIMITS", limits)
    name, made = _fill(database, clock, [(start, value, "RUNNING", "ab"[start % 2]) for start, value in rows])
    with database.read() as connection:
        whole = _pages(connection, 50, experiments=[name], order_by=[order] if order else [])
    seen: list[str] = []
    touched: set[str] = set()
    after = None
    for changes in itertools.chain(between, itertools.repeat([])):
        with database.read() as connection:
            page = search_run_ids(connection, experiments=[name], order_by=[order] if order else [], limit=limit, after=after)
        seen += page.ids
        after = page.next
        if after is None:
            break
        with database.begin() as connection:
            for what, number, value in changes:
                run_id = made[number % len(made)].id
                if what == "new":
                    fresh = runs.create_run(connection, clock=clock, user="ada", experiment_id=made[0].experiment_id, name="n", started=number * 1000)
                    put_points(connection, fresh, [("auc", value, 1, 0)])
                    touched.add(fresh)
                elif run_id not in touched:
                    touched.add(run_id)
                    if what == "move":
                        put_points(connection, run_id, [("auc", value, number + 2, 0)])
                        runs.set_tags(connection, run_id, {"team": "zz"})
                        runs.finish_run(connection, run_id, status="FAILED", ended=number * 1000)
                    else:
                        runs.set_run_stage(connection, run_id, clock=clock, actor="ada", stage="deleted")
    assert [run_id for run_id in seen if run_id not in touched] == [run_id for run_id in whole if run_id not in touched]


def _fill(database: Database, clock: DrivenClock, rows: list[tuple[int, float | None, str, str]]) -> tuple[str, list[RunRecord]]:
    """Runs of one new experiment: (start, value of `auc`, status, tag)."""
    with database.begin() as connection:
        name = f"e{len(experiments.list_experiments(connection))}"
        made = experiments.create_experiment(connection, clock=clock, actor="ada", name=name)
        ids = []
        for start, value, status, tag in rows:
            run_id = runs.create_run(connection, clock=clock, user="ada", experiment_id=made.id, name="r", tags={"team": tag}, started=start * 1000)
            if value is not None:
                put_points(connection, run_id, [("auc", -99.0, 0, 0), ("auc", value, 1, 0)])
            if status != "RUNNING":
                runs.finish_run(connection, run_id, status=status, ended=start * 1000)  # type: ignore[arg-type]
            ids.append(run_id)
        return name, runs.read_runs(connection, ids)


def test_a_page_belongs_to_its_search(database: Database, clock: DrivenClock) -> None:
    name, _ = _fill(database, clock, [(1, 0.5, "RUNNING", "a")] * 3)
    with database.read() as connection:
        token = search_runs(connection, experiments=[name], limit=1).next
        others: list[dict[str, Any]] = [{"order_by": ["metrics.auc"]}, {"filter": "metrics.auc > 0"}, {"view": "all"}, {"experiments": None}]
        for asked in ({"after": token} | other for other in others):
            with pytest.raises(InvalidInput, match="Invalid page token"):
                search_runs(connection, **({"experiments": [name], "limit": 1} | asked))
        for wrong in ("nonsense", "", str(token)[:-4], "WzFd", "é", "x" * 10_000):
            with pytest.raises(InvalidInput, match="Invalid page token"):
                search_runs(connection, experiments=[name], limit=1, after=wrong)
        sorted_by = {"experiments": [name], "order_by": ["metrics.auc"]}
        tied, *keys = msgspec.json.decode(base64.urlsafe_b64decode(str(search_runs(connection, limit=1, **sorted_by).next)))
        for value in ("0x1p99999", "nan", "x", 5, None):
            forged = base64.urlsafe_b64encode(msgspec.json.encode([tied, keys[0], value, *keys[2:]])).decode()
            with pytest.raises(InvalidInput, match="Invalid page token"):
                search_runs(connection, after=forged, **sorted_by)
        for limit in (0, -1, 50_001):
            with pytest.raises(InvalidInput, match="limit"):
                search_runs(connection, limit=limit)


def test_several_experiments_and_deleted_runs(database: Database, clock: DrivenClock) -> None:
    first, made = _fill(database, clock, [(1, None, "RUNNING", "a")])
    second, others = _fill(database, clock, [(2, None, "RUNNING", "a")])
    with database.begin() as connection:
        both = search_runs(connection, experiments=[first, second]).runs
        assert [run.id for run in both] == [others[0].id, made[0].id]
        experiments.set_experiment_stage(connection, clock=clock, actor="ada", identity=made[0].experiment_id, stage="deleted")
        assert search_runs(connection, experiments=[first]).runs == []
        assert [run.id for run in search_runs(connection, experiments=[first], view="deleted").runs] == [made[0].id]
        with pytest.raises(Conflict, match="deleted"):
            experiments.ensure_experiment(connection, clock=clock, actor="ada", name=first)
        experiments.set_experiment_stage(connection, clock=clock, actor="ada", identity=made[0].experiment_id, stage="active")
        assert len(search_runs(connection, experiments=[first]).runs) == 1


def test_experiments_are_made_found_renamed_and_journalled(database: Database, clock: DrivenClock) -> None:
    with database.begin() as connection:
        made = experiments.create_experiment(connection, clock=clock, actor="ada", name="first", tags={"team": "ops"})
        assert made.tags == {"team": "ops"}
        assert made.artifact_location == f"mlflow-artifacts:/{made.id}"
        assert experiments.ensure_experiment(connection, clock=clock, actor="ada", name="first") == made
        experiments.rename_experiment(connection, clock=clock, actor="ada", identity=made.id, name="second")
        assert experiments.get_experiment(connection, "second").id == made.id
        with pytest.raises(Conflict, match="already"):
            experiments.create_experiment(connection, clock=clock, actor="ada", name="second")
        with pytest.raises(NotFound, match="'second'"):
            experiments.get_experiment(connection, "secnd")
        for name in ("", " ", "x" * 501):
            with pytest.raises(InvalidInput, match="name"):
                experiments.create_experiment(connection, clock=clock, actor="ada", name=name)
        assert [entry.action for entry in journal.entries(connection, subject="second")] == ["experiment.rename"]
        assert journal.verify(connection).broken is None


def test_experiments_are_searched(database: Database, clock: DrivenClock) -> None:
    with database.begin() as connection:
        made = []
        for name, tags in (("Zeta", {"team": "ops"}), ("alpha", {}), ("beta%", {"team": "Ops"})):
            made.append(experiments.create_experiment(connection, clock=clock, actor="ada", name=f"s-{name}", tags=tags).id)
            clock.set(clock.now() + 1_000_000)
        experiments.set_experiment_stage(connection, clock=clock, actor="ada", identity=made[1], stage="deleted")

        def found(text: str, *order: str, view: Any = "active") -> list[str]:
            ids: list[int] = []
            after = None
            while True:
                page = search_experiments(connection, filter=f"name like 's-%' {text}", order_by=order, view=view, limit=1, after=after)
                ids += [experiment.id for experiment in page.experiments]
                after = page.next
                if after is None:
                    return ["Zab"[made.index(identity)] for identity in ids]

        assert found("") == ["b", "Z"]
        assert found("", view="all") == ["b", "a", "Z"]
        assert found("", "name", view="all") == ["Z", "a", "b"]
        assert found("", "last_update_time DESC", view="all") == ["a", "b", "Z"]
        assert found("and tags.team = 'ops'", view="all") == ["Z"]
        assert found("and tags.team ilike 'OPS'") == ["b", "Z"]
        assert found("and not tags.team is null") == ["b", "Z"]
        assert found(f"and experiment_id in ('{made[0]}', {made[1]})", view="deleted") == ["a"]
        assert found("and name like '%\\%'") == []
        assert found("and name like '%!%' escape '!'") == ["b"]
