"""One prediction, walked back: vector, definitions, time and watermarks, version, run, training set, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.core.time import format_time
from davy.errors import NotFound
from davy.registry.definitions import get_feature_set
from davy.registry.lineage import lineage
from davy.registry.models import get_version
from davy.serving.predictions import PredictionRecord, find_prediction
from davy.web.definitions import describe
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
        try:
            line: dict[str, Any] | None = lineage(connection, get_version(connection, found.model, found.version))
        except NotFound:
            line = None
    return page(request, "prediction.html", project=home.config.project, now=home.clock.now(), found=found, line=line,
                values=vector(found, features), request_fields=_typed(found.request, {field.name: field.kind for field in features.request}),
                entities=_typed(found.entities, {field.name: field.kind for field in features.entities}))


def vector(found: PredictionRecord, features: FeatureSet) -> list[dict[str, Any]]:
    """Value by value: name, kind, what it is, the view and stream behind it, and the stream's watermark."""
    words = describe(features)
    views = {feature.name: view for view in features.views for feature in view.features}
    rows = []
    for name, kind, value in zip(features.outputs, features.kinds, found.values, strict=True):
        view = views.get(name)
        rows.append({"name": name, "kind": kind, "value": _shown(value, kind), "words": words[name], "view": view.name if view else None,
                     "stream": view.stream if view else None, "watermark": found.watermarks.get(view.stream) if view else None})
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
