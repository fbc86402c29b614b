"""What a run leaves: evidence, journal, standing; and what a project's own checks and settings do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import sqlalchemy as sa

from davy.core.digest import digest_bytes
from davy.errors import ConfigError, Conflict, CorruptData, DefinitionError, InvalidInput, NotFound
from davy.gate import standing
from davy.gate.check import FAIL, NO_DATA, PASS
from davy.gate.record import override, read_report, runs
from davy.gate.run import built_in, checks_of, run
from davy.home import Home
from davy.schema.tables import gates
from davy.store import journal
from gate.kit import make_shop, serving, trained

if TYPE_CHECKING:
    from pathlib import Path

    from davy.gate.record import Standing
    from davy.registry.models import ModelVersion

CHECKS = '''
import davy


@davy.check
def few_false_alarms(candidate):
    """At most half of the warnings are false."""
    rows = candidate.held_out
    warned = rows.predict(candidate.version) > 0.5
    share = 1 - rows.y[warned].mean()
    return davy.passed(f"{share:.0%} are false.", share=share) if share < 0.5 else davy.failed("Too many.", share=share)


@davy.check(fix="Ask the shops.")
def asserted(candidate):
    assert candidate.version.version == 99, "It is not the 99th."


@davy.check(models=["others"])
def not_for_this_model(candidate):
    return False


@davy.check
def broken(candidate):
    return {}["nothing"]


@davy.check(required=True)
def undecided(candidate):
    return davy.no_data("Nobody knows.", asked=3)
'''


def now(home: Home, version: ModelVersion) -> Standing:
    with home.database.read() as connection:
        return standing(connection, version.name, version.version)


def test_a_run_is_kept_with_its_journal_entry(quick: Home) -> None:
    version = trained(quick, weight=0.131)
    assert now(quick, version).state == "none"
    report, kept = run(quick, version.reference)
    with quick.database.read() as connection:
        entry = journal.entries(connection, subject="returns", action="gate.")[0]
        row = connection.execute(sa.select(gates).where(gates.c.gate_id == kept.gate)).one()
        assert read_report(connection, str(kept.gate)) == report
        assert journal.verify(connection).broken is None
    assert (entry.action, entry.actor, entry.details["version"], entry.details["gate"]) == ("gate.passed", "tester", version.version, kept.gate)
    assert entry.details["checks"]["quality"] == PASS
    assert entry.details["evidence"] == row.digest == digest_bytes(row.evidence.encode())
    assert now(quick, version) == kept
    assert kept.state == "passed"
    assert kept.may_serve


def test_evidence_that_was_edited_is_found(quick: Home) -> None:
    version = trained(quick)
    kept = run(quick, version.reference, only=["integrity"])[1]
    edited = sa.update(gates).where(gates.c.gate_id == kept.gate)
    with quick.database.begin() as connection:
        text = connection.scalar(sa.select(gates.c.evidence).where(gates.c.gate_id == kept.gate))
        connection.execute(edited.values(evidence=text.replace('"pass"', '"fail"')))
    with quick.database.read() as connection, pytest.raises(CorruptData):
        read_report(connection, str(kept.gate))
    with quick.database.begin() as connection:
        changed = text.replace('"pass"', '"fail"')
        connection.execute(edited.values(evidence=changed, digest=digest_bytes(changed.encode())))
    with quick.database.read() as connection, pytest.raises(CorruptData, match="journal"):
        read_report(connection, str(kept.gate))


def test_chosen_checks_change_nothing_about_how_it_stands(quick: Home) -> None:
    version = trained(quick, "worse")
    report, kept = run(quick, version.reference, only=["quality"])
    assert (report.passed, report.complete, kept.state) == (False, False, "failed")
    assert now(quick, version).state == "none"
    report, _ = run(quick, version.reference, skip=["quality", "slices", "baseline", "calibration"])
    assert (report.passed, report.complete) == (True, False)
    assert now(quick, version).state == "none"
    run(quick, version.reference)
    assert now(quick, version).state == "failed"
    assert set(now(quick, version).failed) >= {"quality", "baseline"}


def test_a_failure_is_overridden_with_a_reason_until_the_next_run(quick: Home) -> None:
    version = trained(quick, "worse")
    failed = run(quick, version.reference)[1]
    assert not failed.may_serve
    with quick.database.begin() as connection:
        with pytest.raises(InvalidInput):
            override(connection, "returns", version.version, " ", clock=quick.clock, actor="ada")
        override(connection, "returns", version.version, "the shops asked for it", clock=quick.clock, actor="ada")
        entry = journal.entries(connection, subject="returns", action="gate.overridden")[0]
        history = runs(connection, "returns", version.version)
    assert (entry.actor, entry.details["reason"], entry.details["overruled"]) == ("ada", "the shops asked for it", failed.gate)
    assert "quality" in entry.details["failed"]
    found = now(quick, version)
    assert (found.state, found.reason, found.may_serve) == ("overridden", "the shops asked for it", True)
    assert [item.state for item in history] == ["overridden", "failed"]
    run(quick, version.reference)
    assert now(quick, version).state == "failed"


def test_what_has_passed_needs_no_override(quick: Home) -> None:
    version = trained(quick, weight=0.131)
    run(quick, version.reference)
    with quick.database.begin() as connection:
        with pytest.raises(Conflict):
            override(connection, "returns", version.version, "why not", clock=quick.clock, actor="ada")
        with pytest.raises(NotFound):
            override(connection, "returns", 999, "why not", clock=quick.clock, actor="ada")


def test_a_project_has_checks_of_its_own(quick: Home) -> None:
    path = quick.root / "checks.py"
    path.write_text(CHECKS)
    own = ["few-false-alarms", "asserted", "broken", "undecided"]
    try:
        assert [item.name for item in checks_of(quick)] == [*(item.name for item in built_in()), *own[:2], "not-for-this-model", *own[2:]]
        report, _ = run(quick, trained(quick).reference, only=[*own, "not-for-this-model"])
    finally:
        path.unlink()
    found = {item.check: item for item in report.results}
    assert list(found) == own
    assert (found["few-false-alarms"].verdict, found["few-false-alarms"].title) == (PASS, "At most half of the warnings are false")
    assert 0 < found["few-false-alarms"].evidence["share"] < 0.5
    assert (found["asserted"].verdict, found["asserted"].summary, found["asserted"].fix) == (FAIL, "It is not the 99th.", "Ask the shops.")
    assert found["broken"].verdict == FAIL
    assert "KeyError" in found["broken"].summary
    assert "checks.py" in found["broken"].evidence["traceback"]
    assert (found["undecided"].verdict, found["undecided"].blocks) == (NO_DATA, True)


def test_a_limit_is_never_passed_over(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop", "[gate.quality]\nrmse = 0.1\n")
    version = trained(home)
    found = run(home, version.reference, only=["quality"])[0].results[0]
    home.close()
    assert (found.verdict, "asks for rmse" in found.summary) == (FAIL, True)
    settings = home.root / "davy.toml"
    settings.write_text(settings.read_text().replace("rmse", '"returns.aucc"'))
    home = Home(home.root)
    with pytest.raises(ConfigError, match="did you mean 'auc'"):
        run(home, version.reference)
    home.close()


@pytest.mark.parametrize(("text", "error", "words"), [
    ("import davy\n@davy.check\ndef integrity(candidate): return True\n", DefinitionError, "two checks named 'integrity'"),
    ("import davy\n@davy.check\ndef odd(candidate): return 7\n", DefinitionError, "returned 7"),
    ("def (", DefinitionError, "checks.py:1"),
    ("1 / 0\n", DefinitionError, "checks.py:1: ZeroDivisionError"),
])  # fmt: skip
def test_checks_that_are_none_are_refused_before_anything_is_kept(quick: Home, text: str, error: type[Exception], words: str) -> None:
    version = trained(quick)
    path = quick.root / "checks.py"
    path.write_text(text)
    try:
        with pytest.raises(error, match=words):
            run(quick, version.reference, only=["odd"] if "odd" in text else ["safe-format"])
    finally:
        path.unlink()
    with quick.database.read() as connection:
        assert runs(connection, "returns", version.version) == []


def test_settings_decide(tmp_path: Path) -> None:
    settings = '[gate]\nrequired = ["requests"]\nskip = ["rollback", "latency"]\nmemory_mb = 1\n[gate.quality]\nauc = 0.99\nbrier = 0.5\n"others.auc" = 2.0\n'
    home = make_shop(tmp_path / "shop", settings)
    version = trained(home)
    report, kept = run(home, version.reference)
    found = {item.check: item for item in report.results}
    home.close()
    assert {"rollback", "latency"}.isdisjoint(found)
    assert (found["requests"].verdict, found["requests"].blocks) == (NO_DATA, True)
    assert "at least 0.99 is asked" in found["quality"].summary
    assert "brier" not in found["quality"].summary
    assert "at most 1 MB" in found["memory"].summary
    assert report.complete
    assert set(kept.failed) == {"quality", "memory", "requests"}


def test_the_names_of_checks_are_checked(quick: Home) -> None:
    version = trained(quick)
    with pytest.raises(NotFound, match="did you mean 'quality'"):
        run(quick, version.reference, only=["qualty"])
    settings = quick.root / "davy.toml"
    before = settings.read_text()
    settings.write_text(before.replace('"latency"', '"latencies"'))
    home = Home(quick.root)
    try:
        with pytest.raises(ConfigError, match="latency"):
            run(home, version.reference)
    finally:
        home.close()
        settings.write_text(before)


def test_the_stable_version_itself_is_judged_alone(empty: Home) -> None:
    version = serving(empty, trained(empty))
    report, _ = run(empty, version.reference)
    assert (report.passed, report.stable, report.alone) == (True, None, "it is the stable version itself")
    assert "a constant answer" in next(item.summary for item in report.results if item.check == "slices")
    assert msgspec.json.decode(msgspec.json.encode(report))["results"][0]["check"] == "integrity"


def test_a_stable_version_that_can_not_be_started_stops_nobody(empty: Home) -> None:
    stable = serving(empty, trained(empty))
    for digest in stable.files.values():
        path = next(path for path in (empty.path / "blobs").rglob("*") if path.is_file() and digest[11:] in str(path).replace("/", ""))
        path.chmod(0o644)
        path.write_bytes(b"x")
    report, _ = run(empty, trained(empty, weight=0.131).reference)
    found = {item.check: item for item in report.results}
    assert report.passed, [item.summary for item in report.failed]
    assert found["loads"].verdict == PASS
    assert (found["quality"].verdict, "returns@1 can't be started" in found["quality"].summary) == (NO_DATA, True)
