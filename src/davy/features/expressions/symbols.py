"""Symbols: what a derived feature's function gets for its arguments while it is traced.

Null propagates through every operation but the null-handling ones. A symbol stands for the value of every
row, so that Python's `if`, `and`, `in` and conversions, which need one value, are refused with what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from davy.errors import DefinitionError, nearest
from davy.features.expressions import build
from davy.features.expressions.nodes import Node, Traced, here, literal, widened
from davy.features.expressions.zones import check_zone

_CASTS = {("int", "float"), ("int", "bool"), ("int", "str"), ("float", "int"), ("float", "bool"), ("bool", "int"), ("bool", "float"), ("time", "int")}
LARGEST_BUCKETS = 2**31
MOST_DIGITS = 15


class _Arithmetic(Traced):
    """Int results beyond 64 bits are errors; division by zero and float overflow give null."""

    __slots__ = ()

    def __add__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("add", self.node, build.as_node(other)))

    def __radd__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("add", build.as_node(other), self.node))

    def __sub__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("subtract", self.node, build.as_node(other)))

    def __rsub__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("subtract", build.as_node(other), self.node))

    def __mul__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("multiply", self.node, build.as_node(other)))

    def __rmul__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("multiply", build.as_node(other), self.node))

    def __truediv__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("divide", self.node, build.as_node(other)))

    def __rtruediv__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("divide", build.as_node(other), self.node))

    def __floordiv__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("floor_divide", self.node, build.as_node(other)))

    def __rfloordiv__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("floor_divide", build.as_node(other), self.node))

    def __mod__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("modulo", self.node, build.as_node(other)))

    def __rmod__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("modulo", build.as_node(other), self.node))

    def __pow__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("power", self.node, build.as_node(other)))

    def __rpow__(self, other: Any) -> Symbol:
        return Symbol(build.arithmetic("power", build.as_node(other), self.node))

    def __neg__(self) -> Symbol:
        return Symbol(Node("negate", self.node.kind, (build.expect("-", self.node, "int", "float"),)))

    def __pos__(self) -> Symbol:
        return Symbol(build.expect("+", self.node, "int", "float"))

    def __abs__(self) -> Symbol:
        return Symbol(Node("absolute", self.node.kind, (build.expect("abs", self.node, "int", "float"),)))


class _Rounding(Traced):
    """`round`, `math.floor` and `math.ceil` keep the kind."""

    __slots__ = ()

    def __round__(self, digits: int | None = None) -> Symbol:
        digits = build.constant("round", 0 if digits is None else digits, int, "The number of decimals is an int.")
        if not 0 <= digits <= MOST_DIGITS:
            raise DefinitionError(f"{here()}: round got {digits} decimals.", f"It takes 0 to {MOST_DIGITS}.", "Write davy.round(x, 2).")
        return self._rounded("round", digits)

    def __floor__(self) -> Symbol:
        return self._rounded("floor", None)

    def __ceil__(self) -> Symbol:
        return self._rounded("ceil", None)

    def _rounded(self, operation: str, digits: int | None) -> Symbol:
        node = build.expect(operation, self.node, "int", "float")
        return Symbol(node if node.kind == "int" else Node(operation, "float", (node,), digits))


class _Logic(Traced):
    """Comparisons are IEEE's and exact between ints and floats; & | ~ are three-valued."""

    __slots__ = ()

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return Symbol(build.comparison("equal", self.node, build.as_node(other)))

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return Symbol(build.comparison("not_equal", self.node, build.as_node(other)))

    def __lt__(self, other: Any) -> Symbol:
        return Symbol(build.comparison("less", self.node, build.as_node(other)))

    def __le__(self, other: Any) -> Symbol:
        return Symbol(build.comparison("less_equal", self.node, build.as_node(other)))

    def __gt__(self, other: Any) -> Symbol:
        return Symbol(build.comparison("greater", self.node, build.as_node(other)))

    def __ge__(self, other: Any) -> Symbol:
        return Symbol(build.comparison("greater_equal", self.node, build.as_node(other)))

    def __and__(self, other: Any) -> Symbol:
        return Symbol(build.logic("and", self.node, build.as_node(other)))

    def __rand__(self, other: Any) -> Symbol:
        return Symbol(build.logic("and", build.as_node(other), self.node))

    def __or__(self, other: Any) -> Symbol:
        return Symbol(build.logic("or", self.node, build.as_node(other)))

    def __ror__(self, other: Any) -> Symbol:
        return Symbol(build.logic("or", build.as_node(other), self.node))

    def __invert__(self) -> Symbol:
        return Symbol(Node("not", "bool", (build.expect("~", self.node, "bool"),)))

    def __hash__(self) -> int:
        raise _needs_a_value("looks a symbol up in a set or dict", "Write x.is_in([...]).")


