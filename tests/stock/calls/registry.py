"""Registered models, their versions, aliases and stages, and the prompts that live on the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_kit import Pair

MODEL, VERSION = "registered-models", "model-versions"
OTHER, SIZES = "another reason", "page sizes"
KNOWN = {"nothing = 'x'": OTHER}
KNOWN_OF_VERSIONS = {"nothing = 'x'": OTHER, "name = 5": OTHER, "run_id NOT IN ('$searcher') AND name ILIKE 'find-%'": "nothing is not something else"}


def registered_models(pair: Pair) -> None:
    pair.post(f"{MODEL}/create", {"name": "late", "description": "How late?", "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": ""}]})
    pair.get(f"{MODEL}/get", name="late")
    pair.post(f"{MODEL}/create", {"name": "late"})
    for body in (
        {},
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"name": "a/b"},
        {"name": "a:b"},
        {"name": "../x"},
        {"name": ".."},
        {"name": "n" * 256},
        {"name": "x", "tags": "y"},
        {"name": "x", "tags": [{"key": "k" * 251, "value": "v"}]},
        {"name": "x", "tags": [{"key": "", "value": "v"}]},
        {"name": "x", "description": 5},
    ):
        pair.post(f"{MODEL}/create", body)
    pair.post(f"{MODEL}/create", {"name": "ünï cödé 日本 %20"})
    pair.get(f"{MODEL}/get", name="ünï cödé 日本 %20")
    for query in ({}, {"name": ""}, {"name": "nothing"}, {"name": "a/b"}):
        pair.get(f"{MODEL}/get", **query)
    for body in ({"description": "Later"}, {"description": ""}, {}, {"description": None}, {"description": 5}):
        pair.ask("PATCH", f"{MODEL}/update", {"name": "late", **body})
    pair.ask("PATCH", f"{MODEL}/update", {"name": "nothing", "description": "x"})
    pair.ask("PATCH", f"{MODEL}/update", {"description": "x"})
    pair.get(f"{MODEL}/get", name="late")
    for body in (
        {"key": "a", "value": "2"},
        {"key": "c", "value": ""},
        {"key": "d"},
        {"value": "x"},
        {"key": "", "value": "x"},
        {"key": "k" * 251, "value": "x"},
        {"key": "long", "value": "v" * 100001},
        {"key": "n", "value": 5},
    ):
        pair.post(f"{MODEL}/set-tag", {"name": "late", **body})
    pair.post(f"{MODEL}/set-tag", {"name": "nothing", "key": "a", "value": "b"})
    for body in ({"key": "a"}, {"key": "a"}, {"key": "nothing"}, {}, {"key": ""}):
        pair.ask("DELETE", f"{MODEL}/delete-tag", {"name": "late", **body})
    pair.ask("DELETE", f"{MODEL}/delete-tag", {"name": "nothing", "key": "a"})
    pair.get(f"{MODEL}/get", name="late")
    for body in ({"new_name": "later"}, {"new_name": "x"}, {}, {"new_name": ""}):
        pair.post(f"{MODEL}/rename", {"name": "late", **body})
    pair.post(f"{MODEL}/create", {"name": "taken"})
    for new_name in ("taken", "a/b", "later", 5):
        pair.post(f"{MODEL}/rename", {"name": "later", "new_name": new_name})
    pair.get(f"{MODEL}/get", name="late")
    pair.get(f"{MODEL}/get", name="later")
    pair.ask("DELETE", f"{MODEL}/delete", {"name": "taken"})
    pair.ask("DELETE", f"{MODEL}/delete", {"name": "taken"})
    pair.ask("DELETE", f"{MODEL}/delete", {})
    pair.get(f"{MODEL}/get", name="taken")
    pair.post(f"{MODEL}/create", {"name": "taken"})


def versions_and_aliases(pair: Pair) -> None:
    pair.post("experiments/create", {"name": "registry"}, keep={"registry": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$registry", "run_name": "trainer", "start_time": 1}, keep={"trainer": "run.info.run_id"})
    pair.post(
        "logged-models",
        {"experiment_id": "$registry", "name": "lm", "source_run_id": "$trainer", "params": [{"key": "depth", "value": "3"}]},
        keep={"lm": "model.info.model_id"},
    )
    pair.ask("PATCH", "logged-models/$lm", {"model_id": "$lm", "status": "LOGGED_MODEL_READY"})
    pair.post("runs/log-metric", {"run_id": "$trainer", "key": "auc", "value": 0.5, "timestamp": 1, "model_id": "$lm"})
    pair.post(f"{MODEL}/create", {"name": "flights"})
    for body in (
        {
            "source": "mlflow-artifacts:/$registry/$trainer/artifacts/model",
            "run_id": "$trainer",
            "tags": [{"key": "t", "value": "1"}],
            "run_link": "http://x/y",
            "description": "first",
        },
        {"source": "models:/$lm", "run_id": "$trainer", "model_id": "$lm"},
        {"source": "models:/$lm"},
        {"source": "s3://bucket/x"},
        {"source": "http://example.com/model"},
        {"source": "models:/flights/1"},
        {"source": "runs:/$trainer/model", "run_id": "$trainer"},
    ):
        pair.post(f"{VERSION}/create", {"name": "flights", **body})
    for body in (
        {},
        {"name": "flights"},
        {"source": "s3://x/y"},
        {"name": "nothing", "source": "s3://x/y"},
        {"name": "flights", "source": ""},
        {"name": "flights", "source": 5},
        {"name": "flights", "source": "/etc"},
        {"name": "flights", "source": "file:///etc"},
        {"name": "flights", "source": "file:///etc", "run_id": "$trainer"},
        {"name": "flights", "source": "../x"},
        {"name": "flights", "source": "models:/nothing/1"},
        {"name": "flights", "source": "models:/flights/99"},
        {"name": "flights", "source": "models:/flights@nobody"},
        {"name": "flights", "source": "models:/m-nothing"},
        {"name": "flights", "source": "mlflow-artifacts:/../../x"},
        {"name": "flights", "source": "mlflow-artifacts:/a/%2e%2e/%2e%2e/x"},
        {"name": "flights", "source": "s3://b/../../x"},
        {"name": "flights", "source": "http://x/%2e%2e/y"},
        {"name": "flights", "source": "s3://x/y", "tags": [{"key": "k" * 251, "value": "v"}]},
        {"name": "flights", "source": "s3://x/y", "run_id": "nobody"},
        {"name": "flights", "source": "s3://x/y", "model_id": "m-nothing"},
    ):
        pair.post(f"{VERSION}/create", body)
    for query in (
        {"name": "flights", "version": "1"},
        {"name": "flights", "version": "2"},
        {"name": "flights", "version": "6"},
        {"name": "flights", "version": "99"},
        {"name": "nothing", "version": "1"},
        {"name": "flights", "version": "x"},
        {"name": "flights"},
        {"version": "1"},
        {"name": "flights", "version": ""},
    ):
        pair.get(f"{VERSION}/get", **query)
        pair.get(f"{VERSION}/get-download-uri", **query)
    for body in ({"description": "d"}, {"description": ""}, {}, {"description": 5}):
        pair.ask("PATCH", f"{VERSION}/update", {"name": "flights", "version": "1", **body})
    pair.ask("PATCH", f"{VERSION}/update", {"name": "flights", "version": "99", "description": "x"})
    for body in ({"key": "a", "value": "2"}, {"key": "c", "value": ""}, {"key": "d"}, {"value": "x"}, {"key": "k" * 251, "value": "x"}):
        pair.post(f"{VERSION}/set-tag", {"name": "flights", "version": "1", **body})
    pair.post(f"{VERSION}/set-tag", {"name": "flights", "version": "99", "key": "a", "value": "b"})
    for body in ({"key": "a"}, {"key": "a"}, {"key": "nothing"}, {}):
        pair.ask("DELETE", f"{VERSION}/delete-tag", {"name": "flights", "version": "1", **body})
    pair.get(f"{VERSION}/get", name="flights", version="1")
    alias = f"{MODEL}/alias"
    for name, version in (
        ("champion", "1"),
        ("champion", "2"),
        ("second", "2"),
        ("Champion", "1"),
        ("champion", "99"),
        ("latest", "1"),
        ("LATEST", "1"),
        ("v1", "1"),
        ("V22", "1"),
        ("v1x", "1"),
        ("a b", "1"),
        ("a/b", "1"),
        ("ünï", "1"),
        ("a" * 255, "1"),
        ("a" * 256, "1"),
        ("", "1"),
        ("x", ""),
        ("x", "abc"),
        (5, "1"),
    ):
        pair.post(alias, {"name": "flights", "alias": name, "version": version})
    pair.post(alias, {"name": "nothing", "alias": "x", "version": "1"})
    pair.post(alias, {"name": "flights", "alias": "x"})
    for query in (
        {"name": "flights", "alias": "champion"},
        {"name": "flights", "alias": "CHAMPION"},
        {"name": "flights", "alias": "latest"},
        {"name": "flights", "alias": "nobody"},
        {"name": "nothing", "alias": "x"},
        {"name": "flights"},
        {"alias": "champion"},
    ):
        pair.get(alias, **query)
    pair.get(f"{MODEL}/get", name="flights")
    for body in ({"alias": "second"}, {"alias": "second"}, {"alias": "nobody"}, {}):
        pair.ask("DELETE", alias, {"name": "flights", **body})
    pair.ask("DELETE", f"{VERSION}/delete", {"name": "flights", "version": "2"})
    pair.get(alias, name="flights", alias="champion")
    pair.ask("DELETE", f"{VERSION}/delete", {"name": "flights", "version": "2"})
    pair.ask("DELETE", f"{VERSION}/delete", {"name": "flights", "version": "7"})
    pair.post(f"{VERSION}/create", {"name": "flights", "source": "s3://bucket/again"})
    pair.get(f"{VERSION}/get", name="flights", version="2")
    pair.get(f"{MODEL}/get", name="flights")
    pair.post(f"{MODEL}/rename", {"name": "flights", "new_name": "flights renamed"})
    pair.get(f"{VERSION}/get", name="flights", version="1")
    pair.get(f"{VERSION}/get", name="flights renamed", version="1")
    pair.get(f"{MODEL}/get", name="flights renamed")
    pair.get("logged-models/$lm")
    pair.ask("DELETE", f"{MODEL}/delete", {"name": "flights renamed"})
    pair.get(f"{VERSION}/get", name="flights renamed", version="1")


def stages(pair: Pair) -> None:
    pair.post(f"{MODEL}/create", {"name": "staged"})
    for number in range(1, 5):
        pair.post(f"{VERSION}/create", {"name": "staged", "source": f"s3://bucket/{number}"})
    move = f"{VERSION}/transition-stage"
    for version, stage, archive in (
        ("1", "Staging", False),
        ("2", "staging", False),
        ("3", "PRODUCTION", True),
        ("2", "Production", True),
        ("4", "Archived", False),
        ("1", "None", False),
        ("1", "Nowhere", False),
        ("1", "Archived", True),
        ("4", "None", True),
        ("9", "Staging", False),
        ("1", "", False),
        ("1", 5, False),
        ("4", "Staging", "yes"),
        ("3", "Staging", True),
    ):
        pair.post(move, {"name": "staged", "version": version, "stage": stage, "archive_existing_versions": archive})
        pair.get(f"{MODEL}/get", name="staged")
    pair.post(move, {"name": "staged", "version": "1", "stage": "Staging"})
    pair.post(move, {"name": "staged", "version": "1"})
    pair.post(move, {"name": "nothing", "version": "1", "stage": "Staging"})
    for body in ({}, {"stages": ["Staging"]}, {"stages": ["production", "NONE"]}, {"stages": ["Nowhere"]}, {"stages": []}, {"stages": "Staging"}):
        pair.post(f"{MODEL}/get-latest-versions", {"name": "staged", **body})
    pair.get(f"{MODEL}/get-latest-versions", name="staged", stages=["Staging", "None"])
    pair.post(f"{MODEL}/get-latest-versions", {"name": "nothing"})
    pair.post(f"{MODEL}/get-latest-versions", {})


def searches_for_models(pair: Pair) -> None:
    pair.post("runs/create", {"experiment_id": "0", "run_name": "searched", "start_time": 1}, keep={"searcher": "run.info.run_id"})
    for number in range(5):
        pair.post(
            f"{MODEL}/create",
            {
                "name": f"find-{number}" if number % 2 else f"Find-{number}",
                "tags": [{"key": "team", "value": "air" if number < 3 else "sea"}, {"key": "n", "value": str(number)}],
            },
        )
    for number in range(4):
        pair.post(
            f"{VERSION}/create",
            {
                "name": "find-1" if number < 3 else "find-3",
                "source": f"s3://bucket/{number}",
                "run_id": "$searcher" if number % 2 else None,
                "tags": [{"key": "kind", "value": f"k{number % 2}"}],
            },
        )
    within = "name ILIKE 'find-%'"
    for condition in (
        within,
        "name LIKE 'find-%'",
        "name = 'find-1'",
        f"name != 'find-1' AND {within}",
        f"tags.team = 'air' AND {within}",
        f"tags.team != 'air' AND {within}",
        "tags.team = 'air' AND tags.n = '1'",
        "tags.team LIKE 's%'",
        "tags.`team` ILIKE 'SEA'",
        "tag.team = 'air'",
        'name = "find-1"',
        "name IN ('find-1', 'find-3')",
        "name = 'nobody'",
        "name = 5",
        "name > 'a'",
        "name",
        "nothing = 'x'",
        "tags.team > 'a'",
        "tags.team = 5",
        "name = 'unclosed",
        "metrics.a > 5",
        "run_id = 'x'",
    ):
        pair.get(f"{MODEL}/search", filter=condition, max_results=100, known=KNOWN.get(condition))
    pair.get(f"{MODEL}/search", filter="name = 'find-1' OR name = 'find-3'", known="a filter beyond stock's")
    for order in (["name"], ["name DESC"], ["name ASC", "timestamp DESC"], ["nothing"], ["name UP"]):
        pair.get(f"{MODEL}/search", filter=within, order_by=order, known=OTHER if order == ["nothing"] else None)
    pair.walk(f"{MODEL}/search", "registered_models", {"filter": within, "max_results": 2}, method="GET")
    for query in (
        {"max_results": 0, "known": SIZES},
        {"max_results": -1, "known": SIZES},
        {"max_results": 1001, "known": SIZES},
        {"max_results": "x"},
        {"page_token": "bad"},
    ):
        pair.get(f"{MODEL}/search", **query)
    versions = "name ILIKE 'find-%'"
    for condition in (
        versions,
        "name = 'find-1'",
        "name LIKE 'find%'",
        "run_id = '$searcher'",
        "run_id IN ('$searcher', 'x')",
        f"run_id NOT IN ('$searcher') AND {versions}",
        "source_path = 's3://bucket/1'",
        "source_path LIKE 's3://bucket/%'",
        "version_number = 2",
        f"version_number > 1 AND {versions}",
        f"version_number <= 2 AND {versions}",
        f"tags.kind = 'k1' AND {versions}",
        f"tags.kind != 'k1' AND {versions}",
        "tags.kind LIKE 'k%' AND name = 'find-1'",
        "name = 5",
        "name > 'x'",
        "version_number = 'x'",
        "version_number LIKE '5'",
        "nothing = 'x'",
        "tags.kind > 'x'",
        "name",
        "run_id > 'x'",
    ):
        pair.get(f"{VERSION}/search", filter=condition, order_by=["name", "version_number"], known=KNOWN_OF_VERSIONS.get(condition))
    pair.get(f"{VERSION}/search", filter="name = 'find-1' OR version_number = 1", order_by=["name", "version_number"], known="a filter beyond stock's")
    for order in (["version_number"], ["version_number DESC"], ["name DESC", "version_number"], ["nothing"], ["version_number UP"]):
        pair.get(f"{VERSION}/search", filter=versions, order_by=order, known=OTHER if order == ["nothing"] else None)
    pair.walk(f"{VERSION}/search", "model_versions", {"filter": versions, "max_results": 2, "order_by": ["name", "version_number"]}, method="GET")
    for query in (
        {"max_results": 0, "known": SIZES},
        {"max_results": -1, "known": SIZES},
        {"max_results": 200001, "known": SIZES},
        {"max_results": "x"},
        {"page_token": "bad"},
    ):
        pair.get(f"{VERSION}/search", **query)


def prompts(pair: Pair) -> None:
    """What the client's prompt registry sends."""
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "topic", "value": "delay"}]
    pair.post(f"{MODEL}/create", {"name": "ask", "tags": prompt})
    pair.get(f"{MODEL}/get", name="ask")
    pair.post(
        f"{VERSION}/create",
        {"name": "ask", "source": "prompt-template", "tags": [*prompt, {"key": "mlflow.prompt.text", "value": "How late is {{ flight }}?"}]},
    )
    pair.post(
        f"{VERSION}/create",
        {"name": "ask", "source": "prompt-template", "tags": [*prompt, {"key": "mlflow.prompt.text", "value": "v2"}], "description": "second"},
    )
    pair.get(f"{VERSION}/get", name="ask", version="1")
    pair.post(f"{MODEL}/alias", {"name": "ask", "alias": "production", "version": "1"})
    pair.get(f"{MODEL}/alias", name="ask", alias="production")
    for condition in (
        "name = 'ask'",
        "name = 'ask' AND tags.`mlflow.prompt.is_prompt` = 'true'",
        "tags.`mlflow.prompt.is_prompt` = 'true'",
        "tags.`mlflow.prompt.is_prompt` = 'true' AND tags.topic = 'delay'",
        "name = 'ask' AND tags.`mlflow.prompt.is_prompt` != 'true'",
        "name = 'ask' AND tags.`mlflow.prompt.is_prompt` = 'false'",
        "name LIKE 'fi%' AND tags.`mlflow.prompt.is_prompt` != 'true'",
    ):
        pair.get(f"{MODEL}/search", filter=condition)
        pair.get(f"{VERSION}/search", filter=condition, order_by=["version_number"])
    pair.ask("DELETE", f"{VERSION}/delete", {"name": "ask", "version": "1"})
    pair.get(f"{MODEL}/get", name="ask")


SCRIPTS = (registered_models, versions_and_aliases, stages, searches_for_models, prompts)
