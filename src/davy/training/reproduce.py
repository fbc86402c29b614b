"""`reproduce`: a run's code, environment, rows and seeds once more, and how near the model comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from davy.errors import DavyError, InvalidInput, NotFound
from davy.registry.models import resolve
from davy.tracking.artifacts import list_artifacts
from davy.tracking.runs import get_run
from davy.training import again, record
from davy.training import capture as captured
from davy.training.comparison import ORDER, Difference, Grade, circumstances, environments, grade
from davy.training.environment import THREAD_VARIABLES
from davy.training.source import ARCHIVE, PATCH, Source
from davy.training.venv import make_environment
from davy.training.worktree import Layout, laid_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from davy.home import Home

TOLERANCE, WATCH_SECONDS = 1e-6, 0.5
_HASH_SEED = "PYTHONHASHSEED"


class Reproduction(msgspec.Struct, frozen=True):
    """How a repetition came out.

    Attributes:
        first: what differs first, the differences being in the order of cause and effect; None when nothing does.
        largest: the largest absolute difference between two answers; None when they can't be subtracted.
        training_set: whether all rows and columns of the training set are equal.
    """

    run: str
    model: str
    grade: Grade
    first: Difference | None
    differences: tuple[Difference, ...]
    largest: float | None
    training_set: bool
    rows: int
    seconds: float
    notices: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every answer is the same, bit for bit."""
        return self.grade in ("same bytes", "same predictions")


@dataclass(frozen=True)
class _Kept:
    """What the run left."""

    run: str
    record: record.TrainingRecord
    capture: captured.Capture
    stored: bytes
    rows: bytes | None
    files: dict[str, bytes]


def reproduce(home: Home, run: str, *, environment: bool = False, tolerance: float = TOLERANCE,
              report: Callable[[str], None] = lambda _: None) -> Reproduction:
    """Train a run again from its record and grade the result. Nothing is registered, and the run is left as it is.

    Args:
        run: a run's id or its beginning, or a version, such as `late@2`.
        environment: make a fresh environment with the run's packages; otherwise today's is used and compared.
        tolerance: the largest absolute difference of two answers that still counts as near.

    Raises:
        NotFound: no such run, or its commit is gone.
        InvalidInput: the run was not made by `davy train`, or did not finish.
        CorruptData: what the run left is damaged.
    """
    if not tolerance >= 0:
        raise InvalidInput(f"The tolerance is {tolerance}.", "It is 0 or more.", f"Write for example --tolerance {TOLERANCE}")
    kept = _read(home, run)
    source = kept.capture.source
    with tempfile.TemporaryDirectory(prefix="davy-again-") as scratch, laid_out(source, kept.stored, home.root, home=home.path) as layout:
        report(_laid_out(source))
        python = Path(sys.executable)
        if environment:
            report(f"making an environment of {len(kept.capture.environment.packages)} packages")
            python = make_environment(Path(scratch) / "environment", kept.capture.environment, moved=lambda path: _moved(path, home.root, layout))
        report("training again")
        answer = _run_again(kept, home, layout, Path(scratch), python)
        return _compare(kept, answer, layout, tolerance, _inside(kept, home.root))


def _laid_out(source: Source) -> str:
    if source.commit is None:
        return f"laid out {len(source.changed):,} files"
    return f"laid out commit {source.commit[:12]}{f' with {len(source.changed):,} changed files' if source.changed else ''}"


def _read(home: Home, name: str) -> _Kept:
    with home.database.read() as connection:
        run_id = name
        if "@" in name:
            version = resolve(connection, name)
            if version.run_id is None:
                raise NotFound(f"{version.reference} was not made by a run.", "", "Train the model: davy train MODEL")
            run_id = version.run_id
        try:
            found = get_run(connection, run_id)
        except NotFound as error:
            raise NotFound(error.came, f"{error.allowed} A version names the run that made it: late@2.", error.fix) from None
        files = {artifact.path: str(artifact.digest) for artifact in list_artifacts(connection, found.id, deep=True)}
    for needed in (captured.ARTIFACT, record.ARTIFACT):
        if needed not in files:
            raise InvalidInput(f"The run {found.name} {found.id} ({found.status}) has no {needed}.",
                               "A run that `davy train` has finished can be trained again.", "Choose another: davy runs")
    content = {path: home.blobs.get(digest) for path, digest in files.items()
               if path in (captured.ARTIFACT, record.ARTIFACT, PATCH, ARCHIVE, record.ROWS) or path.startswith("model/")}
    return _Kept(found.id, record.TrainingRecord.from_json(content[record.ARTIFACT]), captured.Capture.from_json(content[captured.ARTIFACT]),
                 content.get(PATCH, content.get(ARCHIVE, b"")), content.get(record.ROWS),
                 {path.removeprefix("model/"): data for path, data in content.items() if path.startswith("model/")})


def _run_again(kept: _Kept, home: Home, layout: Layout, scratch: Path, python: Path) -> again.Answer:
    files = scratch / "model"
    for name, data in kept.files.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(data)
    rows = None
    if kept.rows is not None:
        rows = scratch / record.ROWS
        rows.write_bytes(kept.rows)
    request = again.Request(str(layout.root), str(home.path), kept.record, str(files), str(rows) if rows else None)
    path = scratch / "request.json"
    path.write_bytes(msgspec.json.encode(request, enc_hook=str))
    code = _waited([str(python), "-m", "davy.training.again", str(path)], layout.root, _variables(kept, home.root, layout))
    answer = scratch / again.ANSWER
    if not answer.exists():
        raise DavyError(f"Training again ended with exit code {code} and no answer.", "", "See its output above.")
    found = msgspec.json.decode(answer.read_bytes(), type=again.Answer)
    if found.error is not None:
        raise DavyError(f"Training again failed: {found.error}", "", "Compare with the run's own output; --environment restores its packages.")
    return found


