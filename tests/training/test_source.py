"""The code of a run, captured from real git repositories and from plain folders."""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from davy.training.git import without_credentials
from davy.training.source import Source, read_source

if TYPE_CHECKING:
    from pathlib import Path

BINARY = bytes(range(256)) * 8


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "config", "user.name", "Ada")
    (root / "models.py").write_text("RATE = 0.1\n")
    (root / "logo.bin").write_bytes(BINARY)
    (root / "old.py").write_text("gone = 1\n")
    (root / ".gitignore").write_text("data/\n.davy/\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "begin")
    return root


def rebuilt(repository: Path, source: Source, patch: bytes, place: Path) -> Path:
    git(repository, "worktree", "add", "-q", "--detach", str(place), source.commit or "HEAD")
    if patch:
        subprocess.run(["git", "apply", "--binary", "--whitespace=nowarn"], cwd=place, input=patch, check=True)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(folder).parts}


def test_a_clean_work_tree_is_its_commit(repository: Path) -> None:
    source, patch = read_source(repository)
    assert (source.kind, source.commit, source.branch, source.prefix) == ("git", git(repository, "rev-parse", "HEAD"), "main", "")
    assert source.tree == git(repository, "rev-parse", "HEAD^{tree}")
    assert (source.dirty, source.changed, source.stored, patch) == (False, (), None, b"")


def test_changed_untracked_binary_deleted_and_staged_files_come_back_byte_for_byte(repository: Path, tmp_path: Path) -> None:
    (repository / "models.py").write_text("RATE = 0.2\n")
    (repository / "logo.bin").write_bytes(BINARY[::-1])
    (repository / "old.py").unlink()
    (repository / "new folder").mkdir()
    (repository / "new folder" / "nåme.py").write_text("x = 1")
    (repository / "new folder" / "blob.bin").write_bytes(BINARY)
    (repository / "run.sh").write_text("#!/bin/sh\n")
    (repository / "run.sh").chmod(0o755)
    (repository / "link.py").symlink_to("models.py")
    (repository / "staged.py").write_text("staged = 1\n")
    git(repository, "add", "staged.py")
    (repository / "staged.py").write_text("staged = 2\r\n")
    before = (git(repository, "status", "--porcelain"), git(repository, "count-objects", "-v"))
    source, patch = read_source(repository)
    assert (git(repository, "status", "--porcelain"), git(repository, "count-objects", "-v")) == before
    assert source.dirty
    place = rebuilt(repository, source, patch, tmp_path / "again")
    assert contents(place) == contents(repository)
    assert os.access(place / "run.sh", os.X_OK)
    assert (place / "link.py").is_symlink()
    assert read_source(place)[0].digest == source.digest


def test_two_runs_with_different_uncommitted_changes_are_distinguishable(repository: Path) -> None:
    seen = set()
    for rate in ("0.1", "0.2", "0.3"):
        (repository / "models.py").write_text(f"RATE = {rate}\n")
        source, _ = read_source(repository)
        seen.add((source.commit, source.digest))
    assert len(seen) == 3
    assert len({commit for commit, _ in seen}) == 1


def test_an_untracked_file_alone_makes_the_run_dirty(repository: Path) -> None:
    clean, _ = read_source(repository)
    (repository / "helper.py").write_text("y = 2\n")
    source, patch = read_source(repository)
    assert source.dirty
    assert source.changed == ("helper.py",)
    assert source.digest != clean.digest
    assert b"+y = 2" in patch


def test_ignored_files_the_home_and_caches_are_not_source(repository: Path) -> None:
    for path in ("data/big.parquet", ".davy/davy.db", "state/davy.db", "__pycache__/models.cpython-311.pyc"):
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_bytes(b"x")
    source, patch = read_source(repository, home=repository / "state")
    assert (source.changed, patch) == ((), b"")


def test_what_git_is_told_not_to_look_at_is_captured_too(repository: Path) -> None:
    git(repository, "update-index", "--assume-unchanged", "models.py")
    git(repository, "update-index", "--skip-worktree", "old.py")
    (repository / "models.py").write_text("RATE = 9\n")
    (repository / "old.py").write_text("gone = 2\n")
    assert git(repository, "status", "--porcelain") == ""
    assert read_source(repository)[0].changed == ("models.py", "old.py")


