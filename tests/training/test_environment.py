"""The lock of an environment, seeds, threads and the machine."""

from __future__ import annotations

import random
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from davy.training.capture import Capture, capture, outside_modules
from davy.training.environment import read_environment, read_machine, read_threads, set_seeds

if TYPE_CHECKING:
    import pytest


def test_the_lock_names_every_distribution_once_with_its_contents() -> None:
    lock = read_environment()
    packages = {package.name: package for package in lock.packages}
    assert len(packages) == len(lock.packages)
    assert packages["numpy"].version == version("numpy")
    assert (packages["numpy"].contents or "").startswith("sha256:")
    assert lock.python == ".".join(map(str, sys.version_info[:3]))
    assert read_environment() == lock


def test_the_lock_changes_with_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_environment()
    for release in ("1.0", "1.1"):
        folder = tmp_path / release / "thing-1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Thing_X\nVersion: {release}\n")
        (folder / "RECORD").write_text(f"thing.py,sha256={release},1\nthing-1.dist-info/RECORD,,\n../../bin/thing,sha256=x,1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "1.0"))
    first = read_environment()
    monkeypatch.syspath_prepend(str(tmp_path / "1.1"))
    second = read_environment()
    found = [{package.name: package.version for package in lock.packages}.get("thing-x") for lock in (before, first, second)]
    assert found == [None, "1.0", "1.1"]
    assert len({before.digest, first.digest, second.digest}) == 3


def test_seeds_make_the_global_generators_repeat() -> None:
    drawn = []
    for _ in range(2):
        seeds = set_seeds(7)
        drawn.append((random.random(), float(np.random.random())))
    assert drawn[0] == drawn[1]
    assert seeds.seed == 7
    assert {"random", "numpy"} <= set(seeds.seeded)


def test_threads_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert read_threads().variables["OMP_NUM_THREADS"] == "3"
    machine = read_machine()
    assert machine.cores >= machine.usable_cores >= 1
    assert machine.memory > 0


def test_a_capture_survives_its_json(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("A = 1\n")
    taken, stored = capture(tmp_path, seed=3)
    assert Capture.from_json(taken.to_json()) == taken
    assert stored
    (tmp_path / "models.py").write_text("A = 2\n")
    other, _ = capture(tmp_path, seed=3)
    assert other.digest != taken.digest
    assert capture(tmp_path, seed=4)[0].digest != other.digest


def test_code_from_outside_is_named(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    modules = {}
    for folder in (project, elsewhere):
        file = folder / "helper.py"
        file.write_text("x = 1\n")
        module = types.ModuleType(f"{folder.name}_helper")
        module.__file__ = str(file)
        modules[module.__name__] = module
    found = outside_modules(project, {**modules, "json": sys.modules["json"], "numpy": np})
    assert [module.name for module in found] == ["elsewhere_helper"]
    assert found[0].digest.startswith("sha256:")
