"""The code of a run, whole: the commit and everything that differs from it, or all files where there is no repository."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from davy.core.digest import digest_bytes, digest_json
from davy.training.git import MISSING, GitError, git, line, paths, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_LIMIT, TOTAL_LIMIT = 16 << 20, 128 << 20
NEVER = {".git", ".hg", ".svn", "__pycache__", ".venv", "venv", ".davy", "node_modules", ".mypy_cache", ".ruff_cache",
          ".pytest_cache", ".tox", ".ipynb_checkpoints"}
_EXCLUDED = tuple(f"--exclude={name}/" for name in sorted(NEVER))
PATCH, ARCHIVE = "diff.patch", "project.tar.gz"


class LeftOut(msgspec.Struct, frozen=True):
    """A file that is part of the source and too large to be kept: its digest still tells two runs apart."""

    path: str
    size: int
    digest: str
    reason: str


class Source(msgspec.Struct, frozen=True):
    """What the code was.

    Attributes:
        kind: `git` (commit + patch) or `archive` (all files).
        commit: None before the first commit.
        remote: the address of `origin`, without credentials.
        prefix: the project's folder inside the repository, with a final slash, or empty.
        tree: git's name of the exact content, of what the commit and the patch make together.
        changed: paths that differ from the commit (git), or all paths (archive).
        stored: the digest of the patch or of the archive; None when the work tree is the commit.
        notices: what could not be captured, in sentences.
        digest: over all of it; two runs of different code never share it.
    """

    kind: Literal["git", "archive"]
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    prefix: str = ""
    tree: str | None = None
    changed: tuple[str, ...] = ()
    stored: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    notices: tuple[str, ...] = ()
    digest: str = ""

    @property
    def dirty(self) -> bool:
        """True when the code is not exactly a commit."""
        return self.kind == "archive" or self.commit is None or bool(self.changed) or bool(self.left_out)

    def sealed(self) -> Source:
        """This source with its digest; branch, remote and notices do not make code different."""
        return msgspec.structs.replace(self, digest=digest_json(
            [self.kind, self.commit, self.prefix, self.tree, self.stored, [(file.path, file.digest) for file in self.left_out]]))


def read_source(root: Path, *, home: Path | None = None, file_limit: int = FILE_LIMIT, total_limit: int = TOTAL_LIMIT) -> tuple[Source, bytes]:
    """The source of the project at `root`, and the bytes of its patch or archive (empty when the work tree is the commit).

    `.gitignore` is respected, and the `home` folder never belongs to the source. Files above `file_limit` bytes, and those
    after which the total would exceed `total_limit`, are left out with a notice that names them.
    """
    root = root.resolve()
    outside = {path.resolve() for path in (home,) if path is not None}
    try:
        top = Path(_text(git(root, "rev-parse", "--show-toplevel"))).resolve()
        if top != root and _ignored(top, root):
            raise GitError(f"The repository {top} ignores this folder.", 1)
    except GitError as error:
        there = any((folder / ".git").exists() for folder in (root, *root.parents))
        notices = (f"git could not be asked, so all files are stored: {error}",) if there or error.status == MISSING else ()
        return _archive(root, outside, file_limit, total_limit, notices)
    return _from_repository(root, top, outside, file_limit, total_limit)


def _ignored(top: Path, folder: Path) -> bool:
    try:
        git(top, "check-ignore", "-q", str(folder.relative_to(top)))
    except GitError:
        return False
    return not paths(top, "ls-files", "-z", "--", str(folder.relative_to(top)))


def _from_repository(root: Path, top: Path, outside: set[Path], file_limit: int, total_limit: int) -> tuple[Source, bytes]:
    commit = line(top, "rev-parse", "--verify", "-q", "HEAD")
    prefix = "" if root == top else f"{root.relative_to(top).as_posix()}/"
    with tempfile.TemporaryDirectory(prefix="davy-capture-") as scratch:
        area = _Area(top, Path(scratch), commit)
        candidates = [path for path in area.differing() if not _within(top / path, outside)]
        kept, left_out, notices = _bounded(top, candidates, file_limit, total_limit)
        tree, patch = area.record(kept)
    source = Source(kind="git", commit=commit, branch=line(top, "symbolic-ref", "--short", "-q", "HEAD"),
                    remote=without_credentials(line(top, "remote", "get-url", "origin")), prefix=prefix, tree=tree,
                    changed=tuple(kept) if patch else (), stored=digest_bytes(patch) if patch else None, left_out=tuple(left_out),
                    notices=(*notices, *_submodules(top)))
    return source.sealed(), patch


class _Area:
    """A scratch index and object store beside the repository's, so that looking never changes the repository."""

    def __init__(self, top: Path, scratch: Path, commit: str | None) -> None:
        self.top = top
        objects = top / _text(git(top, "rev-parse", "--git-path", "objects"))
        (scratch / "objects").mkdir()
        self.environment = {"GIT_INDEX_FILE": str(scratch / "index"), "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
                            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects.resolve())}
        self.base = commit or _text(git(top, "hash-object", "-t", "tree", "--stdin"))
        # A copy of the real index keeps its file times, so that unchanged files need not be read.
        real = top / _text(git(top, "rev-parse", "--git-path", "index"))
        if real.exists():
            shutil.copy2(real, scratch / "index")
        git(top, "read-tree", *(("--reset", commit) if commit else ("--empty",)), environment=self.environment)
        self._unhide()

    def _unhide(self) -> None:
        """Look at files too that `update-index --assume-unchanged` or `--skip-worktree` hides from `git status`."""
        flagged = [(entry[0], entry[2:]) for entry in paths(self.top, "ls-files", "-z", "-v", environment=self.environment)]
        for option, hidden in (("--no-assume-unchanged", [path for flag, path in flagged if flag.islower()]),
                               ("--no-skip-worktree", [path for flag, path in flagged if flag in "Ss" and os.path.lexists(self.top / path)])):
            if hidden:
                git(self.top, "update-index", option, "-z", "--stdin", data=_listing(hidden), environment=self.environment)

    def differing(self) -> list[str]:
        """Paths of tracked files that differ from the commit, and of untracked files that are not ignored."""
        with suppress(GitError):  # its exit code says that something differs
            git(self.top, "update-index", "-q", "--refresh", environment=self.environment)
        tracked = paths(self.top, "diff-files", "-z", "--name-only", "--no-ext-diff", environment=self.environment)
        untracked = paths(self.top, "ls-files", "-z", "--others", "--exclude-standard", *_EXCLUDED, environment=self.environment)
        return sorted({*tracked, *untracked})

    def record(self, kept: list[str]) -> tuple[str, bytes]:
        """The tree's name and the patch that leads to it."""
        if kept:
            git(self.top, "--literal-pathspecs", "add", "-A", "--pathspec-from-file=-", "--pathspec-file-nul", data=_listing(kept),
                environment=self.environment)
        tree = _text(git(self.top, "write-tree", environment=self.environment))
        patch = git(self.top, "diff", "--cached", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
                    "--diff-algorithm=myers", "-U3", "--inter-hunk-context=0", "--ignore-submodules=dirty", self.base, "--", environment=self.environment)
        return tree, patch


