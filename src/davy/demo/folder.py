"""The demo's folder: the example project in a git repository of its own, and a fresh home in it each time."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from davy.config import FILE
from davy.core.digest import digest_bytes
from davy.demo.project import FILES, example
from davy.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = ".davy-demo"
HOME = ".davy"
_STOPS_WITHIN_S = 20.0


@contextmanager
def demo_folder(folder: Path) -> Iterator[None]:
    """Prepare the folder and hold it for one demo at a time.

    Files of the project that were edited are kept; all state of the last demo is removed.

    Raises:
        Conflict: the folder holds something else, or a demo is running in it.
    """
    if folder.exists() and not (folder / MARK).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already, and isn't a demo's.", "The demo replaces what its folder holds.",
                       f"Name another one: davy demo --keep {folder}-demo")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / MARK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"A demo is running in {folder}.", "One at a time can use a folder.", "Stop it with Ctrl-C, or: davy demo --keep OTHER") from None
        _write_project(folder, descriptor)
        _stop_leftover(folder)
        if (folder / HOME).exists():
            shutil.rmtree(folder / HOME)
        _commit(folder)
        yield
    finally:
        os.close(descriptor)


def _write_project(folder: Path, descriptor: int) -> None:
    """Bring the files up to date, except where somebody has changed them since the demo wrote them."""
    written: dict[str, str] = msgspec.json.decode(os.pread(descriptor, 65_536, 0) or b"{}")
    for name in FILES:
        new, path = (example("flights") / name).read_bytes(), folder / name
        if path.exists() and digest_bytes(path.read_bytes()) != written.get(name):
            continue
        path.write_bytes(new)
        written[name] = digest_bytes(new)
    (folder / ".gitignore").write_text(f"{HOME}/\ndata/\n{MARK}\n__pycache__/\n", encoding="utf-8")
    content = msgspec.json.encode(written)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _stop_leftover(folder: Path) -> None:
    """A demo that was killed may have left its server behind."""
    if not (folder / HOME).exists():
        return
    from davy.home import Home
    from davy.server.supervisor import running

    assert (folder / FILE).exists()
    home = Home(folder)
    try:
        deadline = time.perf_counter() + _STOPS_WITHIN_S
        while (found := running(home)) is not None:
            if time.perf_counter() > deadline:
                raise Unavailable(f"The server of an earlier demo (process {found.pid}) does not stop.", "", f"kill -9 {found.pid}")
            os.kill(found.pid, signal.SIGTERM)
            time.sleep(0.2)
    finally:
        home.close()


def _commit(folder: Path) -> None:
    """Commit the project, so that a prediction can be walked back to a commit. Without git, the code itself is captured."""
    if shutil.which("git") is None:
        return
    if not (folder / ".git").exists():
        _git(folder, "init", "--quiet")
    _git(folder, "add", ".")
    if _git(folder, "status", "--porcelain"):
        _git(folder, "-c", "user.name=Davy", "-c", "user.email=davy@localhost", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message",
             "The flights as Davy's example has them")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout
