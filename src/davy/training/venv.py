"""A fresh virtual environment with the packages of a lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from davy.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.training.environment import Environment

_INSTALLERS = {"pip", "setuptools", "wheel", "uv"}


def requirements(lock: Environment, *, moved: Callable[[Path], Path] = lambda path: path) -> list[str]:
    """The lines that pip installs the lock from; editable installs come from their folder, as `moved` says where it lies now."""
    found = []
    for package in lock.packages:
        if package.editable is not None:
            found.append(f"-e {moved(Path(package.editable))}")
        elif package.name not in _INSTALLERS:
            found.append(f"{package.name}=={package.version}")
    return found


def make_environment(folder: Path, lock: Environment, *, moved: Callable[[Path], Path] = lambda path: path) -> Path:
    """Make the environment in `folder`; returns its Python.

    Raises:
        Unavailable: a package can't be had; says what pip said last.
    """
    listing = folder.parent / f"{folder.name}.txt"
    listing.write_text("\n".join(requirements(lock, moved=moved)) + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    for command in ([sys.executable, "-m", "venv", str(folder)],
                    [str(python), "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--no-deps", "-r", str(listing)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"The run's environment can't be made: {said[-1] if said else 'no reason given'}",
                              "Every package of the lock must still be published for this Python.",
                              "Leave out --environment to train with the packages of today.")
    return python
