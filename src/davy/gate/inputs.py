"""Whatever a client sends is answered, or refused as the client's mistake (4xx): never a fault of the server (5xx)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.gate.check import Check, Finding, failed, passed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.core.fields import Field, Kind
    from davy.gate.candidate import Candidate

SHOWN = 20
SERVER_FAULT = 500
_NUMBERS = (0, -1, 1.5, 1e18, -1e18, 1e308, 2**62, 2**63, 10**30)
_TEXTS = ("", "never seen before", "x" * 100_000, "\x00", "💥", "'; DROP TABLE x; --")
_VALUES: dict[Kind, tuple[Any, ...]] = {
    "int": (*_NUMBERS, "7", True), "float": (*_NUMBERS, "0.5", True), "decimal": (*_NUMBERS, "0.5", True), "str": (*_TEXTS, 7, 0.5, False),
    "bool": (True, False, 1, "true"),
    "time": ("2024-02-30T00:00:00Z", "2024-01-01T00:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "yesterday", 0, -1, 2**62, 10**30, 1.5, True)}
_SHAPES: tuple[Any, ...] = ([], {}, [1], {"a": 1})
_BODIES: dict[str, bytes] = {
    "no body": b"", "half an object": b"{", "not text": b"\xff\xfe", "null": b"null", "a number": b"5", "a text": b'"x"', "no rows": b"[]",
    "a row of null": b"[null]",
    "deep brackets": b"[" * 5000, "deep objects": b'{"a":' * 5000, "NaN": b'{"a": NaN}'}


def inputs(candidate: Candidate) -> Finding:
    """Each field null, missing, of other types, unseen, empty and huge; bodies that are none; all through the gateway itself."""
    features, before = candidate.feature_set(candidate.version), candidate.stand.ends(candidate.version.version)
    cases = list(_cases(candidate.requests[0], (*features.entities, *features.request)))
    found = candidate.stand.ask_all(candidate.version.version, [body for _, body in cases])
    faults, empty, counts = [], [], {"answered": 0, "refused": 0}
    for (name, _), (status, answer) in zip(cases, found, strict=False):
        if status >= SERVER_FAULT:
            faults.append({"case": name, "status": status, "said": answer})
        elif status == 200 and not _has_answer(answer):
            empty.append({"case": name, "status": status, "said": answer})
        counts["answered" if status == 200 else "refused"] += 1
    died = candidate.stand.ends(candidate.version.version) - before
    evidence = {"cases": len(found), **counts, "faults": faults[:SHOWN], "answers_that_are_no_number": empty[:SHOWN], "worker_died": died}
    if faults or died:
        first = f" The first: {faults[0]['case']}: {faults[0]['said']}" if faults else ""
        end = f" The worker died {died} times." if died else ""
        return failed(f"{len(faults)} of {len(found)} bad requests made the server fail.{first}{end}",
                      fix="The model must answer every row of its signature: put imputing and limits into it.", **evidence)
    if empty:
        return failed(f"{len(empty)} of {len(found)} requests are answered with NaN or infinity. The first: {empty[0]['case']}.",
                      fix="The model must answer nulls and extremes with a number: put imputing and limits into it.", **evidence)
    return passed(f"{len(cases)} bad requests: {counts['answered']} answered, {counts['refused']} refused as the client's mistake, none a fault of the server.",
                  **evidence)


def _cases(base: dict[str, Any], fields: tuple[Field, ...]) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, body)."""
    encode = msgspec.json.Encoder(enc_hook=str).encode
    for field in fields:
        yield f"{field.name} is null", encode({**base, field.name: None})
        yield f"{field.name} is missing", encode({name: value for name, value in base.items() if name != field.name})
        for value in (*_VALUES[field.kind], *_SHAPES):
            yield f"{field.name} is {_short(value)}", _encoded(encode, {**base, field.name: value})
    yield "everything is null", encode(dict.fromkeys(base))
    yield "an unknown field", encode({**base, "no_such_field": 1})
    yield "one bad row among good ones", encode([base, {}, base])
    yield "a hundred rows", encode([base] * 100)
    yield "too many rows", encode([{}] * 10_001)
    yield from _BODIES.items()


def _encoded(encode: Any, body: dict[str, Any]) -> bytes:
    """JSON also for whole numbers beyond 64 bits, which a client may well write."""
    large = {name: value for name, value in body.items() if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63}
    text: bytes = encode({name: f"@{name}@" if name in large else value for name, value in body.items()})
    for name, value in large.items():
        text = text.replace(f'"@{name}@"'.encode(), str(value).encode())
    return text


def _has_answer(answer: Any) -> bool:
    """Whether each prediction is there; JSON has null where a number was NaN or infinite."""
    rows = answer if isinstance(answer, list) else [answer]
    return all(row["prediction"] is not None and (not isinstance(row["prediction"], list) or None not in row["prediction"]) for row in rows)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text):,} characters)"


CHECKS = (Check("inputs", "No request, however wrong, makes the server fail", inputs),)
