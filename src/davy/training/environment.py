"""What a run ran on: every installed distribution, Python, the platform, threads and the machine."""

from __future__ import annotations

import csv
import json
import os
import platform
import random
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import msgspec

from davy.core.digest import digest_json
from davy.training.git import GitError, git, line

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_PROC_BIND", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS",
                    "LOKY_MAX_CPU_COUNT", "MKL_CBWR", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")


class Package(msgspec.Struct, frozen=True, omit_defaults=True):
    """One installed distribution.

    Attributes:
        contents: digest of the paths and hashes of its files, as its RECORD lists them; the installer's own files are left out.
        editable: the folder that it is installed from, for an editable install, with that folder's commit and whether it was dirty.
    """

    name: str
    version: str
    contents: str | None = None
    editable: str | None = None
    commit: str | None = None
    dirty: bool = False


class Environment(msgspec.Struct, frozen=True):
    """The lock: equal locks mean the same code of every library."""

    python: str
    implementation: str
    platform: str
    libc: str
    packages: tuple[Package, ...]
    digest: str = ""


class Machine(msgspec.Struct, frozen=True):
    """The hardware: processor, the instructions it offers, logical cores, and bytes of memory."""

    processor: str
    flags: tuple[str, ...]
    cores: int
    usable_cores: int
    memory: int


class Threads(msgspec.Struct, frozen=True):
    """The variables that set thread counts, and the counts that the loaded libraries really use (empty without threadpoolctl)."""

    variables: dict[str, str]
    effective: dict[str, int]


class Seeds(msgspec.Struct, frozen=True):
    """What was seeded before training, and PYTHONHASHSEED (`random` where it was not set)."""

    seed: int
    seeded: tuple[str, ...]
    hash_seed: str


def read_environment() -> Environment:
    """The lock of this process's environment, packages in order of their names."""
    found: dict[str, Package] = {}
    for distribution in distributions():
        package = _package(distribution)
        # The first on the path is the one that is imported.
        if package is not None:
            found.setdefault(package.name, package)
    libc = " ".join(part for part in platform.libc_ver() if part)
    body = Environment(python=platform.python_version(), implementation=platform.python_implementation(),
                       platform=f"{platform.system()}-{platform.machine()}".lower(), libc=libc,
                       packages=tuple(found[name] for name in sorted(found)))
    return msgspec.structs.replace(body, digest=digest_json(msgspec.to_builtins(body)))


def _package(distribution: Distribution) -> Package | None:
    name = distribution.metadata["Name"]
    if not name:
        return None
    name = name.lower().replace("_", "-").replace(".", "-")
    origin = _editable(distribution)
    if origin is None:
        return Package(name, distribution.version, contents=_contents(distribution))
    folder = Path(origin)
    commit = line(folder, "rev-parse", "HEAD") if folder.is_dir() else None
    return Package(name, distribution.version, editable=origin, commit=commit, dirty=commit is not None and _dirty(folder))


def _dirty(folder: Path) -> bool:
    try:
        return bool(git(folder, "status", "--porcelain", "--", "."))
    except GitError:
        return False


def _editable(distribution: Distribution) -> str | None:
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    try:
        direct: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    if not direct.get("dir_info", {}).get("editable"):
        return None
    return str(direct.get("url", "")).removeprefix("file://")


def _contents(distribution: Distribution) -> str | None:
    text = distribution.read_text("RECORD")
    if not text:
        return None
    rows = [(row[0], row[1]) for row in csv.reader(text.splitlines()) if len(row) >= 2]
    own = sorted(row for row in rows if row[1] and ".dist-info/" not in row[0] and not row[0].startswith("..") and not row[0].endswith(".pyc"))
    return digest_json(own) if own else None


def read_machine() -> Machine:
    """This machine, from /proc where there is one."""
    processor, flags = platform.processor() or platform.machine(), ""
    information = Path("/proc/cpuinfo")
    if information.exists():
        fields = dict(entry.split(":", 1) for entry in information.read_text(errors="replace").split("\n\n")[0].splitlines() if ":" in entry)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        processor = named.get("model name", processor)
        flags = named.get("flags", named.get("Features", ""))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 0
    return Machine(processor, tuple(sorted(flags.split())), os.cpu_count() or 1, usable, memory)


def read_threads() -> Threads:
    """The thread settings as they are now."""
    variables = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return Threads(variables, {})
    effective: dict[str, int] = {}
    for pool in threadpool_info():
        name = f"{pool.get('internal_api', 'unknown')} {Path(str(pool.get('filepath', ''))).name}".strip()
        effective[name] = int(pool["num_threads"])
    return Threads(variables, dict(sorted(effective.items())))


def set_seeds(seed: int) -> Seeds:
    """Seed the global generators of the standard library and of each library that is loaded."""
    random.seed(seed)
    seeded = ["random"]
    for name, path in (("numpy", "random.seed"), ("torch", "manual_seed"), ("tensorflow", "random.set_seed")):
        target: Any = sys.modules.get(name)
        if target is None:
            continue
        for part in path.split("."):
            target = getattr(target, part)
        target(seed % 2**32)
        seeded.append(name)
    return Seeds(seed, tuple(seeded), os.environ.get("PYTHONHASHSEED", "random"))
