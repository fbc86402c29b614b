"""One prediction, walked back: vector, definitions, time and watermarks, version, run, training set, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.core.time import format_time
from davy.errors import NotFound
from davy.features.describe import describe
from davy.features.evidence import Evidence, evidence
from davy.gate.record import standing
from davy.registry.definitions import get_feature_set
from davy.registry.lineage import lineage
from davy.registry.models import get_version
from davy.release.status import behind as release_behind
from davy.serving.predictions import PredictionRecord, find_prediction
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.features.definition import FeatureSet
    from davy.home import Home


def prediction(home: Home, request: Request) -> Response:
    """`/predictions/ID`."""
    found = find_prediction(home, request.path_params["prediction"])
    with home.database.read() as connection:
        features = get_feature_set(connection, found.feature_set)
        release = release_behind(connection, found.model, found.version, found.release, found.logged)
        gate = standing(connection, found.model, found.version)
        try:
            line: dict[str, Any] | None = lineage(connection, get_version(connection, found.model, found.version))
        except NotFound:
            line = None
    behind = evidence(home, features, found.entities, at=found.time, watermarks=found.watermarks)
    return page(request, "prediction.html", project=home.config.project, now=home.clock.now(), found=found, line=line, release=release, standing=gate,
                routing_key=" · ".join(found.routing_key.split("\x1f")),
                values=vector(found, features, behind), request_fields=_typed(found.request, {field.name: field.kind for field in features.request}),
                entities=_typed(found.entities, {field.name: field.kind for field in features.entities}))


def vector(found: PredictionRecord, features: FeatureSet, behind: dict[str, Evidence]) -> list[dict[str, Any]]:
    """Value by value: name, kind, what it is, and the events behind it."""
    words = describe(features)
    rows = []
    for name, kind, value in zip(features.outputs, features.kinds, found.values, strict=True):
        rows.append({"name": name, "kind": kind, "value": _shown(value, kind), "words": words[name], "behind": behind.get(name)})
    return rows


def _typed(values: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
    return {name: _shown(value, kinds.get(name, "")) for name, value in values.items()}


def _shown(value: Any, kind: str) -> Any:
    """The value as it is, not rounded: what is shown must be what was served."""
    if value is None:
        return None
    if kind == "time" and isinstance(value, int):
        return format_time(value)
    return repr(value) if isinstance(value, float) else value