def _waited(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """The exit code of a process in a session of its own: Ctrl-C is for this one, which ends it without its traceback."""
    process = subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, start_new_session=True,
                               stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL)
    try:
        while True:
            try:  # an endless wait may not be interrupted: a library's handler can make the call resume
                return process.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _has_descriptor() -> bool:
    try:
        return sys.stderr.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _variables(kept: _Kept, project: Path, layout: Layout) -> dict[str, str]:
    """The process's variables: thread settings and hash seed of the run, and the code of packages that lie in its repository."""
    variables = {name: value for name, value in os.environ.items() if name not in (*THREAD_VARIABLES, _HASH_SEED)}
    variables |= kept.capture.threads.variables
    if kept.capture.seeds.hash_seed != "random":
        variables[_HASH_SEED] = kept.capture.seeds.hash_seed
    inside = [_moved(Path(folder), project, layout) for folder in _inside(kept, project).values()]
    search = [str(path) for folder in inside for path in (folder / "src", folder) if path.is_dir()]
    if search:
        variables["PYTHONPATH"] = os.pathsep.join([*search, *filter(None, [variables.get("PYTHONPATH")])])
    return variables


def _top(kept: _Kept, project: Path) -> Path:
    """Today's folder of the repository."""
    levels = len(Path(kept.capture.source.prefix).parts)
    return project.resolve().parents[levels - 1] if levels else project.resolve()


def _inside(kept: _Kept, project: Path) -> dict[str, str]:
    """Editable installs that lie in the run's repository: the captured code is theirs. Name -> folder."""
    top = _top(kept, project)
    return {package.name: package.editable for package in kept.capture.environment.packages
            if package.editable is not None and (Path(package.editable) == top or top in Path(package.editable).parents)}


def _moved(path: Path, project: Path, layout: Layout) -> Path:
    depth = len(layout.root.relative_to(layout.top).parts)
    top = project.resolve().parents[depth - 1] if depth else project.resolve()
    return layout.top / path.relative_to(top) if path == top or top in path.parents else path


def _compare(kept: _Kept, answer: again.Answer, layout: Layout, tolerance: float, inside: dict[str, str]) -> Reproduction:
    then = kept.record
    assert answer.data is not None
    equal = answer.data.digest == then.data.digest
    found = grade(same_bytes=answer.model_digest == then.model_digest, same_predictions=answer.predictions == then.predictions, largest=answer.largest,
                  tolerance=tolerance)
    differences = list(_differences(kept, answer, layout, inside))
    if found not in ("same bytes", "same predictions") and not any(item.cause in ORDER[:-2] for item in differences):
        unset = " PYTHONHASHSEED was not set, so the order of sets may differ;" if kept.capture.seeds.hash_seed == "random" else ""
        differences.append(Difference("model", "the same code, packages, seeds, threads and rows gave another model: the training function is not "
                                               f"deterministic;{unset} seed every generator (take `seed`), and for LightGBM set deterministic=True"))
    differences.sort(key=lambda item: ORDER.index(item.cause))
    notices = [*kept.capture.source.notices]
    if layout.linked:
        notices.append(f"Ignored by git, and taken as they are today: {', '.join(layout.linked[:10])}.")
    if answer.spine_error:
        notices.append(f"The spine could not be made, so the run's own rows were taken: {answer.spine_error.splitlines()[0]}")
    return Reproduction(run=kept.run, model=then.model, grade=found, first=differences[0] if differences else None, differences=tuple(differences),
                        largest=answer.largest, training_set=equal, rows=answer.data.rows, seconds=answer.seconds, notices=tuple(notices))


def _differences(kept: _Kept, answer: again.Answer, layout: Layout, inside: dict[str, str]) -> Iterator[Difference]:
    before, data = kept.record.data, answer.data
    assert data is not None
    for text in layout.differences:
        yield Difference("code", text)
    yield from environments(kept.capture.environment, answer.environment, imported=answer.imported, inside=inside)
    yield from circumstances((kept.capture.seeds, kept.capture.threads, kept.capture.machine), (answer.seeds, answer.threads, answer.machine))
    if answer.feature_set != before.feature_set:
        yield Difference("definition", f"the feature set is {answer.feature_set[:19]} and was {before.feature_set[:19]}")
    if data.spine_digest != before.spine_digest:
        changed = [name for name in before.spine_columns if data.columns.get(name) != before.columns.get(name)]
        yield Difference("spine", answer.row or f"{data.rows:,} rows, then {before.rows:,}; columns that differ: {', '.join(changed)}")
    elif data.digest != before.digest:
        changed = [name for name in before.columns if data.columns.get(name) != before.columns[name]]
        yield Difference("training set", answer.row or f"columns that differ: {', '.join(changed)}" if changed else _bounds(before, data))


def _bounds(then: record.DataRecord, now: record.DataRecord) -> str:
    for stream, offset in then.watermarks.items():
        if now.watermarks.get(stream) != offset:
            return f"the log of {stream} ends at offset {now.watermarks.get(stream)}, then {offset}"
    return "its digest is another"
