"""What the documentation calls a backup is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Answered

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "durability.md"


def test_the_parts_that_the_page_names_are_enough_to_replay(answered: Answered, tmp_path: Path) -> None:
    named = re.search(r"What a backup needs is (.*?), of one moment", PAGE.read_text(), re.S)
    assert named is not None
    kept = tmp_path / "restored"
    (kept / "run").mkdir(parents=True)
    shutil.copy(answered.root / ".davy" / "run" / "clock", kept / "run" / "clock")
    for name in re.findall(r"`(.*?)`", named[1]):
        part = answered.root / ".davy" / name
        if part.is_dir():
            shutil.copytree(part, kept / name)
        elif part.exists():
            shutil.copy(part, kept / name)
    for verb in (["replay", "late", "--json"], ["audit", "--json"]):
        done = subprocess.run([sys.executable, "-m", "davy", *verb, "--home", str(kept)], cwd=answered.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if verb[0] == "replay":
            assert json.loads(done.stdout)["equal"] == 1