class _Nulls(Traced):
    """Null handling and casts."""

    __slots__ = ()

    def is_null(self) -> Symbol:
        """Whether it is null; never null itself."""
        return Symbol(Node("is_null", "bool", (self.node,)))

    def fill_null(self, value: Any) -> Symbol:
        """The value, or `value` where it is null."""
        mine, other = build.unified("fill_null", [self, value])
        return Symbol(Node("coalesce", mine.kind, (mine, other)))

    def cast(self, kind: str) -> Symbol:
        """Another kind, where that has one meaning: "int", "float", "bool" or "str".

        float -> int cuts the decimals off, and is null beyond 64 bits; a number -> bool is `x != 0`; int -> str;
        time -> int is microseconds since 1970.

        Raises:
            DefinitionError: another pair, such as float -> str, whose text depends on who writes it.
        """
        if kind not in ("int", "float", "bool", "str"):
            raise DefinitionError(f"{here()}: cast got {kind!r}.", 'A cast is to "int", "float", "bool" or "str".',
                                  nearest(str(kind), ["int", "float", "bool", "str"]))
        if kind == self.node.kind:
            return Symbol(self.node)
        if (self.node.kind, kind) not in _CASTS:
            raise DefinitionError(f"{here()}: a {self.node.kind} can't be cast to {kind}.",
                                  f"Casts: {', '.join(f'{source} -> {target}' for source, target in sorted(_CASTS))}.",
                                  "Declare the field with the kind that you need, or choose values with davy.when(...).")
        return Symbol(widened(self.node, kind) if kind == "float" and self.node.kind == "int" else Node("cast", kind, (self.node,)))

    def is_in(self, values: Sequence[Any]) -> Symbol:
        """Whether it equals one of these constants."""
        if isinstance(values, (str, Traced)) or not isinstance(values, Sequence) or not values:
            raise DefinitionError(f"{here()}: is_in got {values!r}.", "It takes a list of at least one constant.", 'Write x.is_in(["AA", "UA"]).')
        constants = []
        for value in values:
            equal = build.comparison("equal", self.node, literal(value))
            if equal.operands[1].parameter not in constants:
                constants.append(equal.operands[1].parameter)
        return Symbol(Node("is_in", "bool", (self.node,), constants))


class _Times(Traced):
    """Calendar parts of a time in an explicit IANA zone, from the pinned tzdata package."""

    __slots__ = ()

    def hour(self, zone: str | None = None) -> Symbol:
        """0 to 23, as a clock on the wall in `zone` shows it."""
        return self._part("hour", zone)

    def minute(self, zone: str | None = None) -> Symbol:
        """0 to 59."""
        return self._part("minute", zone)

    def weekday(self, zone: str | None = None) -> Symbol:
        """0 on Mondays to 6 on Sundays."""
        return self._part("weekday", zone)

    def day_of_year(self, zone: str | None = None) -> Symbol:
        """1 on the first of January, to 365 or 366."""
        return self._part("day_of_year", zone)

    def month(self, zone: str | None = None) -> Symbol:
        """1 to 12."""
        return self._part("month", zone)

    def seconds(self) -> Symbol:
        """The float seconds of an int number of microseconds, such as the difference of two times."""
        return Symbol(Node("divide", "float", (build.expect("seconds", self.node, "int"), literal(1_000_000))))

    def _part(self, name: str, zone: str | None) -> Symbol:
        node = build.expect(name, self.node, "time")
        if not isinstance(zone, str):
            raise DefinitionError(f"{here()}: {name}() got {'no zone' if zone is None else repr(zone)}.", "An hour or a day is one only in a zone.",
                                  f'Write .{name}("America/New_York") or .{name}("UTC").')
        local = Node("local", "int", (node,), check_zone(zone))
        return Symbol(Node(name, "int", (local,)))


