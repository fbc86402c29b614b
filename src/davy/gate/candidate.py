"""What a check is given: the version under judgement, stable beside it, and whatever it asks for, made when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.errors import NotEnoughData
from davy.gate import rows
from davy.gate.stand import Stand
from davy.project import load_project
from davy.registry.adopt import adopt
from davy.registry.definitions import get_feature_set
from davy.registry.models import ModelVersion, get_version
from davy.serving.assignment import arms
from davy.serving.predictions import read_predictions
from davy.serving.traffic import read_traffic

if TYPE_CHECKING:
    from davy.features.definition import FeatureSet
    from davy.home import Home
    from davy.project import Project
    from davy.registry.signature import Signature

SAMPLES = 100


class Candidate:
    """A version under judgement.

    Attributes:
        version: the version itself.
        stable: the version that has most of the traffic now; None when there is none, or it is this one.
        settings: `[gate]` of davy.toml.
        alone: why there is no stable version to compare with, as half a sentence.
        shared: what one check measured and another reads too.

    What is not there raises `NotEnoughData`, which becomes the check's verdict.
    """

    def __init__(self, home: Home, reference: str) -> None:
        self.home, self.settings = home, home.config.gate
        self.version = adopt(home, reference)
        with home.database.read() as connection:
            self.stable, self.alone = _stable(connection, self.version)
        self._feature_sets: dict[str, FeatureSet] = {}
        self._stand: Stand | None = None
        self.shared: dict[str, Any] = {}

    @property
    def model(self) -> str:
        """The model's name."""
        return self.version.name

    @property
    def signature(self) -> Signature:
        """What goes into the candidate and what comes out."""
        assert self.version.signature is not None
        return self.version.signature

    @property
    def both(self) -> list[ModelVersion]:
        """The candidate, and stable where there is one."""
        return [self.version] if self.stable is None else [self.version, self.stable]

    @cached_property
    def project(self) -> Project:
        """The user's definitions as they are now."""
        return load_project(self.home.root)

    def feature_set(self, version: ModelVersion) -> FeatureSet:
        """The definitions that a version was trained on."""
        digest = str(version.feature_set)
        if digest not in self._feature_sets:
            with self.home.database.read() as connection:
                self._feature_sets[digest] = get_feature_set(connection, digest)
        return self._feature_sets[digest]

    @property
    def stand(self) -> Stand:
        """Real workers and a real gateway, aside from those that serve."""
        if self._stand is None:
            self._stand = Stand(self.home, self.model)
        return self._stand

    def warm_up(self) -> None:
        """Let the versions be loaded while other things are done."""
        for version in self.both:
            self.stand.start(version.version)

    @cached_property
    def held_out(self) -> rows.Rows:
        """Rows with known outcomes that the candidate has not learned from."""
        return rows.held_out(self)

    @cached_property
    def training_rows(self) -> rows.Rows:
        """The rows that the candidate has learned from."""
        return rows.training_rows(self)

    @cached_property
    def logged(self) -> rows.Logged:
        """The last `[gate] requests` logged requests of the model, whichever version answered."""
        times = np.sort(rows.logged_times(self.home, self.model))
        if not len(times):
            raise NotEnoughData(f"No request to {self.model} has been logged yet.")
        found = read_predictions(self.home, self.model, start=int(times[-self.settings.requests :][0]))
        return rows.Logged(self, {digest: frame.tail(self.settings.requests) for digest, frame in found.items()})

    @cached_property
    def sample(self) -> np.ndarray:
        """Up to a hundred rows as the candidate is asked with them: held-out ones, else learned ones, else what stands in; shape (rows, columns)."""
        return self.sample_for(self.version)

    def sample_for(self, version: ModelVersion) -> np.ndarray:
        """The same rows as another version is asked with them."""
        known = self._known_rows
        if known is None:
            return rows.encoded(version, self._stand_in(version))
        picked = np.linspace(0, len(known) - 1, min(SAMPLES, len(known))).astype(int)
        return rows.encoded(version, known.features(version)[picked.tolist()])

    @cached_property
    def requests(self) -> list[dict[str, Any]]:
        """Requests as clients would send them, with the candidate's entity keys and request fields."""
        wanted, known = self.feature_set(self.version), self._known_rows
        if known is None:
            fields = [field.name for field in (*wanted.entities, *wanted.request)]
            known_values = self._stand_in(self.version)
            return known_values.select(pl.col(name) if name in known_values.columns else pl.lit(None).alias(name) for name in fields).to_dicts()
        return rows.bodies(known.frame, wanted, SAMPLES)

    @cached_property
    def _known_rows(self) -> rows.Rows | None:
        for name in ("held_out", "training_rows"):
            try:
                found: rows.Rows = getattr(self, name)
                return found
            except NotEnoughData:
                continue
        return None

    def _stand_in(self, version: ModelVersion) -> pl.DataFrame:
        return rows.stand_in(self.home, version, self.feature_set(version)).head(SAMPLES)

    def close(self) -> None:
        """End the stand's processes."""
        if self._stand is not None:
            self._stand.close()


def _stable(connection: Any, version: ModelVersion) -> tuple[ModelVersion | None, str]:
    """The stable version beside this one, or why there is none."""
    found = read_traffic(connection, version.name)
    named = [number for number, arm in arms(found[0].versions).items() if arm == "stable"] if found else []
    if not named:
        return None, "no version is stable yet"
    if named[0] == version.version:
        return None, "it is the stable version itself"
    return get_version(connection, version.name, named[0]), ""
