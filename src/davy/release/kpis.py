"""Which KPIs a release is judged on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.errors import ConfigError, nearest
from davy.project import load_project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.config import Kpi
    from davy.home import Home


def rules_of(home: Home, model: str, rules: Mapping[str, Kpi]) -> dict[str, Kpi]:
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
