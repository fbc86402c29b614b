"""One `.davy/` folder: the whole embedded system, each part opened when it is first asked for."""

from __future__ import annotations

import getpass
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from davy.config import FILE, Config
from davy.core.clock import Clock, DrivenClock, SystemClock
from davy.errors import NotFound

if TYPE_CHECKING:
    from davy.engines.online.base import OnlineStore
    from davy.store.blobs import Blobs
    from davy.store.database import Database
    from davy.store.tables import Table

CLOCK_FILE = "run/clock"


class Home:
    """The open home of a project.

    Attributes:
        root: the project's folder (davy.toml, features.py, models.py).
        path: the `.davy` folder.
        clock: the machine's, unless the home is driven (a `run/clock` file exists, as tests and the demo make it).
    """

    def __init__(self, root: Path, *, path: Path | None = None, clock: Clock | None = None) -> None:
        self.root = root.resolve()
        self.config = Config.load(self.root)
        self.path = (path or self.root / self.config.storage.home).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self._actor: str | None = None
        driven = self.path / CLOCK_FILE
        self.clock: Clock = clock or (DrivenClock(driven) if driven.exists() else SystemClock())

    @classmethod
    def open(cls, start: Path | None = None, *, home: Path | None = None) -> Home:
        """The home of the project that `start` (default: the working directory) lies in.

        Raises:
            NotFound: no davy.toml there or in any folder above.
        """
        begin = (start or Path.cwd()).resolve()
        for folder in (begin, *begin.parents):
            if (folder / FILE).exists():
                return cls(folder, path=home)
        raise NotFound(f"There is no {FILE} in {begin} or above it.", "A project is a folder with a davy.toml.",
                       "Go to your project's folder, or make one: davy init DIR")

    def place(self, *parts: str) -> Path:
        """A path inside the `.davy` folder; its parent folder exists afterwards."""
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def database(self) -> Database:
        """The metadata database, migrated to this version's schema."""
        from davy.schema import open_database

        return open_database(self.config.storage.database or self.place("davy.db"), folder=self.path)

    @cached_property
    def blobs(self) -> Blobs:
        """Artifacts and model files, by digest."""
        from davy.store.blobs import Blobs

        storage = self.config.storage
        return Blobs(storage.blobs or f"file://{self.place('blobs')}", options=storage.options, spool=self.path / "run" / "spool")

    @cached_property
    def online(self) -> OnlineStore:
        """The online feature state."""
        from davy.engines.online.lmdb import LmdbStore

        return LmdbStore(self.place("online"))

    def table(self, name: str) -> Table:
        """The Delta table of that name, such as `events/flights`."""
        from davy.store.tables import Table

        base = self.config.storage.tables or str(self.place("tables"))
        return Table(f"{base}/{name}")

    @property
    def actor(self) -> str:
        """Who acts, for the journal: who was identified, or DAVY_ACTOR, or the operating system's user."""
        if self._actor is not None:
            return self._actor
        return actor()

    def act_as(self, name: str) -> None:
        """What is done from now on is done by this user, whose identity the caller has checked."""
        self._actor = name

    def close(self) -> None:
        """Close what was opened."""
        for name in ("database", "online"):
            part = self.__dict__.pop(name, None)
            if part is not None:
                part.close()


def actor() -> str:
    """Who acts: DAVY_ACTOR, or the operating system's user."""
    return os.environ.get("DAVY_ACTOR") or getpass.getuser()
