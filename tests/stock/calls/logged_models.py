"""Logged models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stock_kit import Pair


KEYS = "keys of logged models"
KNOWN = {
    "status = 'READY'": "status of logged models",
    "status = 'PENDING'": "status of logged models",
    "status != 'READY'": "status of logged models",
    "nothing = 'x'": "another reason",
    "source_run_id != '$msource'": "nothing is not something else",
}


def _ready(pair: Pair) -> None:
    if "models" in pair.stock.names:
        return
    pair.post("experiments/create", {"name": "models"}, keep={"models": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$models", "run_name": "maker", "start_time": 1}, keep={"maker": "run.info.run_id"})


def life_of_a_logged_model(pair: Pair) -> None:
    _ready(pair)
    pair.post(
        "logged-models",
        {
            "experiment_id": "$models",
            "name": "tree",
            "model_type": "classifier",
            "source_run_id": "$maker",
            "params": [{"key": "depth", "value": "3"}, {"key": "long", "value": "v" * 6000}],
            "tags": [{"key": "a", "value": "1"}, {"key": "empty", "value": ""}],
        },
        keep={"tree": "model.info.model_id"},
    )
    pair.get("logged-models/$tree")
    for status in ("READY", "x", 9, None, "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_PENDING", 2):
        pair.ask("PATCH", "logged-models/$tree", {"model_id": "$tree", "status": status}, known="mistyped fields" if status in ("READY", "x", 9) else None)
    pair.get("logged-models/$tree")
    for tags, known in (
        ([{"key": "a", "value": "2"}, {"key": "b", "value": "3"}], None),
        ([], None),
        ([{"key": "", "value": "x"}], KEYS),
        ([{"key": "k" * 251, "value": "x"}], KEYS),
        ([{"key": "n"}], None),
        ("x", None),
    ):
        pair.ask("PATCH", "logged-models/$tree/tags", {"model_id": "$tree", "tags": tags}, known=known)
    pair.ask("DELETE", "logged-models/$tree/tags/a")
    pair.ask("DELETE", "logged-models/$tree/tags/a")
    pair.ask("DELETE", "logged-models/$tree/tags/nothing")
    for params, known in (
        ([{"key": "width", "value": "4"}], None),
        ([{"key": "width", "value": "4"}], "links that are there"),
        ([{"key": "width", "value": "5"}], KEYS),
        ([], None),
        ([{"key": "k" * 251, "value": "x"}], KEYS),
        ("x", None),
    ):
        pair.post("logged-models/$tree/params", {"model_id": "$tree", "params": params}, known=known)
    pair.get("logged-models/$tree", known=KEYS)
    for body in (
        {"key": "auc", "value": 0.75, "timestamp": 5, "step": 1},
        {"key": "auc", "value": 0.5, "timestamp": 4, "step": 0},
        {"key": "auc", "value": 0.9, "timestamp": 6, "step": 1, "dataset_name": "test", "dataset_digest": "d1"},
    ):
        pair.post("runs/log-metric", {"run_id": "$maker", "model_id": "$tree", **body})
    pair.post("runs/log-metric", {"run_id": "$maker", "model_id": "m-nothing", "key": "x", "value": 1, "timestamp": 5}, known="links to no model")
    pair.post("runs/log-batch", {"run_id": "$maker", "metrics": [{"key": "f1", "value": 0.25, "timestamp": 5, "step": 2, "model_id": "$tree"}]})
    pair.get("logged-models/$tree", known=KEYS)
    pair.get("runs/get", run_id="$maker")
    pair.get("logged-models/$tree/artifacts/directories")
    pair.get("logged-models/$tree/artifacts/directories", artifact_directory_path="nothing")
    pair.get("logged-models/$tree/artifacts/directories", artifact_directory_path="../..")
    pair.get("logged-models/m-nothing/artifacts/directories")
    pair.ask("DELETE", "logged-models/$tree")
    pair.get("logged-models/$tree")
    pair.ask("DELETE", "logged-models/$tree")
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"model_id": "m-nothing", "status": "LOGGED_MODEL_READY"}),
        ("DELETE", "", None),
        ("PATCH", "/tags", {"model_id": "m-nothing", "tags": [{"key": "a", "value": "b"}]}),
        ("DELETE", "/tags/a", None),
        ("POST", "/params", {"model_id": "m-nothing", "params": [{"key": "a", "value": "b"}]}),
    ):
        pair.ask(method, f"logged-models/m-nothing{path}", body)


def bad_logged_models(pair: Pair) -> None:
    _ready(pair)
    for body in (
        {},
        {"experiment_id": "99999"},
        {"experiment_id": "abc"},
        {"experiment_id": "$models", "name": "a/b"},
        {"experiment_id": "$models", "name": "a:b"},
        {"experiment_id": "$models", "name": "a.b"},
        {"experiment_id": "$models", "name": "a%b"},
        {"experiment_id": "$models", "name": "a'b"},
        {"experiment_id": "$models", "name": 'a"b'},
        {"experiment_id": "$models", "name": "ok", "source_run_id": "nobody"},
        {"experiment_id": "$models", "name": 5},
        {"experiment_id": "$models", "name": "n" * 500},
        {"experiment_id": "$models", "name": "p", "params": [{"key": "k" * 251, "value": "v"}], "known": "keys of logged models"},
        {"experiment_id": "$models", "name": "p", "params": [{"key": "k", "value": "1"}, {"key": "k", "value": "1"}], "known": "keys of logged models"},
        {"experiment_id": "$models", "name": "t", "tags": [{"key": "", "value": "v"}], "known": "keys of logged models"},
        {"experiment_id": "$models", "name": "ünï cödé", "tags": "x"},
    ):
        pair.post("logged-models", body, keep={"odd": "model.info.model_id"})
    pair.post("logged-models", {"experiment_id": "$models"}, keep={"nameless": "model.info.model_id"})
    pair.post("logged-models", {"experiment_id": "$models", "name": ""}, keep={"emptyname": "model.info.model_id"})


def searches_for_logged_models(pair: Pair) -> None:
    pair.post("experiments/create", {"name": "model search"}, keep={"msearch": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$msearch", "run_name": "source", "start_time": 1}, keep={"msource": "run.info.run_id"})
    for number in range(6):
        pair.post(
            "logged-models",
            {
                "experiment_id": "$msearch",
                "name": f"m{number}",
                "model_type": "tree" if number % 2 else "Forest",
                "source_run_id": "$msource" if number < 3 else None,
                "params": [{"key": "depth", "value": str(number)}],
                "tags": [{"key": "team", "value": "air" if number < 4 else "sea"}],
            },
            keep={f"ms{number}": "model.info.model_id"},
        )
        if number != 5:
            pair.post(
                "runs/log-metric",
                {
                    "run_id": "$msource",
                    "key": "auc",
                    "value": number / 8,
                    "timestamp": 1,
                    "step": 0,
                    "model_id": f"$ms{number}",
                    **({"dataset_name": "test", "dataset_digest": "d1"} if number % 2 else {}),
                },
            )
        if number == 4:
            pair.ask("PATCH", "logged-models/$ms4", {"model_id": "$ms4", "status": "LOGGED_MODEL_READY"})
    by_name = [{"field_name": "name", "ascending": True}]
    base: dict[str, Any] = {"experiment_ids": ["$msearch"], "order_by": by_name}
    for condition in (
        "",
        "name = 'm1'",
        "name != 'm1'",
        "name LIKE 'm%'",
        "name ILIKE 'M1'",
        "name IN ('m1', 'm2')",
        "name NOT IN ('m1', 'm2')",
        "model_id = '$ms3'",
        "model_type = 'tree'",
        "model_type ILIKE 'forest'",
        "status = 'READY'",
        "status = 'PENDING'",
        "status != 'READY'",
        "source_run_id = '$msource'",
        "source_run_id != '$msource'",
        "experiment_id = '$msearch'",
        "creation_timestamp > 0",
        "creation_time > 5",
        "last_updated_timestamp < 5",
        "attributes.name = 'm1'",
        "metrics.auc > 0.2",
        "metrics.auc <= 0.25",
        "metrics.auc != 0.25",
        "params.depth = '3'",
        "params.depth != '3'",
        "params.depth LIKE '%'",
        "tags.team = 'air'",
        "tags.team != 'air'",
        "tags.`team` ILIKE 'SEA'",
        "tags.team IN ('air')",
        "metrics.auc > 0.1 AND tags.team = 'air' AND name LIKE 'm%'",
        "name",
        "name = 5",
        "name > 'a'",
        "nothing = 'x'",
        "metrics.auc > 'x'",
        "metrics.auc LIKE 5",
        "params.depth > '1'",
        "creation_timestamp = 'x'",
        "tags.team = air",
        "nothing.x = 'y'",
    ):
        pair.post("logged-models/search", {**base, "filter": condition}, known=KNOWN.get(condition))
    pair.post("logged-models/search", {**base, "filter": "name = 'm1' OR name = 'm2'"}, known="a filter beyond stock's")
    for datasets in (
        [{"dataset_name": "test", "known": 1}],
        [{"dataset_name": "test", "dataset_digest": "d1"}],
        [{"dataset_name": "test", "dataset_digest": "d9"}],
        [{"dataset_name": "nothing"}],
        [{}],
        [{"dataset_digest": "d1"}],
    ):
        named = [{name: value for name, value in item.items() if name != "known"} for item in datasets]
        known = "datasets by name" if datasets != named else None
        pair.post("logged-models/search", {**base, "filter": "metrics.auc > 0.1", "datasets": named}, known=known)
        pair.post("logged-models/search", {**base, "datasets": named}, known=known)
    for order in (
        [],
        [{"field_name": "name", "ascending": False}],
        [{"field_name": "creation_timestamp"}],
        [{"field_name": "metrics.auc", "ascending": False}],
        [{"field_name": "metrics.auc"}],
        [{"field_name": "metrics.auc", "dataset_name": "test"}],
        [{"field_name": "metrics.auc", "dataset_name": "test", "dataset_digest": "d1", "ascending": False}],
        [{"field_name": "params.depth"}],
        [{"field_name": "tags.team"}],
        [{"field_name": "nothing"}],
        [{"field_name": "name", "dataset_name": "test"}],
        "name",
    ):
        pair.post("logged-models/search", {**base, "order_by": order})
    for order, known in (
        ([{}], "another reason"),
        ([{"field_name": "metrics.auc", "dataset_digest": "d1"}], "a digest without a name"),
        (["name"], "mistyped fields"),
    ):
        pair.post("logged-models/search", {**base, "order_by": order}, known=known)
    pair.walk("logged-models/search", "models", {**base, "max_results": 2})
    pair.walk("logged-models/search", "models", {**base, "max_results": 3, "filter": "tags.team = 'air'"})
    for body in (
        {"max_results": 0},
        {"max_results": -1, "known": "page sizes"},
        {"max_results": "x"},
        {"max_results": 100000, "known": "page sizes"},
        {"page_token": "bad"},
        {"experiment_ids": []},
        {"experiment_ids": ["99999"]},
        {"experiment_ids": "x"},
    ):
        pair.post("logged-models/search", {**base, **body})
    pair.post("logged-models/search", {})


SCRIPTS = (life_of_a_logged_model, bad_logged_models, searches_for_logged_models)
