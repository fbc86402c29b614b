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
from typing import TYPE_CHECKING, Any, NamedTuple

from davy.features.kernel import finalise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from davy.features.definition import FeatureSpec, StreamSpec, ViewSpec

NONE_YET = -(1 << 63)
SMALLEST, LARGEST = (1 << 63) - 1, -(1 << 63)
WORD = 8
_LENGTH = struct.Struct("<I")
_NUMBER = struct.Struct("<q")
Tile = list[int]
_MASK = (1 << 64) - 1

# A slot's role decides its words, its start and how an event enters it.
COUNT, SUM, SQUARES, MIN, MAX = range(5)
_FORMATS = {COUNT: "q", SUM: "Qq", SQUARES: "QQq", MIN: "q", MAX: "q"}
_STARTS = {COUNT: 0, SUM: 0, SQUARES: 0, MIN: SMALLEST, MAX: LARGEST}
_NEEDS = {"count": (COUNT,), "sum": (COUNT, SUM), "mean": (COUNT, SUM), "std": (COUNT, SUM, SQUARES), "min": (MIN,), "max": (MAX,)}


class Level:
    """The tiles of one hop: which slots they carry, and how an event enters them.

    Attributes:
        slots: (role, field) per slot; slot 0 counts all events (field None).
        keep: microseconds of the longest window.
        step: enters one event, see `_source`.
        unpack, pack: between a tile's bytes and a list of its number and slots.
    """

    def __init__(self, hop: int, features: Sequence[FeatureSpec], fields: Sequence[str]) -> None:
        self.hop = hop
        self.keep = max(feature.window or 0 for feature in features)
        self.slots: list[tuple[int, str | None]] = [(COUNT, None)]
        for feature in features:
            for role in _NEEDS[feature.aggregate]:
                if feature.field is not None and (role, feature.field) not in self.slots:
                    self.slots.append((role, feature.field))
        self.words = self.word(len(self.slots) + 1)
        self.size = self.words * WORD
        self.struct = struct.Struct("<q" + "".join(_FORMATS[role] for role, _ in self.slots))
        self.start: Tile = [0, *(_STARTS[role] for role, _ in self.slots)]
        self.cumulative = [index for index, (role, _) in enumerate(self.slots, 1) if role in (COUNT, SUM, SQUARES)]
        scope: dict[str, Any] = {"S": self.struct, "first": _NUMBER.unpack_from}
        exec(self._source(fields), scope)
        self.step: Callable[[bytearray, int, int, Sequence[Any]], bool] = scope["step"]
        self.unpack: Callable[[Any, int], Tile] = scope["unpack"]
        self.pack: Callable[[Tile], bytes] = scope["pack"]

    def slot(self, role: int, field: str | None) -> int:
        """The index of a slot within an unpacked tile."""
        return self.slots.index((role, field)) + 1

    def word(self, index: int) -> int:
        """The first word of a slot within a packed tile."""
        return 1 + sum(len(_FORMATS[role]) for role, _ in self.slots[: index - 1])

    def _source(self, fields: Sequence[str]) -> str:
        """Straight-line code for this level, made once per view: entering an event is one unpack and one pack.

        `step(data, time, latest, event)` adds an event (values in the order of `fields`) to the newest tile or begins
        the next one, and returns False for an event that belongs to an earlier tile.
        """
        same, fresh, names = ["  a1 = w[1] + 1"], ["  a1 = w[1] + 1"], ["number", "a1"]
        for index, (role, field) in enumerate(self.slots[1:], 2):
            at, value = self.word(index), f"event[{fields.index(field or '')}]"
            if role in (MIN, MAX):
                better = "<" if role == MIN else ">"
                same.append(f"  v = {value}\n  a{at} = v if v is not None and v {better} w[{at}] else w[{at}]")
                fresh.append(f"  v = {value}\n  a{at} = {_STARTS[role]} if v is None else v")
                names.append(f"a{at}")
                continue
            parts = range(len(_FORMATS[role]))
            joined = " | ".join(f"w[{at + part}] << {64 * part}" for part in parts)
            more = {COUNT: "1", SUM: "v", SQUARES: "v * v"}[role]
            split = [f"a{at + part} = t >> {64 * part}" + (f" & {_MASK}" if part < len(parts) - 1 else "") for part in parts]
            line = f"  v = {value}\n  t = ({joined}) + ({more} if v is not None else 0)\n  " + "\n  ".join(split)
            same.append(line)
            fresh.append(line)
            names += [f"a{at + part}" for part in parts]
        packed = ", ".join(names)
        start = ", ".join(str(0 if role in (COUNT, SUM, SQUARES) else _STARTS[role]) for role, _ in self.slots for _ in _FORMATS[role])
        words = [(index, [self.word(index) + part for part in range(len(_FORMATS[role]))]) for index, (role, _) in enumerate(self.slots, 1)]
        reads = ", ".join(" | ".join(f"w[{at}] << {64 * part}" for part, at in enumerate(ats)) for _, ats in words)
        writes = ", ".join(f"t[{index}] >> {64 * part}" + (f" & {_MASK}" if part < len(ats) - 1 else "") for index, ats in words for part in range(len(ats)))
        return "\n".join(
            [
                "def step(data, time, latest, event):",
                f" number = time // {self.hop}",
                " end = len(data)",
                f" w = S.unpack_from(data, end - {self.size}) if end else (number - 1, {start})",
                " if number == w[0]:",
                *same,
                f"  S.pack_into(data, end - {self.size}, {packed})",
                "  return True",
                " if number > w[0]:",
                *fresh,
                f"  reachable = (latest - {self.keep}) // {self.hop}",
                # the newest of the tiles that no read reaches any more stays: it is the base of subtractions
                f"  while end > {self.size} and first(data, {self.size})[0] < reachable:",
                f"   del data[:{self.size}]",
                f"   end -= {self.size}",
                f"  data += S.pack({packed})",
                "  return True",
                " return False",
                "def unpack(data, at):",
                " w = S.unpack_from(data, at)",
                f" return [w[0], {reads}]",
                "def pack(t):",
                f" return S.pack(t[0], {writes})",
            ]
        )

    def enter_late(self, data: bytearray, time: int, latest: int, event: Sequence[Any]) -> None:
        """Give an event to an earlier tile (made if absent) and raise the totals of the tiles after it; drop it where no read reaches."""
        number = time // self.hop
        if number < (latest - self.keep) // self.hop:
            return
        with memoryview(data).cast("q") as flat, flat[:: self.words] as numbers:
            place = bisect_left(numbers, number)
        tiles = [self.unpack(data, at) for at in range(place * self.size, len(data), self.size)]
        if tiles[0][0] != number:
            before = self.unpack(data, (place - 1) * self.size) if place else self.start
            tiles.insert(0, [number, *(before[slot] if slot in self.cumulative else self.start[slot] for slot in range(1, len(before)))])
        alone = bytearray()
        self.step(alone, time, latest, event)
        once = self.unpack(alone, 0)
        for slot, (role, _) in enumerate(self.slots, 1):
            if role in (MIN, MAX):
                tiles[0][slot] = (min if role == MIN else max)(tiles[0][slot], once[slot])
                continue
            for tile in tiles:
                tile[slot] += once[slot]
        data[place * self.size :] = b"".join(map(self.pack, tiles))