class _Texts(Traced):
    """Texts are sequences of code points, compared by code point."""

    __slots__ = ()

    def length(self) -> Symbol:
        """The number of code points."""
        return Symbol(Node("length", "int", (build.expect("length", self.node, "str"),)))

    def lower(self) -> Symbol:
        """A to Z become a to z; all else stays, because what ß or İ becomes differs between Unicode versions."""
        return Symbol(Node("lower", "str", (build.expect("lower", self.node, "str"),)))

    def upper(self) -> Symbol:
        """a to z become A to Z; all else stays."""
        return Symbol(Node("upper", "str", (build.expect("upper", self.node, "str"),)))

    def contains(self, part: Any) -> Symbol:
        """Whether `part` is somewhere in it."""
        return self._with("contains", "bool", part)

    def starts_with(self, prefix: Any) -> Symbol:
        """Whether it begins with `prefix`."""
        return self._with("starts_with", "bool", prefix)

    def concat(self, other: Any) -> Symbol:
        """Both texts, one after the other; `+` does the same."""
        return self._with("add", "str", other)

    def hash_bucket(self, buckets: int) -> Symbol:
        """CRC-32 of the UTF-8 bytes modulo `buckets`: the same number in every process and version."""
        build.constant("hash_bucket", buckets, int, "The number of buckets is an int.")
        if not 1 <= buckets <= LARGEST_BUCKETS:
            raise DefinitionError(f"{here()}: hash_bucket got {buckets} buckets.", "It takes 1 to 2^31.", "Write davy.hash_bucket(x, 1000).")
        return Symbol(Node("hash_bucket", "int", (build.expect("hash_bucket", self.node, "str"),), buckets))

    def _with(self, operation: str, kind: str, other: Any) -> Symbol:
        name = "concat" if operation == "add" else operation
        operands = (build.expect(name, self.node, "str"), build.expect(name, build.as_node(other), "str"))
        return Symbol(Node(operation, kind, operands))


class _Mistakes(Traced):
    """What needs one value now, while a symbol stands for those of all rows."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise _needs_a_value("asks whether a symbol is true: if, and, or, not, in, min, max or a chained comparison",
                             "Write davy.when(condition, a, b), (a > 1) & (b > 2), a | b, ~a, x.is_in([...]), davy.minimum or davy.maximum.")

    def __contains__(self, item: object) -> NoReturn:
        raise _needs_a_value(f"asks whether {item!r} is in a symbol", 'Write x.contains("part"), or x.is_in([...]).')

    def __iter__(self) -> NoReturn:
        raise _needs_a_value("loops over a symbol", "Use the symbol as a whole.")

    def __len__(self) -> NoReturn:
        raise _needs_a_value("takes len() of a symbol", "Write x.length().")

    def __getitem__(self, item: object) -> NoReturn:
        raise _needs_a_value("indexes a symbol", "Write x.starts_with(...) or x.contains(...); other parts of a text belong into a field.")

    def __float__(self) -> NoReturn:
        raise _needs_a_value("turns a symbol into a float, for example by math.log",
                             'Write x.cast("float"), or davy.log, davy.log1p, davy.exp, davy.sqrt.')

    def __int__(self) -> NoReturn:
        raise _needs_a_value("turns a symbol into an int", 'Write x.cast("int").')

    def __index__(self) -> NoReturn:
        raise _needs_a_value("uses a symbol as an index or count", "Use the symbol in arithmetic and comparisons.")

    def __str__(self) -> NoReturn:
        raise _needs_a_value("turns a symbol into a text", 'Write x.cast("str") and x.concat(...); repr(x) shows what it is.')

    def __format__(self, spec: str) -> NoReturn:
        raise _needs_a_value("puts a symbol into an f-string", 'Write x.concat("_").concat(y).')

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise DefinitionError(f"{here()}: a {self.node.kind} has no .{name}.", nearest(name, METHODS),
                              "Use one of these, or a function of davy such as davy.when, davy.log or davy.clip.")


class Symbol(_Arithmetic, _Rounding, _Logic, _Nulls, _Times, _Texts, _Mistakes):
    """An argument, or what was computed from arguments."""

    __slots__ = ()


METHODS = tuple(sorted(name for part in (_Nulls, _Times, _Texts) for name in vars(part) if not name.startswith("_")))


def _needs_a_value(does: str, fix: str) -> DefinitionError:
    return DefinitionError(f"{here()} {does}.", "The function is run once with symbols that stand for the values of every row.", fix)
