"""What a filter may ask of one kind of thing: its fields, the operators of each, and MLflow's words for what is wrong."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from davy.errors import InvalidInput, nearest
from davy.search.fields import IDENTITY_OPS, NUMBER_OPS, TEXT_OPS, Attribute, Keyed, Kind, Linked, Target
from davy.search.grammar import Unreadable, ordering, parse, refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from davy.search.tree import Condition, Node, Term

OPS: dict[Kind, tuple[str, ...]] = {"text": TEXT_OPS, "number": NUMBER_OPS, "identity": IDENTITY_OPS}
_LARGEST = 2**63
MOST_KEYS, LONGEST_PATTERN = 16, 10_000


class Check(NamedTuple):
    """A condition whose field and values are in order."""

    target: Target
    op: str
    values: tuple[Any, ...]
    escape: str | None


class SortKey(NamedTuple):
    """One item of an order, in order."""

    target: Target
    down: bool


class Language:
    """The fields of one kind of thing.

    Args:
        entities: what may stand before the dot -> the entity that it means.
        attributes: the row's own fields, by their names and other names.
        others: per entity, the table of its keys, or its fixed keys.
        ordered: the attributes that may be ordered by (default: all).
        shown: the attributes that messages list.
    """

    def __init__(self, *, entities: Mapping[str, str], attributes: Mapping[str, Attribute], others: Mapping[str, Keyed | Mapping[str, Linked]],
                 ordered: Sequence[str] | None = None, shown: Sequence[str] | None = None) -> None:
        self.entities, self.attributes, self.others = entities, attributes, others
        self.ordered = tuple(attributes) if ordered is None else tuple(ordered)
        self.shown = tuple(attributes) if shown is None else tuple(shown)

    def read(self, text: str) -> Node | None:
        """The tree of a filter.

        Raises:
            InvalidInput: it can't be read; says where.
        """
        _encodable(text)
        try:
            return parse(text)
        except Unreadable as problem:
            raise refused(text, problem.at, self.unreadable(text, problem), problem.expected) from None

    def order(self, items: Sequence[str]) -> list[SortKey]:
        """The keys of an order such as `["metrics.auc DESC", "start_time"]`.

        Raises:
            InvalidInput: an item can't be read, names nothing that can be ordered by, or a field comes twice.
        """
        if len(items) > MOST_KEYS:
            raise InvalidInput(f"`order_by` has {len(items)} fields.", f"An order has at most {MOST_KEYS}.", "Leave some out.")
        keys: list[SortKey] = []
        for text in items:
            _encodable(text)
            item = ordering(text, lambda at, message, allowed, text=text: refused(text, at, message, allowed))  # type: ignore[misc]
            target = self.find(text, item.term, ordering=True)
            if any(key.target.field is target.field and (key.target.function, _key(key.target)) == (target.function, _key(target)) for key in keys):
                raise refused(text, item.term.at, f"`order_by` contains duplicate fields: {list(items)}", "each field once")
            keys.append(SortKey(target, item.down))
        return keys

    def check(self, text: str, condition: Condition) -> Check:
        """The condition's field, and its values as Python's.

        Raises:
            InvalidInput: no such field, or not an operator or value of it; says where and what is allowed.
        """
        if condition.left.kind in ("number", "string"):
            raise refused(text, condition.left.at, f"Invalid comparison clause. Expected 'Identifier' found '{condition.left.text}'",
                          "the field stands left, the value right")
        target = self.find(text, condition.left, number=bool(condition.right) and condition.right[0].kind == "number")
        listed = condition.op in ("IN", "NOT IN")
        if listed and not condition.right:
            raise refused(text, condition.at, "While parsing a list in the query, expected a non-empty list of string values, but got empty list")
        values = tuple(self._value(text, target, term, listed) for term in condition.right)
        allowed = OPS[target.kind]
        if condition.op not in allowed:
            raise refused(text, condition.at, self.bad_comparator(target, condition.op, allowed), ", ".join(allowed))
        if condition.op.endswith("LIKE") and len(values[0]) > LONGEST_PATTERN:
            raise refused(text, condition.right[0].at, f"A pattern of {len(values[0]):,} characters came.", f"at most {LONGEST_PATTERN:,}")
        return Check(target, condition.op, values, self._escape(text, condition))

    def find(self, text: str, term: Term, *, ordering: bool = False, number: bool = False) -> Target:
        """The field that a term names.

        Args:
            number: it is compared with a number, so that a name that is no field may be a metric's.
        """
        entity, key = self._split(text, term)
        if entity == "attribute":
            found = self.attributes.get(key)
            if found is None or (ordering and key not in self.ordered):
                known = [name for name in self.shown if not ordering or name in self.ordered]
                raise refused(text, term.at, self.bad_attribute(key, known, ordering), self._meant(term, known, number or ordering))
            return self._plain(text, term, Target(entity, key, found))
        other = self.others[entity]
        if isinstance(other, Keyed):
            if term.function in ("", "latest") or term.function in other.functions:
                return Target(entity, key, other, "" if term.function == "latest" else term.function)
            return self._plain(text, term, Target(entity, key, other))
        if ordering:
            raise refused(text, term.at, f"Invalid order_by entity type '{entity}'", "an attribute, a metric, a param or a tag")
        if key not in other:
            raise refused(text, term.at, f"Invalid {entity} key '{key}' specified. Valid keys are '{sorted(other)}'", nearest(key, other))
        return self._plain(text, term, Target(entity, key, other[key]))

    def _meant(self, term: Term, known: Sequence[str], number: bool) -> str:
        """What a name may stand for that is no field of the row: a field that is spelt nearly so, or a key that lacks its entity."""
        hint = nearest(term.text, known)
        if term.kind != "name" or hint.startswith("did you mean"):
            return hint
        keyed = [entity for entity, field in self.others.items() if isinstance(field, Keyed) and (field.kind == "number") is number]
        written = [min((name for name, meant in self.entities.items() if meant == entity), key=lambda name: (not name.endswith("s"), len(name)))
                   for entity in keyed]
        return f"did you mean {' or '.join(f'{name}.{term.text}' for name in written)}? {hint}" if written else hint

    def _plain(self, text: str, term: Term, target: Target) -> Target:
        if term.function:
            raise refused(text, term.at, f"Invalid clause(s) in filter string: '{term.function}({term.text})'", f"{term.function}() is of metrics only")
        return target

    def _split(self, text: str, term: Term) -> tuple[str, str]:
        if term.kind == "field":
            head, _, key = term.text.partition(".")
            head = head.strip("`") if head.startswith("`") else head
            key = key[1:-1] if key[0] in "`\"'" else key
        else:
            head, _, key = term.text.rpartition(".") if "." in term.text else ("attribute", "", term.text)
            if head == "attribute":
                return head, key[1:-1] if term.kind in ("backtick", "double") else key
        entity = self.entities.get(head)
        if entity is None or term.kind != "field":
            raise refused(text, term.at, self.bad_entity(head), nearest(head, self.entities))
        return entity, key

    def _value(self, text: str, target: Target, term: Term, listed: bool) -> Any:
        if target.kind == "number":
            return self._number(text, target, term)
        if target.kind == "identity" and term.kind == "number" and term.text.isdecimal():
            return int(term.text)
        found = self._text(text, target, term, listed)
        if target.kind == "identity":
            if not found.isdecimal() or len(found) > 18:
                raise refused(text, term.at, f"Invalid {target.key}: {found!r}", "digits")
            return int(found)
        return found

    def _text(self, text: str, target: Target, term: Term, listed: bool) -> str:
        if listed and term.kind in ("string", "double"):
            try:
                found = ast.literal_eval(term.text)
            except (SyntaxError, ValueError):
                raise refused(text, term.at, "While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list.",
                              "a backslash stands for itself when doubled") from None
            _encodable(found)
            return str(found)
        if term.kind in ("string", "double"):
            return term.text[1:-1]
        return self.unquoted(text, target, term, listed)

    def _number(self, text: str, target: Target, term: Term) -> int | float:
        if term.kind == "number":
            return _as_number(term.text)
        if target.entity == "metric" and term.kind == "name" and term.text.lower() in ("inf", "infinity"):
            return math.inf
        if isinstance(target.field, Attribute) and target.field.quoted and term.kind in ("string", "double"):
            inner = term.text[1:-1]
            if inner.removeprefix("-").isdecimal():
                return _as_number(inner)
            raise refused(text, term.at, f"Invalid value for numeric attribute '{target.key}': {inner!r}", "a number")
        kind = "metric" if target.entity == "metric" else f"numeric attribute: {target.key}"
        raise refused(text, term.at, f"Expected numeric value type for {kind}. Found {term.text}", "a number, such as 0.7")

    def _escape(self, text: str, condition: Condition) -> str | None:
        if condition.escape is None:
            return None
        inner = condition.escape.text[1:-1]
        if condition.escape.kind not in ("string", "double") or len(inner) != 1 or inner in "%_":
            raise refused(text, condition.escape.at, f"Invalid clause(s) in filter string: ESCAPE {condition.escape.text}",
                          "one character in quotes, neither % nor _")
        pattern = condition.right[0].text[1:-1].replace(inner * 2, "")
        if pattern.endswith(inner):
            raise refused(text, condition.right[0].at, f"Invalid clause(s) in filter string: {condition.right[0].text}", "nothing is escaped at the end")
        return inner

    def unquoted(self, text: str, target: Target, term: Term, listed: bool) -> str:
        """A value for a text field that stands without quotes: refused, unless a language is more generous."""
        hint = "a text in quotes, such as 'my-value'"
        if listed:
            raise refused(text, term.at, "While parsing a list in the query, expected string value, punctuation, or whitespace, "
                                         f"but got different type in list: ({term.text},)", hint)
        if term.kind != "number":
            raise refused(text, term.at, "Parameter value is either not quoted or unidentified quote types used for string value "
                                         f"{term.text}. Use either single or double quotes.", hint)
        kind = {"attribute": "attributes", "dataset": "dataset attributes"}.get(target.entity, f"{target.entity} (e.g. 'my-value')")
        raise refused(text, term.at, f"Expected a quoted string value for {kind}. Got value {term.text}", hint)

    def unreadable(self, text: str, problem: Unreadable) -> str:
        """MLflow's words for text that is no filter."""
        if problem.found.startswith(";") and problem.found[1:].strip():
            return f"Search filter contained multiple expression {text[:500]!r}. Provide AND-ed expression list."
        return f"Invalid clause(s) in filter string: '{problem.found or text[max(0, problem.at - 40):problem.at]}'"

    def bad_entity(self, found: str) -> str:
        """MLflow's words for an unknown entity."""
        return f"Invalid entity type '{found}'. Valid values are {list(dict.fromkeys(self.entities.values()))}"

    def bad_attribute(self, key: str, known: Sequence[str], ordering: bool) -> str:
        """MLflow's words for an unknown attribute."""
        return f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(known)}'"

    def bad_comparator(self, target: Target, op: str, allowed: Sequence[str]) -> str:
        """MLflow's words for an operator that the field does not have."""
        return f"Invalid comparator '{op}' not one of '{list(allowed)}'"


def _key(target: Target) -> str:
    return target.key if isinstance(target.field, Keyed) else ""


def _as_number(text: str) -> int | float:
    """An int of 64 bits where it is one, else the nearest double."""
    number = float(text)
    if text.removeprefix("-").isdecimal() and not math.isinf(number) and -_LARGEST <= int(text) < _LARGEST:
        return int(text)
    return number


def _encodable(text: str) -> None:
    """Refuse what no database takes as text."""
    try:
        if "\0" not in text:
            text.encode()
            return
    except UnicodeEncodeError:
        pass
    raise InvalidInput(f"Invalid clause(s) in filter string: {ascii(text)[:200]} holds a NUL or half a character.", "Text is Unicode without NUL.",
                       "Remove it.")