def test_a_project_in_a_subfolder_captures_the_whole_repository(repository: Path, tmp_path: Path) -> None:
    project = repository / "teams" / "late"
    project.mkdir(parents=True)
    (project / "models.py").write_text("A = 1\n")
    (repository / "models.py").write_text("RATE = 7\n")
    source, patch = read_source(project)
    assert source.prefix == "teams/late/"
    assert source.changed == ("models.py", "teams/late/models.py")
    assert (rebuilt(repository, source, patch, tmp_path / "again") / "teams/late/models.py").read_text() == "A = 1\n"


def test_large_files_are_named_and_still_tell_two_runs_apart(repository: Path) -> None:
    digests = set()
    for fill in (b"a", b"b"):
        (repository / "weights.bin").write_bytes(fill * 2000)
        (repository / "small.py").write_text("z = 1\n")
        source, patch = read_source(repository, file_limit=1000)
        assert [(file.path, file.size) for file in source.left_out] == [("weights.bin", 2000)]
        assert "weights.bin" in source.notices[0]
        assert source.changed == ("small.py",)
        assert b"weights.bin" not in patch
        digests.add(source.digest)
    assert len(digests) == 2


def test_the_total_is_bounded(repository: Path) -> None:
    for name in "abc":
        (repository / f"{name}.txt").write_text("t" * 400)
    source, _ = read_source(repository, total_limit=1000)
    assert (source.changed, [file.path for file in source.left_out]) == (("a.txt", "b.txt"), ["c.txt"])


def test_before_the_first_commit_the_patch_holds_everything(tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    root.mkdir()
    git(root, "init", "-q")
    (root / "models.py").write_text("RATE = 1\n")
    source, patch = read_source(root)
    assert (source.kind, source.commit, source.changed, source.dirty) == ("git", None, ("models.py",), True)
    assert b"+RATE = 1" in patch


def test_a_folder_that_is_no_repository_is_archived(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    (root / "data").mkdir(parents=True)
    (root / "models.py").write_text("RATE = 1\n")
    (root / "data" / "big.csv").write_text("1,2\n")
    (root / ".gitignore").write_text("data/\n")
    (root / ".davy").mkdir()
    (root / ".davy" / "davy.db").write_bytes(b"x")
    source, data = read_source(root, home=root / ".davy")
    assert (source.kind, source.commit, source.changed) == ("archive", None, (".gitignore", "models.py"))
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        assert archive.getnames() == [".gitignore", "models.py"]
    os.utime(root / "models.py", (1, 1))
    assert read_source(root, home=root / ".davy") == (source, data)
    (root / "models.py").write_text("RATE = 2\n")
    assert read_source(root, home=root / ".davy")[0].digest != source.digest


def test_a_project_that_its_repository_ignores_is_archived(repository: Path) -> None:
    project = repository / "data" / "project"
    project.mkdir(parents=True)
    (project / "models.py").write_text("A = 1\n")
    source, _ = read_source(project)
    assert (source.kind, source.changed) == ("archive", ("models.py",))
    assert "ignores this folder" in source.notices[0]


def test_without_git_the_files_are_archived(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    source, _ = read_source(repository)
    assert source.kind == "archive"
    assert "models.py" in source.changed
    assert "git is not installed" in source.notices[0]


def test_a_callers_git_variables_do_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/other-index")
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    assert read_source(repository)[0].dirty is False


def test_a_users_diff_settings_do_not_change_the_patch(repository: Path) -> None:
    (repository / "models.py").write_text("RATE = 5\n")
    _, plain = read_source(repository)
    for setting, value in (("diff.noprefix", "true"), ("diff.algorithm", "histogram"), ("diff.context", "9"), ("color.ui", "always")):
        git(repository, "config", setting, value)
    assert read_source(repository)[1] == plain


def test_a_repository_inside_is_named(repository: Path) -> None:
    inner = repository / "vendored"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "x.py").write_text("x = 1\n")
    source, _ = read_source(repository)
    assert source.changed == ()
    assert "vendored" in source.notices[0]


def test_the_remote_is_kept_without_credentials(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://ada:s3cret@example.org/shop.git")
    source, _ = read_source(repository)
    assert source.remote == "https://example.org/shop.git"


@pytest.mark.parametrize(("url", "kept"), [
    ("git@example.org:shop.git", "git@example.org:shop.git"),
    ("ssh://git:pw@example.org:2222/shop.git", "ssh://example.org:2222/shop.git"),
    ("https://token@example.org/shop.git?private=1#x", "https://example.org/shop.git"),
    ("/srv/shop.git", "/srv/shop.git"),
])
def test_credentials_are_removed(url: str, kept: str) -> None:
    assert without_credentials(url) == kept
