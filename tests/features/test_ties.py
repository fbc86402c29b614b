"""Events that arrive late with a time that another event had: ties are broken by offset, in every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from davy.engines.offline.base import Spine
from davy.engines.offline.local import LocalEngine
from davy.engines.online.memory import MemoryStore
from davy.features.define import Stream, View, agg
from davy.features.definition import EventBatch
from davy.features.keys import encode_key
from davy.features.online import OnlineFeatures, table_of
from davy.features.tiles import Layout
from features.stand import FrameLog

moves = Stream("moves", time="at", fields={"who": str, "to": str})


class Who(View):
    stream, entity = moves, "who"
    to = agg.last("to")


def test_the_later_offset_wins_among_equal_times(tmp_path: Path) -> None:
    batch = EventBatch("moves", 1, [1000, 1001, 1002], [100, 200, 100], {"who": ["a"] * 3, "to": ["first", "after", "corrected"]})
    engine = LocalEngine(FrameLog(tmp_path, moves.spec, [batch]))  # type: ignore[arg-type]
    keys = pl.DataFrame({"who": ["a", "a", "a"]})
    (asked,) = engine.aggregate(moves.spec, Who.spec, Spine(keys, np.array([150, 150, 300]), np.array([3, 2, 3])))
    assert asked.to_list() == ["corrected", "first", "after"]

    early = EventBatch("moves", 1, [1000, 1001], [100, 100], {"who": ["a", "a"], "to": ["first", "corrected"]})
    online = OnlineFeatures(MemoryStore())
    online.ensure(moves.spec, Who.spec, [])
    online.apply(early)
    with online.store.snapshot() as snapshot:
        assert Layout(Who.spec, moves.spec).read(snapshot.get(table_of(Who.spec), encode_key(["a"]) or b""), 150) == ["corrected"]
