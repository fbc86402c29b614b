"""A CSV is read as the stream declares, not as its first values look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from davy import Decimal, Stream
from davy.errors import InvalidInput
from davy.events.client import connect
from davy.events.sources import read_source, scan_source
from events_kit import driven_home

if TYPE_CHECKING:
    from pathlib import Path

PAID = Stream("paid", time="at", fields={"card": str, "amount": float, "fee": Decimal(2), "count": int, "known": bool})
HEAD = "at,card,amount,fee,count,known\n"
AT = "2013-04-01T12:00:00Z"


def load(root: Path, text: str) -> list[dict[str, object]]:
    home = driven_home(root)
    (root / "paid.csv").write_text(text)
    with connect(home) as log:
        log.push_history(PAID.spec, scan_source(root / "paid.csv", PAID.spec.fields))
        log.flush()
    table = home.table("events/paid")
    rows = table.collect(table.scan()).sort("_offset").select("card", "amount", "fee", "count", "known").to_dicts()
    home.close()
    return rows


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    rows = load(tmp_path, HEAD + f"{AT},00123,1,2.50,3,true\n{AT},NA,NA,NA,NA,NA\n{AT},,,,,\n{AT},true,2.5,1,4,false\n")
    assert [row["card"] for row in rows] == ["00123", "NA", None, "true"]
    assert [None if row["amount"] is None else float(str(row["amount"])) for row in rows] == [1.0, None, None, 2.5]
    assert [row["count"] for row in rows] == [3, None, None, 4]
    assert [row["known"] for row in rows] == [True, None, None, False]


def test_a_number_that_gains_decimals_late_is_read(tmp_path: Path) -> None:
    rows = load(tmp_path, HEAD + f"{AT},a,3,1,1,true\n" * 11_000 + f"{AT},a,2.5,1,1,true\n")
    assert float(str(rows[-1]["amount"])) == 2.5


def test_a_value_of_another_type_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"could not parse `much`(?s:.*)declared type"):
        load(tmp_path, HEAD + f"{AT},a,much,1,1,true\n")


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        load(tmp_path, "")


def test_undeclared_columns_are_read_as_they_look(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,x\nNA,NA\n")
    assert read_source(tmp_path / "rows.csv").to_dict(as_series=False) == {"a": [1, None], "b": ["x", None]}
