"""Calls of the `git` program, with nothing of the caller's environment that would change what it says."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from pathlib import Path

_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                 "GIT_NAMESPACE", "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_CEILING_DIRECTORIES")
# A user's own settings must not change the patch's form, or it could not be applied elsewhere.
_SETTINGS = ("core.quotePath=true", "diff.noprefix=false", "diff.mnemonicPrefix=false", "diff.submodule=short",
             "core.fsmonitor=false", "advice.addEmbeddedRepo=false", "core.safecrlf=false")
MISSING = -1


class GitError(Exception):
    """git said no; the text is what it said. `status` is `MISSING` when there is no git at all."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def git(folder: Path, *arguments: str, data: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
    """What `git ARGUMENTS` run in `folder` prints.

    Raises:
        GitError: it failed, or git isn't installed.
    """
    clean = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(["git", *settings, *arguments], cwd=folder, input=data, capture_output=True,
                              check=False, env={**clean, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", **(environment or {})})
    except FileNotFoundError as error:
        raise GitError("git is not installed.", MISSING) from error
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed", done.returncode)
    return done.stdout


def line(folder: Path, *arguments: str) -> str | None:
    """The one line that git prints, or None when it fails or prints nothing."""
    try:
        return os.fsdecode(git(folder, *arguments)).rstrip("\n") or None
    except GitError:
        return None


def paths(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> list[str]:
    """The paths of a `-z` listing."""
    return [os.fsdecode(part) for part in git(folder, *arguments, environment=environment).split(b"\0") if part]


def without_credentials(url: str | None) -> str | None:
    """A remote's address as it may be stored: without user, password, token and query.

    >>> without_credentials("https://me:secret@example.org/team/project.git?token=1")
    'https://example.org/team/project.git'
    >>> without_credentials("git@example.org:team/project.git")
    'git@example.org:team/project.git'
    """
    if url is None or "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
