"""The demo's folder: fresh state each time, edits kept, one demo at a time, nobody else's files touched."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from davy.demo.folder import demo_folder
from davy.demo.project import FILES
from davy.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path


def test_the_project_is_written_and_committed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo_folder(folder):
        assert all((folder / name).is_file() for name in FILES)
    if shutil.which("git"):
        done = subprocess.run(["git", "-C", str(folder), "log", "--format=%s"], capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 1


def test_state_is_fresh_data_are_kept_and_edits_too(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo_folder(folder):
        (folder / ".davy").mkdir()
        (folder / ".davy" / "old").touch()
        (folder / "data").mkdir()
        (folder / "data" / "flights.parquet").touch()
    (folder / "models.py").write_text("# mine\n")
    (folder / "features.py").unlink()
    with demo_folder(folder):
        assert not (folder / ".davy").exists()
        assert (folder / "data" / "flights.parquet").exists()
        assert (folder / "models.py").read_text() == "# mine\n"
        assert (folder / "features.py").is_file()
    if shutil.which("git"):
        assert not subprocess.run(["git", "-C", str(folder), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Conflict, match="--keep"), demo_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo_folder(folder), pytest.raises(Conflict, match="running"), demo_folder(folder):
        pass
    with demo_folder(folder):
        pass
