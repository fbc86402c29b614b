"""Online state of one (view, entity): one value of bytes that answers every feature of the view in O(log tiles).

Layout, little-endian int64 words, then text:

    header   applied offset · number of tiles per level · (time, offset, value) per field that `last` reads
    levels   one per hop: tiles sorted by number; a tile is `number`, then its slots
    text     per `last` over text: u32 length + UTF-8 (the header's value word is then unused)

A tile covers the events with floor(time / hop) = number. Counts, sums and sums of squares are *cumulative* over the
entity's events up to and including the tile, so that a window is one subtraction of exact integers (sums in 128 bits,
squares in 192); smallest and largest are the tile's own. Tiles that no later read can reach are dropped, all but the
newest of them, which remains as the base of the subtraction. A late event changes its tile and the totals after it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from davy.features.kernel import finalise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from davy.features.definition import FeatureSpec, StreamSpec, ViewSpec

NONE_YET = -(1 << 63)
SMALLEST, LARGEST = (1 << 63) - 1, -(1 << 63)
WORD = 8
_LENGTH = struct.Struct("<I")
Tile = list[int]

# A slot's role decides its words, its start and how an event enters it.
COUNT, SUM, SQUARES, MIN, MAX = range(5)
_FORMATS = {COUNT: "q", SUM: "Qq", SQUARES: "QQq", MIN: "q", MAX: "q"}
_STARTS = {COUNT: 0, SUM: 0, SQUARES: 0, MIN: SMALLEST, MAX: LARGEST}
_NEEDS = {"count": (COUNT,), "sum": (COUNT, SUM), "mean": (COUNT, SUM), "std": (COUNT, SUM, SQUARES), "min": (MIN,), "max": (MAX,)}


class Level:
    """The tiles of one hop: which slots they carry, and how they are packed.

    Attributes:
        slots: (role, field) per slot; slot 0 counts all events (field None).
        keep: microseconds of the longest window.
    """

    def __init__(self, hop: int, features: Sequence[FeatureSpec]) -> None:
        self.hop = hop
        self.keep = max(feature.window or 0 for feature in features)
        self.slots: list[tuple[int, str | None]] = [(COUNT, None)]
        for feature in features:
            for role in _NEEDS[feature.aggregate]:
                if feature.field is not None and (role, feature.field) not in self.slots:
                    self.slots.append((role, feature.field))
        self.words = 1 + sum(len(_FORMATS[role]) for role, _ in self.slots)
        self.size = self.words * WORD
        self.struct = struct.Struct("<q" + "".join(_FORMATS[role] for role, _ in self.slots))
        self.start: Tile = [0, *(_STARTS[role] for role, _ in self.slots)]
        self.fields = sorted({field for _, field in self.slots if field is not None})
        self.steps = [(index, role, field) for index, (role, field) in enumerate(self.slots, 1) if field is not None]
        self.cumulative = [index for index, (role, _) in enumerate(self.slots, 1) if role in (COUNT, SUM, SQUARES)]
        self.unpack, self.pack = self._packing()

    def slot(self, role: int, field: str | None) -> int:
        """The index of a slot within a tile."""
        return self.slots.index((role, field)) + 1

    def word(self, index: int) -> int:
        """The first word of a slot within a packed tile."""
        return 1 + sum(len(_FORMATS[role]) for role, _ in self.slots[: index - 1])

    def _packing(self) -> tuple[Callable[[Any, int], Tile], Callable[[Tile], bytes]]:
        """Generated once per view: wide integers to words and back without a loop."""
        reads, writes, word = ["w[0]"], ["t[0]"], 1
        for index, (role, _) in enumerate(self.slots, 1):
            count = len(_FORMATS[role])
            parts = [f"w[{word + part}]" + (f"<<{64 * part}" if part else "") for part in range(count)]
            reads.append("|".join(f"({part})" for part in parts))
            mask = (1 << 64) - 1
            writes += [f"t[{index}]>>{64 * part}&{mask}" if part < count - 1 else f"t[{index}]>>{64 * part}" for part in range(count)]
            word += count
        scope: dict[str, Any] = {"u": self.struct.unpack_from, "p": self.struct.pack}
        exec(f"def unpack(data, at):\n w = u(data, at)\n return [{', '.join(reads)}]\ndef pack(t):\n return p({', '.join(writes)})", scope)
        return scope["unpack"], scope["pack"]

    def enter(self, tile: Tile, event: dict[str, Any]) -> None:
        """Add one event to a tile."""
        tile[1] += 1
        for index, role, field in self.steps:
            value = event[field]
            if value is None:
                continue
            if role == COUNT:
                tile[index] += 1
            elif role == SUM:
                tile[index] += value
            elif role == SQUARES:
                tile[index] += value * value
            elif role == MIN:
                if value < tile[index]:
                    tile[index] = value
            elif value > tile[index]:
                tile[index] = value

    def successor(self, before: Tile, number: int) -> Tile:
        """An empty tile after `before`: its totals go on, its extremes start anew."""
        tile = self.start.copy()
        tile[0] = number
        for index in self.cumulative:
            tile[index] = before[index]
        return tile


class State:
    """The decoded, changeable state of one entity: levels stay packed but for the tile at their end."""

    __slots__ = ("applied", "lasts", "levels", "open")

    def __init__(self, applied: int, lasts: list[list[Any]], levels: list[bytearray]) -> None:
        self.applied = applied
        self.lasts = lasts
        self.levels = levels
        self.open: list[Tile | None] = [None] * len(levels)


class Layout:
    """How one view's state is written and read.

    Args:
        view, stream: the definitions; only the view's own features matter.
    """

    def __init__(self, view: ViewSpec, stream: StreamSpec) -> None:
        self.view = view
        self.stream = stream
        hops: dict[int, list[FeatureSpec]] = {}
        for feature in view.features:
            if feature.aggregate != "last":
                hops.setdefault(feature.hop, []).append(feature)
        self.levels = [Level(hop, features) for hop, features in sorted(hops.items())]
        self.lasts = sorted({feature.field for feature in view.features if feature.aggregate == "last" and feature.field})
        self.texts = {name for name in self.lasts if stream.field(name).kind == "str"}
        self.fields = sorted({feature.field for feature in view.features if feature.field})
        self.header = struct.Struct(f"<{1 + len(self.levels) + 3 * len(self.lasts)}q")
        self._readers = [self._level_reader(level, features) for level, (_, features) in zip(self.levels, sorted(hops.items()), strict=True)]
        self._last_readers = self._make_last_readers()
        self.empty = self._nothing()

    # Writing

    def decode(self, value: bytes | None) -> State:
        """The state that `encode` wrote, or an empty one."""
        if value is None:
            return State(0, [[NONE_YET, 0, None] for _ in self.lasts], [bytearray() for _ in self.levels])
        head = self.header.unpack_from(value)
        at, levels = self.header.size, []
        for level, count in zip(self.levels, head[1:], strict=False):
            levels.append(bytearray(value[at : at + count * level.size]))
            at += count * level.size
        first = 1 + len(self.levels)
        lasts: list[list[Any]] = []
        for index, name in enumerate(self.lasts):
            time, offset, stored = head[first + 3 * index : first + 3 * index + 3]
            found: Any = None if time == NONE_YET else stored
            if name in self.texts:
                (length,) = _LENGTH.unpack_from(value, at)
                found = None if time == NONE_YET else value[at + 4 : at + 4 + length].decode()
                at += 4 + length
            lasts.append([time, offset, found])
        return State(head[0], lasts, levels)

    def encode(self, state: State) -> bytes:
        """The bytes to store."""
        words, texts = [state.applied], []
        for level, data, tile in zip(self.levels, state.levels, state.open, strict=True):
            if tile is not None:
                data[-level.size :] = level.pack(tile)
            words.append(len(data) // level.size)
        for name, (time, offset, value) in zip(self.lasts, state.lasts, strict=True):
            if name in self.texts:
                raw = (value or "").encode()
                texts.append(_LENGTH.pack(len(raw)) + raw)
                value = 0
            words += (time, offset, value or 0)
        return b"".join((self.header.pack(*words), *state.levels, *texts))

    def enter(self, state: State, offset: int, ingest: int, time: int, event: dict[str, Any]) -> None:
        """Apply one event. `event` holds the stored values of the view's fields; `ingest` bounds what later reads can reach."""
        state.applied = offset
        for index, name in enumerate(self.lasts):
            value = event[name]
            last = state.lasts[index]
            if value is not None and (time, offset) > (last[0], last[1]):
                state.lasts[index] = [time, offset, value]
        latest = ingest if ingest > time else time
        for index, level in enumerate(self.levels):
            number = time // level.hop
            tile = state.open[index]
            if tile is None and state.levels[index]:
                data = state.levels[index]
                tile = state.open[index] = level.unpack(data, len(data) - level.size)
            if tile is not None and number == tile[0]:
                level.enter(tile, event)
            elif tile is None or number > tile[0]:
                self._append(state, index, number, tile, latest, event)
            elif number >= (latest - level.keep) // level.hop:
                self._enter_late(state, index, number, event)

    def _append(self, state: State, index: int, number: int, tile: Tile | None, latest: int, event: dict[str, Any]) -> None:
        level, data = self.levels[index], state.levels[index]
        if tile is None:
            new = level.start.copy()
            new[0] = number
        else:
            data[-level.size :] = level.pack(tile)
            new = level.successor(tile, number)
        reachable = (latest - level.keep) // level.hop
        if data and memoryview(data).cast("q")[0] < reachable:
            expired = bisect_left(memoryview(data).cast("q")[:: level.words], reachable) - 1
            if expired > 0:
                del data[: expired * level.size]
        level.enter(new, event)
        data += level.pack(new)
        state.open[index] = new

    def _enter_late(self, state: State, index: int, number: int, event: dict[str, Any]) -> None:
        """Give an event to an earlier tile (made if absent) and raise the totals of the tiles after it."""
        level, data = self.levels[index], state.levels[index]
        tile = state.open[index]
        if tile is not None:
            data[-level.size :] = level.pack(tile)
        place = bisect_left(memoryview(data).cast("q")[:: level.words], number)
        tiles = [level.unpack(data, at) for at in range(place * level.size, len(data), level.size)]
        if tiles[0][0] != number:
            before = level.unpack(data, (place - 1) * level.size) if place else level.start
            tiles.insert(0, level.successor(before, number))
        once = level.start.copy()
        level.enter(once, event)
        level.enter(tiles[0], event)
        for later in tiles[1:]:
            for slot in level.cumulative:
                later[slot] += once[slot]
        data[place * level.size :] = b"".join(map(level.pack, tiles))
        state.open[index] = tiles[-1]

    # Reading

    def read(self, value: bytes | None, t: int) -> list[Any]:
        """The view's features at `t`, in the order of the definition. `t` lies after every event applied.

        Returns:
            Values of the features' kinds, None for null.
        """
        if value is None:
            return self.empty.copy()
        out = self.empty.copy()
        head = self.header.unpack_from(value)
        at = self.header.size
        for number, read in enumerate(self._readers, 1):
            at = read(value, at, head[number], t, out)
        if self._last_readers:
            texts = self._texts(value, at) if self.texts else {}
            for position, word, limit, name, final in self._last_readers:
                time = head[word]
                if time != NONE_YET and time >= limit(t):
                    out[position] = final(texts[name] if name in texts else head[word + 2])
        return out

    def _texts(self, value: bytes, at: int) -> dict[str, str]:
        found = {}
        for name in self.lasts:
            if name in self.texts:
                (length,) = _LENGTH.unpack_from(value, at)
                found[name] = value[at + 4 : at + 4 + length].decode()
                at += 4 + length
        return found

    def _make_last_readers(self) -> list[tuple[int, int, Callable[[int], int], str, Callable[..., Any]]]:
        readers = []
        for position, feature in enumerate(self.view.features):
            if feature.aggregate == "last" and feature.field:
                word = 1 + len(self.levels) + 3 * self.lasts.index(feature.field)
                readers.append((position, word, last_limit(feature), feature.field, finalise(feature, self.stream.field(feature.field))))
        return readers

    def _nothing(self) -> list[Any]:
        """The values over no events: 0 for counts and sums, null for the rest."""
        return [
            finalise(feature, self.stream.field(feature.field) if feature.field else None)(*(0, 0)[: 1 + (feature.aggregate == "sum")])
            if feature.aggregate in ("count", "sum")
            else None
            for feature in self.view.features
        ]

    def _level_reader(self, level: Level, features: Sequence[FeatureSpec]) -> Callable[[bytes, int, int, int, list[Any]], int]:
        windows: dict[int, list[tuple[int, str, tuple[int, ...], Callable[..., Any]]]] = {}
        for feature in features:
            field = self.stream.field(feature.field) if feature.field else None
            roles = _NEEDS[feature.aggregate]
            slots = tuple(level.slot(role, feature.field) for role in roles)
            entry = (self.view.features.index(feature), feature.aggregate, slots, finalise(feature, field))
            windows.setdefault(feature.window or 0, []).append(entry)
        plan = list(windows.items())
        hop, size, words, unpack = level.hop, level.size, level.words, level.unpack
        nothing = level.start

        def read(value: bytes, at: int, count: int, t: int, out: list[Any]) -> int:
            end = at + count * size
            if not count:
                return end
            last = unpack(value, end - size)
            flat = memoryview(value)[at:end].cast("q")
            numbers = flat[::words]
            for window, entries in plan:
                low = (t - window) // hop
                if last[0] < low:
                    continue
                first = 0 if numbers[0] >= low else bisect_left(numbers, low)
                base = unpack(value, at + (first - 1) * size) if first else nothing
                for position, aggregate, slots, final in entries:
                    if aggregate == "min" or aggregate == "max":
                        extreme = (min if aggregate == "min" else max)(flat[first * words + level.word(slots[0]) :: words])
                        out[position] = None if extreme in (SMALLEST, LARGEST) else final(extreme)
                    else:
                        out[position] = final(*[last[slot] - base[slot] for slot in slots])
            return end

        return read


def last_limit(feature: FeatureSpec) -> Callable[[int], int]:
    """The earliest event time that a `last` asked at t may return: the floored window, or t less the time to live."""
    if feature.window is not None:
        window, hop = feature.window, feature.hop
        return lambda t: (t - window) // hop * hop
    if feature.ttl is not None:
        ttl = feature.ttl
        return lambda t: t - ttl
    return lambda t: NONE_YET + 1
