"""Numbers as pages write them: with a unit, with no more digits than they have a meaning, and never 0 or 100 % for what is not quite that."""

from __future__ import annotations

import math

import pytest

from davy.web.charts import Chart, Limit, Series, chart
from davy.web.render import _environment


@pytest.mark.parametrize(("name", "value", "given", "text"), [
    ("percent", None, (), "–"), ("percent", 0.0, (), "0 %"), ("percent", 1.0, (), "100 %"), ("percent", 0.01234, (), "1.23 %"),
    ("percent", 1e-7, (), "< 0.001 %"), ("percent", 0.99999, (), "> 99.9 %"),
    ("amount", None, (), "–"), ("amount", -0.0, (), "0"), ("amount", 12_345.6, (), "12,346"), ("amount", 0.012345, (), "0.0123"),
    ("measured", 5.6704, (0.0863,), "5.67 ± 0.09"), ("measured", 3.5, (0.14,), "3.50 ± 0.14"), ("measured", 9.13, (4.02,), "9 ± 4"),
    ("measured", 1234.5, (160.0,), "1,234 ± 160"), ("measured", 0.5, (None,), "0.5"), ("measured", 0.5, (0.0,), "0.5"),
    ("span", 604_800_000_000, (), "7 d"), ("span", 14_400_000_000, (), "4 h"), ("span", 90_000_000, (), "90 s"), ("span", 600_000_000, (), "10 min"),
    ("duration", 1_000_800_000_000, (), "11 d 14 h"), ("ms", 0.25, (), "250 µs"), ("ms", None, (), "–"),
])
def test_numbers_are_written_for_people(name: str, value: float | None, given: tuple[float | None, ...], text: str) -> None:
    assert _environment().filters[name](value, *given) == text


def test_what_is_not_finite_is_a_gap_in_a_chart() -> None:
    series = [Series("a", [1.0, math.inf, None], error=[0.5, math.nan, None])]
    response = chart(Chart([1, 2, 3], "x", "y", series, [Limit("most", 2.0)]))
    assert b'"values":[1.0,null,null]' in response.body
    assert b'"error":[0.5,null,null]' in response.body
    assert "default-src 'none'" in response.headers["content-security-policy"]
