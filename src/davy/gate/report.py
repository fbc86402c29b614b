"""A gate's report as JUnit XML for a build server, and as Markdown for a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

import msgspec

from davy.core.time import format_time
from davy.gate.check import FAIL, NO_DATA, PASS

if TYPE_CHECKING:
    from davy.gate.record import Report, Result, Standing

MARKS = {PASS: "✓", FAIL: "✗", NO_DATA: "–"}
_MARKDOWN = {PASS: "✅", FAIL: "❌", NO_DATA: "➖"}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LONGEST_EVIDENCE = 4000


def headline(report: Report, standing: Standing | None = None) -> str:
    """The outcome in one sentence."""
    counts = {verdict: sum(result.verdict == verdict for result in report.results) for verdict in (PASS, FAIL, NO_DATA)}
    parts = [f"{counts[PASS]} passed", f"{counts[FAIL]} failed", f"{counts[NO_DATA]} without enough data"]
    beside = f" beside {report.model}@{report.stable}" if report.stable is not None else f", {report.alone}"
    kept = f", evidence {standing.digest[7:19]}" if standing is not None and standing.digest else ""
    partial = "" if report.complete else " These were chosen checks alone: how the version stands is unchanged."
    outcome = "has passed" if report.passed else "has failed"
    return f"The gate of {report.reference} {outcome}{beside}: {', '.join(parts)} ({report.seconds:.1f} s{kept}).{partial}"


def line(result: Result) -> str:
    """One check as a line for a terminal."""
    return f"{MARKS[result.verdict]} {result.check:12} {result.summary}  ({result.seconds:.2f} s)"


def to_junit(report: Report) -> bytes:
    """A test suite with one case for each check: a check that stops the version is a failure, one without enough data is skipped."""
    failures, skipped = len(report.failed), sum(result.verdict == NO_DATA and not result.blocks for result in report.results)
    counts: dict[str, str] = {"tests": str(len(report.results)), "failures": str(failures), "errors": "0", "skipped": str(skipped),
                              "time": f"{report.seconds:.3f}"}
    root = Xml.Element("testsuites", {"name": "davy gate", **counts})
    named = {"name": f"davy gate {report.reference}", "timestamp": format_time(report.time)[:19]}
    suite = Xml.SubElement(root, "testsuite", {**named, **counts})
    for result in report.results:
        case = Xml.SubElement(suite, "testcase", classname=report.reference, name=result.check, time=f"{result.seconds:.3f}")
        if result.blocks:
            failure = Xml.SubElement(case, "failure", message=_clean(result.summary), type=result.verdict)
            failure.text = _clean("\n".join(part for part in (result.title, result.fix, _evidence(result)) if part))
        elif result.verdict == NO_DATA:
            Xml.SubElement(case, "skipped", message=_clean(result.summary))
        Xml.SubElement(case, "system-out").text = _clean(f"{result.summary}\n{_evidence(result)}")
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def to_markdown(report: Report, standing: Standing | None = None) -> str:
    """A comment for a pull request: the outcome, what stops the version with what to do, and a table of all checks."""
    parts = [f"## {_MARKDOWN[PASS if report.passed else FAIL]} Gate of `{report.reference}`", "", headline(report, standing), ""]
    for result in report.failed:
        parts += [f"**{result.check}**: {_text(result.summary)}", ""]
        if result.fix:
            parts += [f"> {_text(result.fix)}", ""]
    parts += ["| | check | found | s |", "|---|---|---|---:|"]
    parts += [f"| {_MARKDOWN[FAIL if result.blocks else result.verdict]} | {result.check} | {_text(result.summary)} | {result.seconds:.2f} |"
              for result in report.results]
    for result in report.failed:
        evidence = _evidence(result).replace("```", "'''")
        parts += ["", "<details>", f"<summary>Evidence of {result.check}</summary>", "", "```json", evidence, "```", "", "</details>"]
    return "\n".join(parts) + "\n"


def _evidence(result: Result) -> str:
    text = msgspec.json.format(msgspec.json.encode(result.evidence), indent=2).decode()
    return text if len(text) <= LONGEST_EVIDENCE else f"{text[:LONGEST_EVIDENCE]}\n… all of it: davy gate --json"


def _text(text: str) -> str:
    """Without what Markdown would take for markup."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", text.replace("\n", " "))


def _clean(text: str) -> str:
    """Without characters that XML can't hold."""
    return _NOT_IN_XML.sub("\ufffd", text)