def _text(output: bytes) -> str:
    return os.fsdecode(output).rstrip("\n")


def _listing(names: list[str]) -> bytes:
    return b"\0".join(os.fsencode(name) for name in names) + b"\0"


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _submodules(top: Path) -> list[str]:
    if not (top / ".gitmodules").exists():
        return []
    return ["The repository has submodules: their commits are captured, uncommitted changes inside them are not."]


def _bounded(top: Path, candidates: list[str], file_limit: int, total_limit: int) -> tuple[list[str], list[LeftOut], list[str]]:
    kept: list[str] = []
    left_out: list[LeftOut] = []
    notices: list[str] = []
    total = 0
    for path in candidates:
        file = top / path
        if path.endswith("/"):
            notices.append(f"{path} is a repository of its own and is not captured; make it a submodule, or commit its files here.")
            continue
        size = file.lstat().st_size if file.is_symlink() or file.is_file() else 0
        reason = "larger than one file may be" if size > file_limit else "beyond the total" if total + size > total_limit else ""
        if reason:
            left_out.append(LeftOut(path, size, digest_file(file), reason))
        else:
            kept.append(path)
            total += size
    if left_out:
        names = ", ".join(f"{file.path} ({file.size / 1e6:.0f} MB)" for file in left_out[:10])
        notices.append(f"{len(left_out)} changed file(s) are too large to be kept with the run (only their digests are): {names}. "
                       "Commit them, or add data to .gitignore and read it through a stream.")
    return kept, left_out, notices


def digest_file(path: Path) -> str:
    """The digest of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _archive(root: Path, outside: set[Path], file_limit: int, total_limit: int, notices: tuple[str, ...]) -> tuple[Source, bytes]:
    kept, left_out, found = _bounded(root, [path for path in _listed(root) if not _within(root / path, outside)], file_limit, total_limit)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in kept:
            entry = archive.gettarinfo(root / path, arcname=path)
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            if entry.isreg():
                with (root / path).open("rb") as stream:
                    archive.addfile(entry, stream)
            else:
                archive.addfile(entry)
    data = gzip.compress(plain.getvalue(), mtime=0)
    source = Source(kind="archive", tree=digest_bytes(plain.getvalue()), changed=tuple(kept), stored=digest_bytes(data),
                    left_out=tuple(left_out), notices=(*notices, *found))
    return source.sealed(), data


def _listed(root: Path) -> list[str]:
    """All files of a folder that is no repository, honouring its .gitignore where git is there to read it."""
    with tempfile.TemporaryDirectory(prefix="davy-capture-") as scratch:
        try:
            git(root, "init", "-q", "--bare", scratch)
            listed = paths(root, f"--git-dir={scratch}", "--work-tree=.", "ls-files", "-z", "--others", "--exclude-standard", *_EXCLUDED)
        except GitError:
            listed = _walk(root, root)
    # A nested repository is listed as a folder: here there is no commit to fall back on, so its files are taken.
    files = {path for path in listed if not path.endswith("/")}
    files.update(inner for path in listed if path.endswith("/") for inner in _walk(root, root / path))
    return sorted(path for path in files if (root / path).is_symlink() or (root / path).is_file())


def _walk(root: Path, start: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(start):
        folders[:] = [name for name in folders if name not in NEVER]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return found
