"""The KPIs of a release's predictions, from the functions that the project declares and the outcomes as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from davy.core.time import EPOCH, MICROSECOND
from davy.errors import ConfigError, nearest
from davy.events.frames import INGEST
from davy.monitoring.outcomes import named_outcomes, outcome_columns, read_served
from davy.monitoring.performance import kpi_value, outputs_of
from davy.project import load_project
from davy.release.evidence import Observation
from davy.release.releases import get_release
from davy.serving.predictions import OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from davy.config import Kpi as Rule
    from davy.home import Home
    from davy.project import ModelDefinition
    from davy.release.releases import Release

MOST_HELD = 10_000
_START = ""


def rules_of(home: Home, model: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """Of davy.toml's [release.kpis] those that this model declares.

    Raises:
        ConfigError: one that no model of the project declares.
    """
    if not rules:
        return {}
    declared = {name: {kpi.name for kpi in definition.kpis} for name, definition in load_project(home.root).models.items()}
    for name in rules:
        if not any(name in names for names in declared.values()):
            known = sorted(set().union(*declared.values()))
            raise ConfigError(f"[release.kpis.{name}] in davy.toml names a KPI that no model declares.", nearest(name, known),
                              "Declare it: @davy.model(..., kpis=[...]), or remove the setting.")
    return {name: rule for name, rule in rules.items() if name in declared.get(model, ())}


class _Counted:
    """What has been given of one release: its predictions whose outcome counted, and outcomes whose prediction is not in a table yet."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.given: set[str] = set()
        self.held: pl.DataFrame | None = None


class Kpis:
    """A source for the judge. Of each prediction the first outcome counts: evidence is not taken back when it is corrected."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._models: Mapping[str, ModelDefinition] | None = None
        self._counted: dict[str, _Counted] = {}

    def observations(self, model: str, release: str, cursor: str) -> tuple[list[Observation], str]:
        """Those that became known since the cursor, in the order in which the outcomes arrived; see `Source`."""
        if cursor == _START:
            with self._home.database.read() as connection:
                self._counted[release] = _Counted(get_release(connection, release))
        counted = self._counted[release]
        definition = self._definition(model) if counted.release.policy.kpis else None
        if definition is None:
            return [], "0"
        events, reached = self._fresh(counted, model, cursor)
        if counted.held is not None:
            events = counted.held if events is None else pl.concat([counted.held, events])
        if events is None or not events.height:
            return [], str(reached)
        return list(self._given(counted, definition, events)), str(reached)

    def _definition(self, model: str) -> ModelDefinition | None:
        if self._models is None:
            self._models = load_project(self._home.root).models
        return self._models.get(model)

    def _fresh(self, counted: _Counted, model: str, cursor: str) -> tuple[pl.DataFrame | None, int]:
        """The outcomes in the table that came after the cursor; from the release's beginning where that can't be told."""
        table = self._home.table(f"outcomes/{model}")
        reached = table.version()
        if reached < 0:
            return None, reached
        additions = table.added(int(cursor)) if cursor != _START else None
        if additions is None:
            begun = pl.col(INGEST) >= EPOCH + counted.release.created * MICROSECOND
            return outcome_columns(table.collect(table.scan().filter(begun))).sort("offset"), reached
        files = [path for addition in additions for path in addition.files]
        if not files:
            return None, reached
        return outcome_columns(pl.concat([table.collect(pl.scan_parquet(path)) for path in files], how="diagonal")).sort("offset"), reached

    def _given(self, counted: _Counted, definition: ModelDefinition, events: pl.DataFrame) -> Iterator[Observation]:
        release = counted.release
        served = read_served(self._home, release.model, start=release.created)
        newest = int(served["time"].max() or 0) if served.height else 0  # type: ignore[arg-type]
        ahead = pl.Series([made_at(name) > newest for name in events["prediction"].to_list()], dtype=pl.Boolean)
        counted.held = events.filter(ahead).tail(MOST_HELD)
        if not served.height:
            return
        named = named_outcomes(events.filter(~ahead), served, definition.spec.outcome.matures_after).sort("offset")
        own = served.filter((pl.col("release") == release.id) & ~pl.col("pinned") & (pl.col("status") == OK) & (pl.col("arm") != "shadow"))
        joined = named.join(own, left_on="id", right_on="prediction", how="inner", maintain_order="left")
        yield from self._observed(counted, definition, joined)

    def _observed(self, counted: _Counted, definition: ModelDefinition, joined: pl.DataFrame) -> Iterable[Observation]:
        kpis = {kpi.name: kpi for kpi in definition.kpis}
        rows = joined.select("id", "version", "share", "routing_key", "time", "value").iter_rows()
        for (prediction, version, share, key, time, outcome), output in zip(rows, outputs_of(joined), strict=True):
            if prediction in counted.given:
                continue
            counted.given.add(prediction)
            for name, rule in counted.release.policy.kpis.items():
                number = kpi_value(kpis[name], output, outcome) if name in kpis else None
                if number is not None:
                    value = float(kpis[name].is_bad(number)) if rule.kind == "event" else number
                    yield Observation(name, counted.release.id, version, share, key, time, value)


def made_at(prediction: str | None) -> int:
    """When the prediction with this id was made, in microseconds: the id begins with its milliseconds. 0 for what is no id."""
    try:
        return int((prediction or "")[:12], 16) * 1000
    except ValueError:
        return 0
