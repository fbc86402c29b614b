"""The example projects that come with Davy, and made-up data for the smallest of them."""

from __future__ import annotations

import math
import random
import shlex
import shutil
from datetime import timedelta
from pathlib import Path

import msgspec

import davy
from davy.core.time import EPOCH
from davy.errors import Conflict

FILES = ("README.md", "davy.toml", "features.py", "models.py")
_DAYS = 60
_CUSTOMERS = 40
_ORDERS = 3_000


def example(name: str) -> Path:
    """The folder of an example: inside the installed package, or beside the sources."""
    package = Path(davy.__file__).parent
    packaged = package / "examples" / name
    return packaged if packaged.exists() else package.parents[1] / "examples" / name


def copy_example(name: str, folder: Path) -> None:
    """Copy an example's files, replacing those of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(example(name) / file, folder / file)


def start_project(folder: Path, *, now: int) -> None:
    """Write the starter project into a new or empty folder, with data that end an hour before `now` (microseconds in UTC).

    Raises:
        Conflict: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        place = folder.resolve()
        beside = shlex.quote(f"{folder}-2" if folder.name not in ("", "..") else str(place.with_name(f"{place.name}-2")))
        raise Conflict(f"{place} holds something already.", "A new project goes into a new or an empty folder.", f"Name another one: davy init {beside}")
    copy_example("starter", folder)
    settings = folder / "davy.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"starter"', msgspec.json.encode(folder.resolve().name).decode()), encoding="utf-8")
    (folder / ".gitignore").write_text(".davy/\n__pycache__/\n", encoding="utf-8")
    _orders(folder / "data", now // 1_000_000 - 3_600)


def _orders(folder: Path, until: int) -> None:
    """Orders and what became of them: those far above a customer's usual amount, and those that follow quickly, come back more often."""
    chance = random.Random(0)
    usual = [chance.lognormvariate(3.5, 0.6) for _ in range(_CUSTOMERS)]
    moments = sorted(until - int(chance.random() * _DAYS * 86_400) for _ in range(_ORDERS))
    orders, questions = ["ordered,order,customer,amount"], ["time,customer,amount,returned"]
    last = [0] * _CUSTOMERS
    for number, moment in enumerate(moments):
        customer = chance.randrange(_CUSTOMERS)
        factor = chance.lognormvariate(0, 0.7)
        amount = round(usual[customer] * factor, 2)
        score = 1.2 * factor + (1.0 if moment - last[customer] < 43_200 else 0.0) - 3.0
        returned = int(chance.random() < 1 / (1 + math.exp(-score)))
        last[customer] = moment
        when = (EPOCH + timedelta(seconds=moment)).strftime("%Y-%m-%dT%H:%M:%SZ")
        orders.append(f"{when},o{number:05d},c{customer:02d},{amount}")
        questions.append(f"{when},c{customer:02d},{amount},{returned}")
    folder.mkdir()
    for name, lines in (("orders", orders), ("questions", questions)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
