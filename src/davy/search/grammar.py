"""Filters and orders as text, read into a tree by one LALR grammar.

    metrics.auc > 0.7 and (params.model = 'lgbm' or not tags.stage in ('old', 'bad'))

NOT binds closer than AND, AND closer than OR. A filter of MLflow reads as MLflow reads it, also what it is lenient
about: strings are what stands between their quotes (inside a list, as Python reads them), and where neither OR, NOT nor
parentheses are used, an AND may be left out or stand alone.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from davy.errors import InvalidInput
from davy.search.tree import And, Condition, Node, Not, Or, Ordering, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

LONGEST, MOST_CONDITIONS, MOST_VALUES, DEEPEST = 500_000, 250, 20_000, 60
_CACHED = 4_000
_WINDOW = 60
GRAMMAR = r"""
start: either?
either: both (_OR both)*
both: AND* (_unary AND*)+
_unary: condition | negation | group
negation: _NOT _unary
group: "(" either ")"
condition: term OP term                              -> compare
         | term (LIKE | NOT_LIKE) term [_ESCAPE term] -> like
         | term (IN | NOT_IN) "(" [term ("," term)*] [","] ")" -> within
         | term (BETWEEN | NOT_BETWEEN) term AND term -> between
         | term (IS_NULL | IS_NOT_NULL)              -> null
term: FIELD | NAME | STRING | DOUBLE | BACKTICK | NUMBER | FUNCTION "(" FIELD ")"
order: term NAME?

