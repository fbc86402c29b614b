"""What differs between a run and its repetition is named, causes before effects."""

from __future__ import annotations

import polars as pl
import pytest

from davy.training.comparison import circumstances, environments, grade
from davy.training.environment import Environment, Machine, Package, Seeds, Threads
from davy.training.record import first_difference
from davy.training.venv import requirements


def lock(*packages: Package, python: str = "3.11.7") -> Environment:
    return Environment(python, "CPython", "linux-x86_64", "glibc 2.36", packages)


@pytest.mark.parametrize(("same_bytes", "same_predictions", "largest", "expected"), [
    (True, True, 0.0, "same bytes"), (False, True, 0.0, "same predictions"), (False, False, 1e-9, "within tolerance"), (False, False, 1e-3, "different"),
    (False, False, None, "different"),
])
def test_grades(same_bytes: bool, same_predictions: bool, largest: float | None, expected: str) -> None:
    assert grade(same_bytes=same_bytes, same_predictions=same_predictions, largest=largest, tolerance=1e-6) == expected


def test_packages() -> None:
    then = lock(Package("a", "1"), Package("b", "1", contents="x"), Package("c", "1"), Package("d", "1"), Package("mine", "0", editable="/p", commit="1" * 40))
    now = lock(Package("a", "1"), Package("b", "1", contents="y"), Package("c", "2"), Package("e", "1"),
               Package("mine", "0", editable="/p", commit="2" * 40, dirty=True), python="3.12.1")
    found = [(item.cause, item.what) for item in environments(then, now, imported={"b", "c", "mine"})]
    assert found == [("python", "python 3.12.1, then 3.11.7"), ("package", "b 1 has other files than then"), ("package", "c 2, then 1"),
                     ("unused package", "d 1 is not installed any more"), ("unused package", "e is installed now and was not"),
                     ("package", "mine (editable) is at 222222222222 with changes, then at 111111111111")]
    assert len(list(environments(then, now, imported=set(), inside={"mine"}))) == len(found) - 1
    assert not list(environments(then, then, imported={"a"}))


def test_seeds_threads_and_machine() -> None:
    machine = Machine("cpu", ("avx2",), 4, 4, 1)
    then = (Seeds(1, ("random",), "0"), Threads({"OMP_NUM_THREADS": "2"}, {"openmp libgomp": 2, "only then": 1}), machine)
    now = (Seeds(2, ("random",), "random"), Threads({}, {"openmp libgomp": 4}), Machine("cpu", ("avx2", "avx512f"), 8, 8, 1))
    assert [(item.cause, item.what) for item in circumstances(then, now)] == [
        ("seed", "seed 2, then 1"), ("seed", "PYTHONHASHSEED random, then 0"), ("threads", "OMP_NUM_THREADS not set, then 2"),
        ("threads", "4 threads of openmp libgomp, then 2"), ("machine", "cpu with 8 cores, then cpu with 4"), ("machine", "the processors differ in avx512f")]
    assert not list(circumstances(then, then))


def test_the_first_row_and_its_first_column_are_named() -> None:
    frame = pl.DataFrame({"a": [1, 2, None], "b": [0.0, 1.5, float("nan")]})
    assert first_difference(frame, frame.clone()) is None
    assert first_difference(frame, pl.DataFrame({"a": [1, 2, 3], "b": [0.0, 1.25, float("nan")]})) == "row 1, column 'b': 1.25 now, 1.5 then"
    assert first_difference(frame, pl.DataFrame({"a": [1, 2, 3], "b": [0.0, 1.5, None]})) == "row 2, column 'a': 3 now, None then"
    assert first_difference(frame, frame.head(2)) == "2 rows now, 3 then; the first 2 are equal"
    assert first_difference(frame, frame.drop("b")) == "the column 'b' is gone"
    assert first_difference(frame, frame.with_columns(c=1)) == "the column 'c' is new"
    assert "Int32 and was Int64" in str(first_difference(frame, frame.with_columns(pl.col("a").cast(pl.Int32))))
    assert "other bits" in str(first_difference(frame, frame.with_columns(b=pl.Series([-0.0, 1.5, float("nan")]))))


def test_requirements_leave_installers_out() -> None:
    locked = lock(Package("a", "1"), Package("pip", "23"), Package("mine", "0", editable="/p"))
    assert requirements(locked) == ["a==1", "-e /p"]
