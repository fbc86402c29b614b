"""What the wheel carries: templates, static files, examples and the licence, and nothing of the tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "davy").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    examples = {f"davy/{path.relative_to(ROOT).as_posix()}" for name in ("flights", "starter") for path in (ROOT / "examples" / name).iterdir()
                if path.suffix in (".py", ".toml", ".md")}
    assert sources | examples <= names
    assert not [name for name in names if "tests" in name.split("/")]
    assert any(name.endswith("licenses/LICENSE") for name in names)