AND.3: /and\b/i
_OR.3: /or\b/i
_NOT.3: /not\b/i
IN.3: /in\b/i
NOT_IN.4: /not\s+in\b/i
LIKE.3: /i?like\b/i
NOT_LIKE.4: /not\s+i?like\b/i
_ESCAPE.3: /escape\b/i
BETWEEN.3: /between\b/i
NOT_BETWEEN.4: /not\s+between\b/i
IS_NULL.4: /is\s+null\b/i
IS_NOT_NULL.4: /is\s+not\s+null\b/i
FUNCTION.4: /(max|min|last|latest)(?=\s*\()/i
FIELD.5: /(?:[^\W\d]\w*|`[^`]+`)\.(?:`(?:``|[^`])+`|"[^"]+"|'[^']+'|[\w$#@\/:\-]+(?:\.[\w$#@\/:\-]+)*)/
NAME: /[^\W\d]\w*/
STRING: /'(''|\x5c\x5c'|[^'])*'/
DOUBLE: /"(""|\x5c\x5c"|[^"])*"/
BACKTICK: /`(``|[^`])*`/
NUMBER: /-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?(?!\w)/i
OP: /[<>=~!]+/
%ignore /\s+/
"""
_KINDS = {"FIELD": "field", "NAME": "name", "STRING": "string", "DOUBLE": "double", "BACKTICK": "backtick", "NUMBER": "number"}
_SPACES = re.compile(r"\s+")


class Unreadable(Exception):
    """Text that is no filter: where that shows, and what was expected there."""

    def __init__(self, at: int, expected: str, found: str = "") -> None:
        super().__init__(at, expected, found)
        self.at, self.expected, self.found = at, expected, found


def refused(text: str, at: int, message: str, allowed: str = "") -> InvalidInput:
    """The error that quotes the text around `at` with a caret below it, after MLflow's own words in `message`."""
    line_start = text.rfind("\n", 0, at) + 1
    line_end = text.find("\n", at) if "\n" in text[at:] else len(text)
    begin, end = max(line_start, at - _WINDOW), min(line_end, at + _WINDOW)
    before, after = "..." if begin > line_start else "", "..." if end < line_end else ""
    shown = text[begin:end].replace("\t", " ")
    hint = f": {allowed}" if allowed else ""
    pointer = " " * (len(before) + at - begin) + "^"
    return InvalidInput(f"{message}\n  {before}{shown}{after}\n  {pointer} at character {at + 1}{hint}", "", "The language: docs/concepts/search.md")


def parse(text: str) -> Node | None:
    """The tree of a filter; None for an empty one.

    Raises:
        Unreadable: it is not in the language, or too long, too deep or too large.
    """
    if len(text) > LONGEST:
        raise Unreadable(LONGEST, f"a filter has at most {LONGEST:,} characters; this one has {len(text):,}")
    return _cached(text) if len(text) <= _CACHED else _parse(text)


def parse_order(text: str) -> tuple[Term, str, int]:
    """The field of an order's item, the word behind it, and where that stands.

    Raises:
        Unreadable: it is not one field and at most one word.
    """
    if len(text) > _CACHED:
        raise Unreadable(_CACHED, f"an item of an order has at most {_CACHED:,} characters")
    term, *word = _read(text, "order")
    return (term, str(word[0]), word[0].start_pos) if word else (term, "", len(text))


def ordering(text: str, refuse: Callable[[int, str, str], InvalidInput]) -> Ordering:
    """An order's item: `metrics.auc DESC`."""
    try:
        term, word, at = parse_order(text)
    except Unreadable as problem:
        raise refuse(problem.at, f"Invalid order_by clause '{text[:200]}'. Could not be parsed.", problem.expected) from None
    if word.lower() not in ("", "asc", "desc"):
        raise refuse(at, f"Invalid ordering key in order_by clause '{text}'.", "ASC or DESC")
    return Ordering(term, word.lower() == "desc", text)


@lru_cache(1024)
def _cached(text: str) -> Node | None:
    return _parse(text)


def _parse(text: str) -> Node | None:
    builder: _Read = _read(text, "start")
    return builder.node


def _read(text: str, start: str) -> Any:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    try:
        return _parser().parse(text, start=start)
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        expected = "this quote is not closed" if text[at] in "'\"`" else f"{text[at]!r} has no meaning here"
        raise Unreadable(at, expected, text[at:at + 40]) from None
    except UnexpectedToken as error:
        ended = error.token.type == "$END"
        at = len(text.rstrip()) if ended else error.token.start_pos or 0
        raise Unreadable(at, _expected(error.expected), "" if ended else str(error.token)) from None


def _expected(terminals: Collection[str]) -> str:
    found = set(terminals)
    if "OP" in found:
        return "an operator was expected, such as =, !=, >, LIKE, IN or IS NULL"
    if "_NOT" in found and "$END" not in found:
        return "a condition was expected, such as metrics.auc > 0.7"
    if "$END" in found or "_OR" in found:
        return "AND, OR or the end was expected"
    if "RPAR" in found:
        return "')' or another value was expected"
    return "a value was expected, such as 0.7 or 'text'"


class _Read(msgspec.Struct):
    node: Node | None


@cache
def _parser() -> Any:
    """The parser, built once in a process."""
    from lark import Lark, Transformer, v_args

    @v_args(inline=True)
    class Build(Transformer):  # type: ignore[type-arg]
        """Makes the tree while reading, so that no depth of text is a depth of calls."""

        def start(self, made: _Part | None = None) -> _Read:
            if made is None:
                return _Read(None)
            if made.stray is not None and made.nested:
                raise Unreadable(made.stray, "between two conditions stands one AND or OR")
            return _Read(made.node)

        def either(self, *parts: _Part) -> _Part:
            return parts[0] if len(parts) == 1 else _joined(parts, Or, nested=True)

        def both(self, *parts: Any) -> _Part:
            made = [part for part in parts if isinstance(part, _Part)]
            stray = _stray(parts)
            joined = made[0] if len(made) == 1 else _joined(made, And, nested=any(part.nested for part in made))
            return joined if stray is None else msgspec.structs.replace(joined, stray=stray)

        def negation(self, part: _Part) -> _Part:
            return _deeper(_Part(Not(part.node), part.at, part.count, part.values, part.depth + 1, True, part.stray))

        def group(self, part: _Part) -> _Part:
            return msgspec.structs.replace(part, nested=True)

        def compare(self, left: Term, op: Any, right: Term) -> _Part:
            return _condition(left, op, (right,))

        def like(self, left: Term, op: Any, right: Term, escape: Term | None = None) -> _Part:
            return _condition(left, op, (right,), escape)

        def within(self, left: Term, op: Any, *right: Term | None) -> _Part:
            return _condition(left, op, tuple(term for term in right if isinstance(term, Term)))

        def between(self, left: Term, op: Any, low: Term, _and: Any, high: Term) -> _Part:
            return _condition(left, op, (low, high))

        def null(self, left: Term, op: Any) -> _Part:
            return _condition(left, op, ())

        def term(self, first: Any, field: Any = None) -> Term:
            if field is not None:
                return Term("field", str(field), first.start_pos, first.lower())
            return Term(_KINDS[first.type], str(first), first.start_pos)  # type: ignore[arg-type]

        def order(self, term: Term, word: Any = None) -> tuple[Any, ...]:
            return (term,) if word is None else (term, word)

    return Lark(GRAMMAR, parser="lalr", lexer="basic", start=["start", "order"], transformer=Build(), maybe_placeholders=False)


class _Part(msgspec.Struct, frozen=True):
    """A node on its way: what it weighs, and whether it uses more than MLflow's own language."""

    node: Node
    at: int
    count: int
    values: int = 0
    depth: int = 1
    nested: bool = False
    stray: int | None = None


def _condition(left: Term, op: Any, right: tuple[Term, ...], escape: Term | None = None) -> _Part:
    _check_values(len(right), op.start_pos)
    return _Part(Condition(left, _SPACES.sub(" ", op).upper(), right, op.start_pos, escape), left.at, 1, len(right))


def _check_values(count: int, at: int) -> None:
    if count > MOST_VALUES:
        raise Unreadable(at, f"the lists of a filter have at most {MOST_VALUES:,} values together")


def _joined(parts: Collection[_Part], kind: type[And] | type[Or], nested: bool) -> _Part:
    made = list(parts)
    count = sum(part.count for part in made)
    if count > MOST_CONDITIONS:
        raise Unreadable(made[-1].at, f"a filter has at most {MOST_CONDITIONS} conditions; write x IN (...) for many values of one field")
    values = sum(part.values for part in made)
    _check_values(values, made[-1].at)
    strays = [part.stray for part in made if part.stray is not None]
    return _deeper(_Part(kind(tuple(part.node for part in made)), made[0].at, count, values, max(part.depth for part in made) + 1, nested,
                         strays[0] if strays else None))


def _deeper(part: _Part) -> _Part:
    if part.depth > DEEPEST:
        raise Unreadable(part.at, f"a filter is at most {DEEPEST} levels deep")
    return part


def _stray(parts: tuple[Any, ...]) -> int | None:
    """Where an AND stands alone, twice or not at all."""
    last: Any = None
    for part in parts:
        if isinstance(part, _Part):
            if isinstance(last, _Part):
                return part.at
        elif not isinstance(last, _Part):
            return int(part.start_pos)
        last = part
    return None if isinstance(last, _Part) else int(last.start_pos)
