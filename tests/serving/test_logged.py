"""Models that were logged elsewhere and take texts and times: given what they have learned from, whatever the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from davy.errors import InvalidInput
from davy.serving.logged import Estimator, Logged
from davy.serving.worker import predict_batch
from serving.test_worker import answers

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

DAYS = pandas.date_range("2024-01-01", periods=4, freq="D")
FRAME = pandas.DataFrame({"day": np.tile(DAYS, 10), "amount": np.arange(40.0), "member": np.arange(40) % 2 == 0, "city": np.tile(["a", None, "b", "a"], 10)})
CLASSES = np.arange(40) % 4 > 1
KINDS = {"day": "time", "amount": "float", "member": "bool", "city": "str"}


def _matrix(columns: list[str]) -> np.ndarray:
    """The frame's first rows as a worker gets them."""
    made = np.empty((4, len(columns)), dtype=object)
    for place, name in enumerate(columns):
        values = FRAME[name].head(4)
        if name == "city":
            made[:, place] = [value if isinstance(value, str) else None for value in values]
        else:
            made[:, place] = values.astype("datetime64[us]").astype("int64").astype(float) if name == "day" else values.astype(float)
    return made if "city" in columns else made.astype(np.float64)


@pytest.mark.parametrize("columns", [["day"], ["city"], ["day", "amount", "member"], ["day", "city"], ["city", "member"], ["city", "amount"]])
def test_a_pipeline_is_asked_with_what_it_has_learned_from(columns: list[str]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    model = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression()).fit(FRAME[columns], CLASSES)
    logged, rows = Logged(Estimator(model, "probability"), columns, [KINDS[name] for name in columns]), _matrix(columns)
    wanted = model.predict_proba(FRAME[columns].head(4))[:, 1]
    assert np.array_equal(logged.predict(rows), wanted)
    assert [logged.predict(rows[place:place + 1])[0] for place in range(4)] == pytest.approx(wanted, rel=1e-12)


def test_a_pipeline_that_has_learned_from_an_array_is_given_one() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    plain = np.array([["a", 1.0], ["b", 0.0], ["a", 0.0]], dtype=object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(plain, [1, 2, 2])
    assert Logged(Estimator(model, "label"), ["x0", "x1"], ["str", "float"]).predict(plain) == model.predict(plain).tolist()


class Shout:
    """Answers with texts; it knows no null, and no "x"."""

    width = 2

    def predict(self, matrix: np.ndarray) -> list[Any]:
        if "x" in matrix[:, 0]:
            raise KeyError("x")
        return [f"{text.upper()}{number:g}" for text, number in matrix]


def test_rows_with_texts_are_batched_and_the_guilty_one_is_told_its_column() -> None:
    from msgspec import msgpack

    def request(number: int, *rows: list[Any]) -> tuple[int, int, bytes]:
        return number, len(rows), b"".join(map(msgpack.encode, rows))

    logged = Logged(Shout(), ["city", "amount"], ["str", "float"])
    found = answers(predict_batch(logged, 2, [request(1, ["são", 1.0]), request(2, ["b", 2.0], ["", 3])], texts=True))
    assert found == {1: ["SÃO1"], 2: ["B2", "3"]}
    found = answers(predict_batch(logged, 2, [request(1, ["a", 1.0]), request(2, [None, 2.0]), request(3, ["x", 2.0]), request(4, ["b"])], texts=True))
    assert found[1] == ["A1"]
    assert [found[number].code for number in (2, 3)] == ["InvalidInput"] * 2
    assert all("'city'" in found[number].came for number in (2, 3))
    assert "'amount'" not in found[3].came
    assert found[4].code != "InvalidInput"


def test_what_a_model_of_numbers_raises_is_still_its_own_fault() -> None:
    class Lost:
        width = 1

        def predict(self, matrix: np.ndarray) -> list[Any]:
            raise KeyError("amount")

    with pytest.raises(KeyError):
        Logged(Lost(), ["amount"], ["float"]).predict(np.array([[np.nan]]))
    with pytest.raises(InvalidInput):
        Logged(Lost(), ["city"], ["str"]).predict(np.array([["a"]], dtype=object))