class _Window(NamedTuple):
    """The features over one window of a level, by how many slots they need: places in the view's values, then slots."""

    counts: list[tuple[int, int]]
    sums: list[tuple[int, int, int, Callable[..., Any]]]
    squares: list[tuple[int, int, int, int, Callable[..., Any]]]
    extremes: list[tuple[int, int, Callable[..., Any], Callable[..., Any]]]


class State:
    """The decoded, changeable state of one entity: levels stay packed."""

    __slots__ = ("applied", "lasts", "levels")

    def __init__(self, applied: int, lasts: list[list[Any]], levels: list[bytearray]) -> None:
        self.applied = applied
        self.lasts = lasts
        self.levels = levels


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
        self.lasts = sorted({feature.field for feature in view.features if feature.aggregate == "last" and feature.field})
        self.texts = {name for name in self.lasts if stream.field(name).kind == "str"}
        self.fields = sorted({feature.field for feature in view.features if feature.field})
        self.levels = [Level(hop, features, self.fields) for hop, features in sorted(hops.items())]
        self._steps = [level.step for level in self.levels]
        self._last_places = [self.fields.index(name) for name in self.lasts]
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
        words += [len(data) // level.size for level, data in zip(self.levels, state.levels, strict=True)]
        for name, (time, offset, value) in zip(self.lasts, state.lasts, strict=True):
            if name in self.texts:
                raw = (value or "").encode()
                texts.append(_LENGTH.pack(len(raw)) + raw)
                value = 0
            words += (time, offset, value or 0)
        return b"".join((self.header.pack(*words), *state.levels, *texts))

    def enter(self, state: State, offset: int, ingest: int, time: int, event: Sequence[Any]) -> None:
        """Apply one event. `event` holds the stored values of `fields`, in their order; `ingest` bounds what later reads can reach."""
        state.applied = offset
        for place, last in zip(self._last_places, state.lasts) if state.lasts else ():  # noqa: B905
            value = event[place]
            if value is not None and (time > last[0] or (time == last[0] and offset > last[1])):
                last[:] = time, offset, value
        latest = ingest if ingest > time else time
        for step, level, data in zip(self._steps, self.levels, state.levels):  # noqa: B905 - equal by construction, and this is the hot path
            if not step(data, time, latest, event):
                level.enter_late(data, time, latest, event)

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
        windows: dict[int, _Window] = {}
        for feature in features:
            field = self.stream.field(feature.field) if feature.field else None
            slots = [level.slot(role, feature.field) for role in _NEEDS[feature.aggregate]]
            window = windows.setdefault(feature.window or 0, _Window([], [], [], []))
            position, final = self.view.features.index(feature), finalise(feature, field)
            if feature.aggregate in ("min", "max"):
                window.extremes.append((position, level.word(slots[0]), min if feature.aggregate == "min" else max, final))
            elif len(slots) == 1:
                window.counts.append((position, slots[0]))
            elif len(slots) == 2:
                window.sums.append((position, slots[0], slots[1], final))
            else:
                window.squares.append((position, slots[0], slots[1], slots[2], final))
        plan = [(width, window.counts, window.sums, window.squares, window.extremes) for width, window in windows.items()]
        hop, size, words, unpack, number = level.hop, level.size, level.words, level.unpack, _NUMBER.unpack_from
        nothing = level.start

        def read(value: bytes, at: int, count: int, t: int, out: list[Any]) -> int:
            end = at + count * size
            if not count:
                return end
            last = unpack(value, end - size)
            for width, counts, sums, squares, extremes in plan:
                low = (t - width) // hop
                if last[0] < low:
                    continue
                first, base = 0, nothing
                if number(value, at)[0] < low:
                    first = bisect_left(memoryview(value)[at:end].cast("q")[::words], low)
                    base = unpack(value, at + (first - 1) * size)
                for position, n in counts:
                    out[position] = last[n] - base[n]
                for position, n, total, final in sums:
                    out[position] = final(last[n] - base[n], last[total] - base[total])
                for position, n, total, square, final in squares:
                    out[position] = final(last[n] - base[n], last[total] - base[total], last[square] - base[square])
                for position, word, choose, decode in extremes:
                    extreme = choose(memoryview(value)[at + first * size : end].cast("q")[word::words])
                    out[position] = None if extreme in (SMALLEST, LARGEST) else decode(extreme)
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
