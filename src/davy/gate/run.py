"""The gate: all checks over one version, and their evidence in one transaction."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from davy.errors import ConfigError, DavyError, DefinitionError, NotEnoughData, nearest
from davy.gate import record
from davy.gate.candidate import Candidate
from davy.gate.check import FAIL, NO_DATA, Check, Finding, chosen
from davy.gate.record import Report, Result
from davy.project import FILES, load_module, load_project

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from davy.config import Gate
    from davy.home import Home

CHECKS_FILE = "checks"


def built_in() -> list[Check]:
    """Davy's own checks, in the order in which they run: what is cheap and damning first."""
    from davy.gate import baseline, batches, calibration, features, files, inputs, quality, replayed, rollback, signature, speed

    modules = (files, signature, quality, baseline, calibration, features, batches, inputs, speed, replayed, rollback)
    return [item for module in modules for item in module.CHECKS]


def checks_of(home: Home) -> list[Check]:
    """Davy's checks, then the project's own from features.py, models.py and checks.py.

    Raises:
        DefinitionError: a file that can't be read, or two checks of one name.
    """
    import sys

    load_project(home.root)
    files = [sys.modules.get(name) for name in FILES if (home.root / f"{name}.py").exists()]
    files.append(load_module(home.root, CHECKS_FILE))
    own = {id(value): value for module in files if module is not None for value in vars(module).values() if isinstance(value, Check)}
    return [*built_in(), *own.values()]


def run(home: Home, reference: str, *, only: Sequence[str] = (), skip: Sequence[str] = (), began: Callable[[Check], None] = lambda _: None,
        ended: Callable[[Result], None] = lambda _: None) -> tuple[Report, record.Standing]:
    """Judge a version, and keep what was found with a journal entry `gate.passed` or `gate.failed`.

    Args:
        only, skip: names of checks; a run with either is kept as evidence and does not change how the version stands.
        began, ended: told of each check.

    Raises:
        NotFound: no such version or check. ConfigError: `[gate]` names a check that there isn't.
    """
    settings, known = home.config.gate, checks_of(home)
    _refuse_misspelt(settings, known)
    candidate = Candidate(home, reference)
    wanted = chosen(known, candidate.model, only=only, skip=(*skip, *settings.skip))
    started, now = time.perf_counter(), home.clock.now()
    try:
        if not only:
            candidate.warm_up()
        results = []
        for item in wanted:
            began(item)
            results.append(_result(item, candidate, required=item.required or item.name in settings.required))
            ended(results[-1])
    finally:
        candidate.close()
    stable = candidate.stable
    report = Report(candidate.model, candidate.version.version, candidate.version.digest, None if stable is None else stable.version, candidate.alone,
                    not any(result.blocks for result in results), not only and not skip, now, round(time.perf_counter() - started, 3), tuple(results))
    with home.database.begin() as connection:
        return report, record.keep(connection, report, clock=home.clock, actor=home.actor)


def _refuse_misspelt(settings: Gate, known: Sequence[Check]) -> None:
    """A misspelt name would silently let through what was meant to be stopped."""
    from davy.gate.quality import METRICS

    names = [item.name for item in known]
    for name in (*settings.required, *settings.skip):
        if name not in names:
            raise ConfigError(f"[gate] in davy.toml names the check {name!r}.", nearest(name, names), "See them all: davy gate --list")
    for name in settings.quality:
        metric = name.rpartition(".")[2]
        if metric not in METRICS:
            raise ConfigError(f"[gate.quality] in davy.toml names the metric {name!r}.", nearest(metric, METRICS), f"Known: {', '.join(METRICS)}.")


def _result(item: Check, candidate: Candidate, *, required: bool) -> Result:
    began = time.perf_counter()
    found = _carried_out(item, candidate)
    blocks = found.verdict == FAIL or (found.verdict == NO_DATA and required)
    fix = found.fix or (item.fix if found.verdict == FAIL else "")
    return Result(item.name, item.title, found.verdict, blocks, found.summary, fix, found.evidence, round(time.perf_counter() - began, 3))


def _carried_out(item: Check, candidate: Candidate) -> Finding:
    """A check that can't be carried out is a failure with its reason, unless the reason is that there are no data."""
    try:
        return item.run(candidate)
    except NotEnoughData as error:
        return Finding(NO_DATA, error.came, {}, error.fix)
    except DefinitionError:
        raise
    except DavyError as error:
        return Finding(FAIL, error.came, {"error": error.code}, error.fix)
    except Exception as error:  # noqa: BLE001 - a project's own check may raise anything
        return Finding(FAIL, f"The check raised {type(error).__name__}: {error}", {"traceback": traceback.format_exc()}, "Mend the check, or what it met.")
