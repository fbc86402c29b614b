"""`davy gate`: what a version must show before it may take traffic."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from davy.cli import open_home
from davy.cli.output import note, print_json, table, when

if TYPE_CHECKING:
    from davy.gate.check import Check
    from davy.gate.record import Report, Result, Standing
    from davy.home import Home


@click.command
@click.argument("version", required=False, metavar="MODEL[@VERSION]")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated. The evidence is kept; how the version stands is unchanged.")
@click.option("--skip", multiple=True, metavar="CHECK", help="All but this check; may be repeated. As with --only, how the version stands is unchanged.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the report, and how the version stands now.")
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Also write JUnit XML; - is stdout.")
@click.option("--markdown", type=click.Path(dir_okay=False), metavar="FILE", help="Also write Markdown for a pull request; - is stdout.")
@click.option("--history", is_flag=True, help="Run nothing; show the runs and overrides so far.")
@click.option("--list", "list_checks", is_flag=True, help="Run nothing; show the checks, the project's own among them.")
@click.option("--override", metavar="WHY", help="Run nothing; let a version pass whose gate failed, with a reason that the journal keeps.")
def command(version: str | None, only: tuple[str, ...], skip: tuple[str, ...], as_json: bool, junit: str | None, markdown: str | None, history: bool,
            list_checks: bool, override: str | None) -> None:
    """Judge a version (default: the newest) by all checks, beside the stable one where there is one.

    Workers and a gateway are started aside from those that serve; nobody is answered by what happens there. Each verdict is pass, fail or
    not enough data; the last stops a version only where [gate] required names the check. The evidence is kept, and the journal refers to it.

    The exit code is 0 when the gate has passed, 1 when it has failed, 2 for wrong input such as an unknown version or check.
    """
    home = open_home()
    try:
        if list_checks:
            _list(home, as_json)
        elif version is None:
            raise click.UsageError("Missing argument 'MODEL[@VERSION]'.")
        elif history:
            _history(home, version, as_json)
        elif override is not None:
            _override(home, version, override, as_json)
        elif not _judge(home, version, only, skip, as_json, junit, markdown):
            raise click.exceptions.Exit(1)
    finally:
        home.close()


def _judge(home: Home, version: str, only: tuple[str, ...], skip: tuple[str, ...], as_json: bool, junit: str | None, markdown: str | None) -> bool:
    from davy.gate.report import headline, line, to_junit, to_markdown
    from davy.gate.run import run

    quiet = as_json or "-" in (junit, markdown)

    def began(check: Check) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K… {check.name}: {check.title}", end="", file=sys.stderr, flush=True)

    def ended(result: Result) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if quiet:
            note(line(result))
            return
        print(line(result), flush=True)
        if result.fix and result.verdict != "pass":
            print(f"  {'':12} → {result.fix}", flush=True)

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        report, standing = run(home, version, only=only, skip=skip, began=began, ended=ended)
    finally:
        signal.signal(signal.SIGTERM, before)
    if junit is not None:
        _write(junit, to_junit(report))
    if markdown is not None:
        _write(markdown, to_markdown(report, standing).encode())
    if as_json:
        print_json(_as_json(report, standing))
    elif not quiet:
        print(f"\n{headline(report, standing)}")
    return report.passed


def _interrupt(*_: Any) -> NoReturn:
    """Being stopped is being interrupted: the workers are ended on the way out."""
    raise KeyboardInterrupt


def _as_json(report: Report, standing: Standing) -> dict[str, Any]:
    return {**msgspec.to_builtins(report), "gate": standing.gate, "evidence": standing.digest}


def _write(target: str, data: bytes) -> None:
    if target == "-":
        sys.stdout.write(data.decode())
        return
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_bytes(data)


def _list(home: Home, as_json: bool) -> None:
    from davy.gate.run import checks_of

    settings = home.config.gate
    rows = [{"check": item.name, "shows": item.title, "models": ", ".join(item.models) or "all", "skipped": item.name in settings.skip,
             "without data": "fails" if item.required or item.name in settings.required else "passes"} for item in checks_of(home)]
    print_json(rows) if as_json else table(rows)


def _history(home: Home, version: str, as_json: bool) -> None:
    from davy.gate.record import runs
    from davy.registry.models import resolve

    with home.database.read() as connection:
        found = resolve(connection, version)
        kept = runs(connection, found.name, found.version)
    if as_json:
        print_json(msgspec.to_builtins(kept))
        return
    table([{"gate": item.gate, "found": item.state, "when": when(item.time), "by": item.actor, "evidence": (item.digest or "")[7:19],
            "what stopped it, or why not": item.reason or ", ".join(item.failed)} for item in kept], empty=f"Not judged yet: davy gate {found.reference}")


def _override(home: Home, version: str, why: str, as_json: bool) -> None:
    from davy.gate.record import override
    from davy.registry.models import resolve

    with home.database.begin() as connection:
        found = resolve(connection, version)
        standing = override(connection, found.name, found.version, why, clock=home.clock, actor=home.actor)
    if as_json:
        print_json(msgspec.to_builtins(standing))
    else:
        print(f"{found.reference} may take traffic although its gate has not passed. The journal keeps who, when and why, until the gate is run again.")
