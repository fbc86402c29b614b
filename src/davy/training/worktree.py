"""The code of a run laid out again in a folder of its own: the commit, the patch on it, and the data that git ignores."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from davy.errors import CorruptData, NotFound
from davy.training.git import GitError, git, line, paths
from davy.training.source import NEVER, Source, digest_file, read_source

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Layout:
    """Where the code lies.

    Attributes:
        top: the repository's folder, or the project's where there was no repository.
        root: the project's folder in it.
        differences: what is not as it was, in sentences.
        linked: ignored files and folders (data) that are links to those of today's project.
    """

    top: Path
    root: Path
    differences: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)


@contextmanager
def laid_out(source: Source, stored: bytes, project: Path, *, home: Path | None = None) -> Iterator[Layout]:
    """The source in a temporary folder that is gone afterwards; the repository of `project` is left as it was.

    Args:
        stored: the patch or archive.
        project: today's project folder, whose repository holds the commit, and whose ignored files are linked.

    Raises:
        NotFound: the commit is not in the repository.
        CorruptData: the patch does not fit, or the archive can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="davy-reproduce-") as scratch:
        # The folder's own name may matter to the project's code (a package's name), so it is kept.
        today = _repository(project) if source.kind == "git" else project
        top = Path(scratch).resolve() / today.name
        if source.kind == "archive":
            layout = Layout(top, top)
            _unpack(stored, top)
            _complete(layout, source, project, home)
            yield layout
            return
        try:
            _check_out(source, stored, today, top)
            layout = Layout(top, top / source.prefix)
            now, _ = read_source(top)
            if now.tree != source.tree:
                layout.differences.append(f"the tree is {now.tree} and was {source.tree}")
            _complete(layout, source, today, home)
            yield layout
        finally:
            if source.commit is not None:
                with suppress(GitError):
                    git(today, "worktree", "remove", "--force", "--force", str(top))


def _repository(project: Path) -> Path:
    top = line(project, "rev-parse", "--show-toplevel")
    if top is None:
        raise NotFound(f"{project} is not in a git repository any more.", "The run's commit is needed to train it again.", "Go to a clone of the repository.")
    return Path(top).resolve()


def _check_out(source: Source, patch: bytes, today: Path, top: Path) -> None:
    if source.commit is not None:
        if line(today, "cat-file", "-t", source.commit) != "commit":
            raise NotFound(f"The commit {source.commit} is not in {today}.", "A run can be trained again while its commit exists.",
                           f"Fetch it: git fetch {source.remote or 'origin'} {source.commit}")
        git(today, "-c", f"core.hooksPath={os.devnull}", "worktree", "add", "-q", "--detach", "--force", str(top), source.commit)
    else:
        top.mkdir(parents=True)
        git(top, "init", "-q")
    if patch:
        try:
            git(top, "apply", "--binary", "--whitespace=nowarn", "-", data=patch)
        except GitError as error:
            raise CorruptData(f"The patch of the run does not fit on {source.commit}: {error}", "", "Restore the run's diff.patch from a backup.") from error


def _unpack(data: bytes, top: Path) -> None:
    top.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(top, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CorruptData(f"The archive of the run's code can't be unpacked: {error}", "", "Restore the run's project.tar.gz from a backup.") from error


def _complete(layout: Layout, source: Source, today: Path, home: Path | None) -> None:
    """Bring the files that were too large to be kept, where they are still the same, and link what git ignores."""
    for file in source.left_out:
        present = today / file.path
        if present.is_file() and digest_file(present) == file.digest:
            _link(layout.top / file.path, present)
        else:
            layout.differences.append(f"{file.path} was too large to be kept and is {'another' if present.exists() else 'gone'}")
    for path in _ignored(today, source):
        present, target = today / path, layout.top / path
        if home is not None and (present == home or present in home.parents or home in present.parents):
            continue
        if not os.path.lexists(target):
            _link(target, present)
            layout.linked.append(path)


def _link(target: Path, present: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(present)


def _ignored(today: Path, source: Source) -> list[str]:
    """Ignored files and folders of the project, as paths from the top; whole folders where all of one is ignored."""
    if source.kind == "archive":
        kept = {Path(path).parts[0] for path in source.changed}
        found = [path.name for path in today.iterdir() if path.name not in kept]
    else:
        found = paths(today, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory", "--", f"./{source.prefix}")
    return sorted(path.rstrip("/") for path in found if not NEVER.intersection(Path(path).parts))



