"""What gates have found, in the database: one row per run or override, each in one transaction with its journal entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.core.digest import canonical_json, digest_bytes
from davy.errors import Conflict, CorruptData, InvalidInput, NotFound
from davy.gate.check import Verdict
from davy.registry.models import get_version
from davy.schema.tables import gates
from davy.schema.tables import journal as journal_table
from davy.store import journal

if TYPE_CHECKING:
    from davy.core.clock import Clock

State = Literal["passed", "failed", "overridden", "none"]


class Result(msgspec.Struct, frozen=True):
    """A check's finding, and whether it stops the version."""

    check: str
    title: str
    verdict: Verdict
    blocks: bool
    summary: str
    fix: str
    evidence: dict[str, Any]
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """What a gate found.

    Attributes:
        digest: of the version (files, signature, feature set).
        stable: the version that it was compared with; None: it was judged by itself, and `alone` says why.
        complete: whether all checks ran that the project asks for; only such a run decides how the version stands.
        time: microseconds; seconds: how long it took.
    """

    model: str
    version: int
    digest: str | None
    stable: int | None
    alone: str
    passed: bool
    complete: bool
    time: int
    seconds: float
    results: tuple[Result, ...]

    @property
    def reference(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"

    @property
    def failed(self) -> list[Result]:
        """What stops the version."""
        return [result for result in self.results if result.blocks]


class Standing(msgspec.Struct, frozen=True):
    """How a version stands with its gate.

    Attributes:
        state: of the last complete run; `overridden` when somebody has overruled its failure since, `none` without a run.
        gate: the run's or override's id.
        time: microseconds.
        digest: of the evidence.
        failed: the checks that failed.
        reason: why it was overridden.
    """

    state: State
    gate: str | None = None
    time: int | None = None
    actor: str | None = None
    digest: str | None = None
    failed: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def may_serve(self) -> bool:
        """Whether the gate lets it take traffic."""
        return self.state in ("passed", "overridden")


def keep(connection: sa.Connection, report: Report, *, clock: Clock, actor: str) -> Standing:
    """Keep a run's report, with the journal entry `gate.passed` or `gate.failed`."""
    state: State = "passed" if report.passed else "failed"
    evidence = canonical_json(report)
    verdicts = {result.check: result.verdict for result in report.results}
    details = {"version": report.version, "stable": report.stable, "complete": report.complete, "checks": verdicts}
    return _put(connection, report.model, report.version, state, evidence, details, clock=clock, actor=actor, complete=report.complete, stable=report.stable)


def override(connection: sa.Connection, model: str, version: int, reason: str, *, clock: Clock, actor: str) -> Standing:
    """Let a version pass whose gate has failed, or not run: a decision of a person, with a reason, in the journal as `gate.overridden`.

    It holds until the gate is run again.

    Raises:
        InvalidInput: no reason. Conflict: its gate has passed.
    """
    if not reason.strip():
        raise InvalidInput("An override came without a reason.", "The journal tells why a version was let through.", "Add: --override 'WHY'")
    get_version(connection, model, version)
    before = standing(connection, model, version)
    if before.state == "passed":
        raise Conflict(f"The gate of {model}@{version} has passed.", "There is nothing to override.", f"Release it: davy release {model}@{version}")
    details = {"version": version, "reason": reason.strip(), "before": before.state, "overruled": before.gate, "failed": list(before.failed)}
    evidence = canonical_json({"reason": reason.strip(), "overruled": before.gate, "failed": before.failed})
    return _put(connection, model, version, "overridden", evidence, details, clock=clock, actor=actor, complete=True, stable=None)


def _put(connection: sa.Connection, model: str, version: int, state: State, evidence: bytes, details: dict[str, Any], *, clock: Clock, actor: str,
         complete: bool, stable: int | None) -> Standing:
    gate, digest, now = new_id(clock), digest_bytes(evidence), clock.now()
    seq = journal.append(connection, clock=clock, actor=actor, action=f"gate.{state}", subject=model, details={**details, "gate": gate, "evidence": digest})
    connection.execute(sa.insert(gates).values(gate_id=gate, name=model, version=version, state=state, complete=complete, stable=stable, time=now, actor=actor,
                                               digest=digest, evidence=evidence.decode(), seq=seq))
    return _standing(connection.execute(sa.select(gates).where(gates.c.gate_id == gate)).one())


def standing(connection: sa.Connection, model: str, version: int) -> Standing:
    """How this version stands: what its last complete run found, or `none`. A run of chosen checks alone changes nothing."""
    query = sa.select(gates).where(gates.c.name == model, gates.c.version == version, gates.c.complete).order_by(gates.c.seq.desc()).limit(1)
    row = connection.execute(query).first()
    return Standing("none") if row is None else _standing(row)


def runs(connection: sa.Connection, model: str, version: int | None = None, *, limit: int = 20) -> list[Standing]:
    """All runs and overrides, the newest first; those of chosen checks too."""
    query = sa.select(gates).where(gates.c.name == model).order_by(gates.c.seq.desc()).limit(limit)
    if version is not None:
        query = query.where(gates.c.version == version)
    return [_standing(row) for row in connection.execute(query)]


def read_report(connection: sa.Connection, gate: str) -> Report:
    """The report of a run by its id, verified against the digest in the journal.

    Raises:
        NotFound: no run has it. CorruptData: it is not what was kept.
    """

    row = connection.execute(sa.select(gates).where(gates.c.gate_id == gate, gates.c.state != "overridden")).first()
    if row is None:
        raise NotFound(f"There is no run of a gate {gate!r}.", "An id is what davy gate and davy why print.", "Check it.")
    told = connection.scalar(sa.select(journal_table.c.details).where(journal_table.c.seq == row.seq))
    noted = msgspec.json.decode(told).get("evidence") if told else None
    if digest_bytes(row.evidence.encode()) != row.digest or noted != row.digest:
        raise CorruptData(f"The evidence of the gate {gate} is not what was kept.", f"The journal names {noted}.", "Run the gate again, or restore a backup.")
    return msgspec.json.decode(row.evidence, type=Report)


def _standing(row: sa.Row[Any]) -> Standing:
    kept = msgspec.json.decode(row.evidence)
    if row.state == "overridden":
        return Standing(row.state, row.gate_id, row.time, row.actor, row.digest, tuple(kept["failed"]), kept["reason"])
    blocking = tuple(result["check"] for result in kept["results"] if result["blocks"])
    return Standing(row.state, row.gate_id, row.time, row.actor, row.digest, blocking)
