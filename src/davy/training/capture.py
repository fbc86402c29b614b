"""The capture of a run: all that another run would need to come out the same."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.digest import digest_json
from davy.training.environment import (
    Environment,
    Machine,
    Seeds,
    Threads,
    read_environment,
    read_machine,
    read_threads,
    set_seeds,
)
from davy.training.source import Source, digest_file, read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

ARTIFACT = "capture.json"


class Module(msgspec.Struct, frozen=True):
    """A module that was loaded from outside the project, its repository and the installed packages."""

    name: str
    path: str
    digest: str


class Capture(msgspec.Struct, frozen=True):
    """A run's code, environment, machine, threads and seeds. `digest` covers all but the machine, the thread counts and `outside`."""

    source: Source
    environment: Environment
    machine: Machine
    threads: Threads
    seeds: Seeds
    outside: tuple[Module, ...] = ()
    digest: str = ""

    def sealed(self) -> Capture:
        """This capture with its digest."""
        return msgspec.structs.replace(self, digest=digest_json([self.source.digest, self.environment.digest, self.seeds.seed]))

    def to_json(self) -> bytes:
        """The artifact's bytes, indented for people."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)

    @staticmethod
    def from_json(data: bytes) -> Capture:
        """A capture as `to_json` wrote it; keys of later versions are passed over."""
        return msgspec.json.decode(data, type=Capture)


def capture(root: Path, *, home: Path | None = None, seed: int = 0) -> tuple[Capture, bytes]:
    """Seed the generators and capture the project at `root`; beside the capture, the bytes of its patch or archive."""
    source, stored = read_source(root, home=home)
    seeds = set_seeds(seed)
    taken = Capture(source=source, environment=read_environment(), machine=read_machine(), threads=read_threads(), seeds=seeds)
    return taken.sealed(), stored


def outside_modules(root: Path, modules: Mapping[str, Any] | None = None) -> tuple[Module, ...]:
    """Loaded modules whose file lies neither under `root`, nor in Python's own folders, nor in an installed package.

    Their code is not captured, so each is named with its digest: reproducing can at least tell that it changed.
    """
    own = [root.resolve(), Path(__file__).resolve().parents[1],
           *(Path(path).resolve() for path in {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix})]
    found = []
    for name, module in sorted((modules if modules is not None else dict(sys.modules)).items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name == "__main__" or not file.endswith(".py") or "site-packages" in file:
            continue
        path = Path(os.path.realpath(file))
        if path.exists() and not any(folder in path.parents for folder in own):
            found.append(Module(name, str(path), digest_file(path)))
    return tuple(found)
