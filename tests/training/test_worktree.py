"""The code of a run laid out again, from real repositories."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from davy.errors import CorruptData, NotFound
from davy.training.source import read_source
from davy.training.worktree import laid_out
from training.shop import git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "config", "user.name", "Ada")
    (root / "models.py").write_text("RATE = 0.1\n")
    (root / ".gitignore").write_text("data/\nlocal.py\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "begin")
    return root


def test_it_is_gone_afterwards_and_hooks_do_not_run(repository: Path) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repository}/hooked\n")
    hook.chmod(0o755)
    (repository / "models.py").write_text("RATE = 0.2\n")
    source, patch = read_source(repository)
    (repository / "models.py").write_text("RATE = 0.3\n")
    with laid_out(source, patch, repository) as layout:
        assert (layout.root / "models.py").read_text() == "RATE = 0.2\n"
        assert (layout.root.name, layout.differences) == ("shop", [])
        place = layout.root
    assert not place.exists()
    assert not (repository / "hooked").exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "models.py").read_text() == "RATE = 0.3\n"


def test_ignored_data_are_linked_and_the_home_is_not(repository: Path) -> None:
    for path in ("data/a.parquet", "data/.davy/davy.db", "local.py", "__pycache__/x.pyc"):
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_text("x")
    source, patch = read_source(repository)
    with laid_out(source, patch, repository) as layout:
        assert layout.linked == ["data", "local.py"]
        assert (layout.root / "data" / "a.parquet").read_text() == "x"
    with laid_out(source, patch, repository, home=repository / "data" / ".davy") as layout:
        assert layout.linked == ["local.py"]


def test_a_file_that_was_too_large_is_linked_while_it_is_the_same(repository: Path) -> None:
    (repository / "weights.bin").write_bytes(b"w" * 2000)
    source, patch = read_source(repository, file_limit=1000)
    with laid_out(source, patch, repository) as layout:
        assert (layout.differences, (layout.root / "weights.bin").stat().st_size) == ([], 2000)
    (repository / "weights.bin").write_bytes(b"v" * 2000)
    with laid_out(source, patch, repository) as layout:
        assert layout.differences == ["weights.bin was too large to be kept and is another"]
    (repository / "weights.bin").unlink()
    with laid_out(source, patch, repository) as layout:
        assert layout.differences == ["weights.bin was too large to be kept and is gone"]


def test_damage_is_named(repository: Path) -> None:
    (repository / "models.py").write_text("RATE = 0.2\n")
    source, patch = read_source(repository)
    with pytest.raises(CorruptData, match="does not fit"), laid_out(source, patch.replace(b"-RATE = 0.1", b"-RATE = 9.9"), repository):
        pass
    with laid_out(source, patch.replace(b"+RATE = 0.2", b"+RATE = 0.7"), repository) as layout:
        assert layout.differences[0].startswith("the tree is ")
    with pytest.raises(NotFound, match="not in"), laid_out(msgspec.structs.replace(source, commit="1" * 40), patch, repository):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_before_the_first_commit_and_without_a_repository(tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    root.mkdir()
    (root / "models.py").write_text("RATE = 1\n")
    source, data = read_source(root)
    assert source.kind == "archive"
    with laid_out(source, data, root) as layout:
        assert (layout.root / "models.py").read_text() == "RATE = 1\n"
    with pytest.raises(CorruptData, match="can't be unpacked"), laid_out(source, data[:40], root):
        pass
    git(root, "init", "-q")
    source, data = read_source(root)
    with laid_out(source, data, root) as layout:
        assert ((layout.root / "models.py").read_text(), layout.differences) == ("RATE = 1\n", [])
