"""Unix sockets in a home, however deep its folder lies: a socket's address holds about a hundred bytes."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

LONGEST = 100


def address(path: Path) -> str:
    """An address for this path that fits. A long one goes through the open folder in /proc, which Linux has."""
    text = str(path)
    if len(os.fsencode(text)) <= LONGEST:
        return text
    return f"/proc/self/fd/{_folder(path.parent)}/{path.name}"


def listen(path: Path, *, backlog: int = 128) -> socket.socket:
    """A listening socket at this path, for this user only. One that a dead process left behind is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address(path))
    path.chmod(0o600)
    listener.listen(backlog)
    return listener


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address(path))
        except OSError:
            return False
    return True


@cache
def _folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
