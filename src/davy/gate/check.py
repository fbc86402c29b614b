"""What a check is: a function of the version under judgement that returns a finding.

Davy's own checks and a project's are the same thing. A project writes its own in checks.py:

    @davy.check
    def few_false_alarms(candidate):
        '''At most one warning in five is false.'''
        rows = candidate.held_out
        warned = rows.predict(candidate.version) > 0.5
        share = 1 - rows.y[warned].mean()
        return davy.passed(f"{share:.0%} are false.") if share < 0.2 else davy.failed(f"{share:.0%} of the warnings are false.")
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from davy.errors import DefinitionError, NotFound, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from davy.gate.candidate import Candidate

Verdict = Literal["pass", "fail", "not enough data"]
PASS: Verdict = "pass"
FAIL: Verdict = "fail"
NO_DATA: Verdict = "not enough data"


class Finding(msgspec.Struct, frozen=True):
    """What one check found.

    Attributes:
        summary: one sentence for people, with the numbers that decided.
        evidence: JSON-able; kept in the database.
        fix: what to do, when it did not pass.
    """

    verdict: Verdict
    summary: str
    evidence: dict[str, Any] = {}
    fix: str = ""


def passed(summary: str, **evidence: Any) -> Finding:
    """A finding that lets the version through."""
    return Finding(PASS, summary, plain(evidence))


def failed(summary: str, *, fix: str = "", **evidence: Any) -> Finding:
    """A finding that stops the version; `fix` says what to do."""
    return Finding(FAIL, summary, plain(evidence), fix)


def no_data(summary: str, *, fix: str = "", **evidence: Any) -> Finding:
    """A finding that nothing can be said. It stops a version only where `[gate] required` names the check."""
    return Finding(NO_DATA, summary, plain(evidence), fix)


class Check(msgspec.Struct, frozen=True):
    """One check.

    Attributes:
        name: what `--only`, `--skip` and `[gate]` call it.
        title: one sentence: what a version shows by passing.
        fix: what to do when it fails and the finding itself says nothing.
        models: the models that it is for; empty: all.
        required: whether "not enough data" fails too.
    """

    name: str
    title: str
    run: Callable[[Candidate], Finding]
    fix: str = ""
    models: tuple[str, ...] = ()
    required: bool = False

    def __call__(self, candidate: Candidate) -> Any:
        """The function itself, so that a project can test its own checks."""
        return self.run(candidate)


def check(function: Callable[[Candidate], Any] | None = None, *, models: Sequence[str] = (), required: bool = False, fix: str = "") -> Any:
    """Declare a check of one's own in checks.py or models.py: a function of the candidate, named as the check.

    It returns `davy.passed(...)`, `davy.failed(...)` or `davy.no_data(...)`, or simply a bool. An `assert` that does not hold is a
    failure with its message; any other exception is one too.

    Args:
        models: only for these models.
        required: "not enough data" fails too.
        fix: what to do when it fails.
    """
    def declare(made: Callable[[Candidate], Any]) -> Check:
        name = made.__name__.replace("_", "-")
        title = (made.__doc__ or name.replace("-", " ")).strip().splitlines()[0].rstrip(".")
        return Check(name, title, lambda candidate: _finding(name, made, candidate), fix, tuple(models), required)

    return declare if function is None else declare(function)


def _finding(name: str, function: Callable[[Candidate], Any], candidate: Candidate) -> Finding:
    try:
        found = function(candidate)
    except AssertionError as error:
        return failed(str(error) or "An assertion of the check does not hold.")
    if isinstance(found, Finding):
        return found
    if isinstance(found, bool) or type(found).__name__ == "bool":
        return passed("It holds.") if found else failed("It does not hold.")
    raise DefinitionError(f"The check {name!r} returned {found!r}.", "A check returns davy.passed(...), davy.failed(...), davy.no_data(...) or a bool.",
                          "Mend what it returns.")


def chosen(checks: Iterable[Check], model: str, *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Check]:
    """The checks that are to run for this model, in their order.

    Raises:
        NotFound: `only` or `skip` names none. DefinitionError: two of one name.
    """
    known: dict[str, Check] = {}
    for item in checks:
        if item.name in known:
            raise DefinitionError(f"There are two checks named {item.name!r}.", "Each has a name of its own.", "Rename the one in your project.")
        known[item.name] = item
    for name in (*only, *skip):
        if name not in known:
            raise NotFound(f"There is no check {name!r}.", nearest(name, known), "See them all: davy gate --list")
    return [item for name, item in known.items() if (not only or name in only) and name not in skip and (not item.models or model in item.models)]


def plain(value: Any) -> Any:
    """Evidence as JSON has it: numpy's numbers as Python's, six significant digits, and no NaN or infinity."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else repr(value)
    return str(value)
