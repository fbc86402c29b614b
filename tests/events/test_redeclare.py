"""What a stream's declaration may become, and what may not be read in its units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from davy.core.fields import Field
from davy.errors import Conflict
from davy.events.rows import encode_rows
from davy.events.streams import shape
from davy.features.definition import StreamSpec
from events_kit import CLICKS, NOON, User, click, contents, driven_home, open_log

if TYPE_CHECKING:
    from pathlib import Path


def test_a_stream_without_events_takes_every_declaration(tmp_path: Path) -> None:
    wrong = StreamSpec("clicks", "when", (Field("user", "int"), Field("amount", "float", 6)))
    log = open_log(home := driven_home(tmp_path), wrong)
    assert log.declare(CLICKS.spec) == CLICKS.spec
    log.ensure_views([(CLICKS.spec, User.spec)])
    log.close()
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON)])
    with pytest.raises(Conflict, match="user"):
        log.declare(wrong)
    log.close()


def test_values_in_the_units_of_an_earlier_declaration_are_refused(tmp_path: Path) -> None:
    finer = StreamSpec("clicks", "at", (Field("user", "str"), Field("amount", "float", 3)))
    log = open_log(driven_home(tmp_path), finer)
    rows = encode_rows(finer, [click(NOON)])
    log.declare(CLICKS.spec)
    with pytest.raises(Conflict, match="anew"):
        log.append_encoded("clicks", rows, shape(finer))
    assert log.append_encoded("clicks", encode_rows(CLICKS.spec, [click(NOON)]), shape(CLICKS.spec)).accepted == 1
    assert contents(log, "clicks")[0]["amount"] == 1_500_000
    log.close()


def test_a_view_of_an_earlier_declaration_is_no_longer_kept(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    log.ensure_views([(CLICKS.spec, User.spec)])
    log.declare(StreamSpec("clicks", "at", (Field("user", "int"), Field("amount", "str"))))
    assert log.append("clicks", [{"at": NOON, "user": 7, "amount": "much"}]).accepted == 1
    assert log.online.views() == []
    log.close()
