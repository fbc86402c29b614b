"""What verbs print: tables and JSON on stdout, progress and notes on stderr. Rich is imported on a terminal only."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import msgspec

from davy.core.time import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

PLAIN_EVERY_S = 2.0
WHOLE_WORD, BROKEN_WORD = 12, 10
_answers: list[TextIO] = []
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class Progress(Protocol):
    """What a long job tells how far it is."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        ...


def print_json(value: Any) -> None:
    """One JSON document on one line of stdout."""
    out = _answers[-1] if _answers else sys.stdout
    out.write(_ENCODER.encode(value).decode() + "\n")
    out.flush()


@contextmanager
def json_alone() -> Iterator[None]:
    """Within, stdout is for `print_json`; what the project's own code prints goes to stderr."""
    _answers.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answers.pop()


def note(text: str) -> None:
    """A line for the person who watches, on stderr."""
    print(text, file=sys.stderr, flush=True)


def cell(value: Any) -> str:
    """A value as a table shows it: nothing for None, six significant digits for a float."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def when(micros: int | None) -> str:
    """Microseconds as `2013-05-01 12:00:00`, UTC, for people."""
    return "" if micros is None else format_time(micros)[:19].replace("T", " ")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, empty: str = "Nothing yet.") -> None:
    """Rows under column heads; numbers to the right. `empty` says what to type when there are none."""
    if not rows:
        print(empty)
        return
    heads = list(columns or rows[0])
    texts = [[cell(row.get(head)) for head in heads] for row in rows]
    right = [all(isinstance(row.get(head), (int, float)) or row.get(head) is None for row in rows) for head in heads]
    if sys.stdout.isatty():
        _rich_table(heads, texts, right)
        return
    widths = [max(len(head), *(len(text[index]) for text in texts)) for index, head in enumerate(heads)]
    for line in [heads, *texts]:
        cells = [text.rjust(width) if aligned else text.ljust(width) for text, width, aligned in zip(line, widths, right, strict=True)]
        print("  ".join(cells).rstrip())


def _rich_table(heads: list[str], texts: list[list[str]], right: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    least = [_least(column) for column in zip(heads, *texts, strict=True)]
    if sum(least) + 2 * (len(least) - 1) > console.width:
        _blocks(console, heads, texts)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for head, aligned, width in zip(heads, right, least, strict=True):
        grid.add_column(head, justify="right" if aligned else "left", overflow="fold", min_width=width)
    for line in texts:
        grid.add_row(*(Text(text) for text in line))
    console.print(grid)


def _least(column: Sequence[str]) -> int:
    """How narrow a column may become: no word of it is broken, unless one is longer than an id."""
    longest = max(len(word) for text in column for word in (text.split() or [""]))
    return longest if longest <= WHOLE_WORD else BROKEN_WORD


def _blocks(console: Console, heads: list[str], texts: list[list[str]]) -> None:
    """Each row as lines of head and value, where the terminal is too narrow for all columns side by side."""
    from rich.table import Table
    from rich.text import Text

    for index, line in enumerate(texts):
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="bold", no_wrap=True, min_width=max(len(head) for head in heads))
        grid.add_column(overflow="fold")
        for head, text in zip(heads, line, strict=True):
            grid.add_row(head, Text(text))
        console.print(grid)
        if index + 1 < len(texts):
            console.print()


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Progress]:
    """Count, rate and time left on a terminal; elsewhere a plain line every two seconds and one at the end.

    >>> with progress("rows", 3) as bar:
    ...     bar.advance(3)
    """
    if sys.stderr.isatty():
        with _rich_progress(label, total) as bar:
            yield bar
        return
    plain = _Plain(label, total)
    yield plain
    plain.finish()


class _Plain:
    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done = label, total, 0
        self.began = self.told = time.perf_counter()

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.perf_counter() - self.told >= PLAIN_EVERY_S:
            self._tell()

    def finish(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self.told = time.perf_counter()
        rate = self.done / max(self.told - self.began, 1e-9)
        whole = f" of {self.total:,}" if self.total is not None else ""
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total is not None and rate and self.done < self.total else ""
        note(f"{self.label}: {self.done:,}{whole} ({rate:,.0f}/s{left})")


@contextmanager
def _rich_progress(label: str, total: int | None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    class Bar:
        def advance(self, count: int = 1) -> None:
            display.advance(task, count)
            done = display.tasks[0]
            display.update(task, rate=f"{done.speed or 0:,.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(label, total=total, rate="")
        yield Bar()
