"""Searching runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_kit import Pair

BEYOND, MISREAD, OTHER, MISTYPED, SIZES = "a filter beyond stock's", "a filter that stock misreads", "another reason", "mistyped fields", "page sizes"
KNOWN = {"params.lr IN ('a')": BEYOND, "status IN ('RUNNING')": BEYOND, "metrics.acc IS NULL": BEYOND, "tags. = 'x'": MISREAD, "metrics.acc > 1e": OTHER}


def _fill(pair: Pair) -> None:
    if "searched" in pair.stock.names:
        return
    pair.post("experiments/create", {"name": "searched"}, keep={"searched": "experiment_id"})
    for number in range(12):
        tags = [
            {"key": "colour", "value": ("red", "Green", "blue%")[number % 3]},
            {"key": "odd key!", "value": "x"} if number % 2 else {"key": "plain", "value": ""},
        ]
        if number % 2:
            tags[1] = {"key": "a.b-c/d e", "value": f"v{number}"}
        pair.post(
            "runs/create",
            {
                "experiment_id": "$searched",
                "run_name": f"run-{number:02}",
                "start_time": 1000 + number // 2 * 10,
                "user_id": "ada" if number < 6 else "Bob",
                "tags": tags,
            },
            keep={f"s{number:02}": "run.info.run_id"},
        )
        metrics = [{"key": "acc", "value": number / 10, "timestamp": 1, "step": 0}, {"key": "acc", "value": 1 - number / 10, "timestamp": 2, "step": 1}]
        if number % 3 == 0:
            metrics.append({"key": "f1 score", "value": number * 1.0, "timestamp": 1, "step": 0})
        if number == 5:
            metrics.append({"key": "acc", "value": "NaN", "timestamp": 3, "step": 2})
        if number == 7:
            metrics = []
        params = [{"key": "lr", "value": f"0.{number}"}, {"key": "model", "value": "Tree" if number % 2 else "forest"}] if number != 9 else []
        pair.post("runs/log-batch", {"run_id": f"$s{number:02}", "metrics": metrics, "params": params})
        if number in (2, 4, 8):
            pair.post("runs/update", {"run_id": f"$s{number:02}", "status": ("FINISHED", "FAILED", "KILLED")[number % 3], "end_time": 5000 - number})
    pair.post(
        "runs/log-inputs",
        {
            "run_id": "$s01",
            "datasets": [
                {
                    "dataset": {"name": "flights", "digest": "d1", "source_type": "local", "source": "x"},
                    "tags": [{"key": "mlflow.data.context", "value": "training"}],
                }
            ],
        },
    )
    pair.post("runs/log-inputs", {"run_id": "$s02", "datasets": [{"dataset": {"name": "Weather", "digest": "d2", "source_type": "local", "source": "x"}}]})
    pair.post("runs/delete", {"run_id": "$s11"})


FILTERS = (
    "",
    "metrics.acc > 0.5",
    "metrics.acc >= 0.5",
    "metrics.acc = 0.5",
    "metrics.acc != 0.5",
    "metrics.acc < 0.3",
    "metrics.acc <= 0.3",
    "metric.acc > -1",
    "metrics.acc > 1e-1",
    "metrics.`f1 score` >= 3",
    'metrics."f1 score" < 6',
    "metrics.nothing > 0",
    "metrics.nothing != 0",
    "params.lr = '0.3'",
    "params.lr != '0.3'",
    "param.lr LIKE '0.1%'",
    "parameters.model ILIKE 'TREE'",
    "params.model LIKE 'tree'",
    "params.model = 'tree'",
    "params.model LIKE '%o%'",
    "params.model IS NULL",
    "params.model IS NOT NULL",
    "params.nothing = 'x'",
    "params.nothing IS NULL",
    "tags.colour = 'red'",
    "tags.colour != 'red'",
    "tag.colour LIKE '%e%'",
    "tags.colour ILIKE 'GREEN'",
    "tags.colour = 'green'",
    "tags.colour LIKE 'blue%'",
    "tags.colour LIKE 'blu_%'",
    "tags.plain = ''",
    "tags.plain IS NULL",
    "tags.plain IS NOT NULL",
    "tags.`a.b-c/d e` = 'v3'",
    "tags.mlflow.runName = 'run-03'",
    "run_name = 'run-03'",
    "attributes.run_name LIKE 'run-0%'",
    "attribute.run_name != 'run-03'",
    "`run_name` = 'run-03'",
    "attributes.`Run name` = 'run-03'",
    "run name = 'run-03'",
    "status = 'FINISHED'",
    "attributes.status = 'RUNNING'",
    "attr.status != 'RUNNING'",
    "run.status ILIKE 'run%'",
    "status = 'running'",
    "start_time > 1020",
    "attributes.start_time = 1030",
    "start_time != 1030",
    "attributes.created > 1020",
    "`Created` <= 1020",
    "end_time > 0",
    "end_time = 4998",
    "end_time != 4998",
    "user_id = 'ada'",
    "user_id ILIKE 'BOB'",
    "attributes.user_id LIKE 'b%'",
    "attributes.User = 'ada'",
    "run_id = '$s03'",
    "run_id IN ('$s03', '$s04')",
    "attributes.run_id NOT IN ('$s03', '$s04')",
    "run_id != '$s03'",
    "run_id LIKE '%'",
    "artifact_uri LIKE 'mlflow-artifacts:%'",
    "lifecycle_stage = 'active'",
    "datasets.name = 'flights'",
    "dataset.name LIKE 'f%'",
    "datasets.name ILIKE 'WEATHER'",
    "dataset.digest = 'd2'",
    "dataset.context = 'training'",
    "datasets.name IN ('flights', 'x')",
    "datasets.name != 'flights'",
    "datasets.digest NOT IN ('d1')",
    "metrics.acc > 0.2 AND params.model = 'Tree' AND tags.colour = 'red'",
    "metrics.acc > 0.2 and metrics.acc < 0.8",
    "tags.colour LIKE '%e%' AND tags.colour LIKE 'r%'",
    "params.lr = '0.3' AND run_name = 'run-03' AND status = 'RUNNING' AND start_time > 5",
    'params.model = "Tree"',
    'tags."colour" = "red"',
    "metrics.acc>0.5",
    "  metrics.acc  >  0.5  ",
)


def filters(pair: Pair) -> None:
    _fill(pair)
    for condition in FILTERS:
        pair.post("runs/search", {"experiment_ids": ["$searched"], "filter": condition, "order_by": ["run_name"]})


def orders(pair: Pair) -> None:
    _fill(pair)
    for order in (
        [],
        ["metrics.acc"],
        ["metrics.acc DESC"],
        ["metrics.acc asc", "start_time DESC"],
        ["metrics.`f1 score` DESC"],
        ["metrics.nothing"],
        ["params.lr"],
        ["params.model DESC", "params.lr DESC"],
        ["tags.colour"],
        ["tags.colour DESC", "run_name ASC"],
        ["tags.plain"],
        ["start_time"],
        ["attributes.start_time ASC"],
        ["start_time DESC"],
        ["end_time"],
        ["end_time DESC"],
        ["attribute.end_time ASC"],
        ["status", "run_name"],
        ["status DESC", "run_name"],
        ["run_name DESC"],
        ["user_id", "run_name"],
        ["user_id DESC", "run_name DESC"],
        ["attributes.created", "run_name"],
        ['metrics."acc" DESC'],
        ["tags.mlflow.runName DESC"],
        ["lifecycle_stage", "run_name"],
        ["params.nothing DESC"],
    ):
        pair.post(
            "runs/search",
            {
                "experiment_ids": ["$searched"],
                "order_by": [
                    *order,
                    *(["run_name"] if not any("run_name" in part or "run_id" in part or "artifact" in part or "Run" in part for part in order) else []),
                ],
            },
        )
    for order in (["metrics"], ["metrics.acc UP"], ["metrics.acc DESC ASC"], ["attributes.nothing"], [""], ["metrics.acc,run_name"], ["metrics.'acc'"]):
        pair.post("runs/search", {"experiment_ids": ["$searched"], "order_by": order})
    for order, known in ((["nothing"], OTHER), (["datasets.name"], OTHER), (["`Run name`"], BEYOND), ([5], MISTYPED)):
        pair.post("runs/search", {"experiment_ids": ["$searched"], "order_by": order}, known=known)
    pair.post("runs/search", {"experiment_ids": ["$searched"], "order_by": ["metrics.acc", "metrics.acc DESC"]}, known="one field twice in order_by")


def pages(pair: Pair) -> None:
    _fill(pair)
    base = {"experiment_ids": ["$searched"], "order_by": ["run_name"]}
    for size in (1, 5, 11, 12):
        pair.walk("runs/search", "runs", {**base, "max_results": size})
    pair.walk("runs/search", "runs", {**base, "order_by": ["metrics.acc DESC", "run_name"], "max_results": 4, "run_view_type": "ALL"})
    pair.walk("runs/search", "runs", {**base, "order_by": ["params.lr", "run_name"], "max_results": 4, "filter": "start_time > 1010"})
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", 1, 2, 3, "all", "NOTHING", 9):
        pair.post("runs/search", {**base, "run_view_type": view}, known=MISTYPED if view in ("all", "NOTHING", 9) else None)
    for body in (
        {"max_results": 0},
        {"max_results": -1},
        {"max_results": 50001, "known": SIZES},
        {"max_results": 50000},
        {"max_results": "5"},
        {"max_results": "x"},
        {"max_results": 1.5, "known": MISTYPED},
        {"page_token": "bad"},
        {"page_token": ""},
        {"experiment_ids": []},
        {"experiment_ids": ["99999"]},
        {"experiment_ids": "x"},
        {"experiment_ids": [5], "known": MISTYPED},
        {"experiment_ids": ["abc"]},
        {"filter": 5},
        {"order_by": "run_name"},
        {"experiment_ids": ["$searched", "$searched"]},
        {"experiment_ids": ["0", "$searched"], "filter": "run_name LIKE 'run-%'"},
    ):
        pair.post("runs/search", {**base, **body})
    pair.post("runs/search", {})


def bad_filters(pair: Pair) -> None:
    _fill(pair)
    for condition in (
        "metrics.acc",
        "metrics.acc >",
        "> 5",
        "metrics.acc > 'x'",
        "metrics.acc LIKE 5",
        "metrics.acc > abc",
        "metrics > 5",
        "metrics.acc ~ 5",
        "metrics.acc == 5",
        "metrics.acc <> 5",
        "acc > 5",
        "nothing.acc > 5",
        "params.lr > 'a'",
        "params.lr = 5",
        "params.lr = x",
        "params.lr = `x`",
        "params.lr = 'unclosed",
        "params.lr IS",
        "params.lr IS 'x'",
        "params.lr IN ('a')",
        "tags.colour = red",
        "tags.colour > 'a'",
        "tags = 'x'",
        "tags. = 'x'",
        "attributes.nothing = 'x'",
        "attributes.status > 'a'",
        "status = 5",
        "start_time = 'x'",
        "start_time LIKE '5'",
        "run_name > 'a'",
        "run_id IN ('a', 5)",
        "run_id IN 'a'",
        "run_id IN ()",
        "status IN ('RUNNING')",
        "datasets.nothing = 'x'",
        "datasets.name > 'x'",
        "datasets.name = 5",
        "metrics.acc > 0.5 AND",
        "AND metrics.acc > 0.5",
        "metrics.acc > 0.5 metrics.acc < 1",
        "metrics.acc > 0.5 params.lr",
        "metrics.acc > 0.5, params.lr = 'x'",
        "metrics.acc > 0.5;",
        "SELECT 1",
        "metrics.'acc' > 0.5",
        "metrics.acc IS NULL",
        "metrics.acc > 0.5 -- x",
        "run_name = 'a' AND AND run_name = 'b'",
        "5 > metrics.acc",
        "metrics.acc > -",
        "metrics.acc > 1e",
        "'a' = 'a'",
    ):
        pair.post("runs/search", {"experiment_ids": ["$searched"], "filter": condition, "order_by": ["run_name"]}, known=KNOWN.get(condition))
    for condition in (
        "metrics.acc > 0.5 OR params.lr = '0.1'",
        "(metrics.acc > 0.5)",
        "NOT metrics.acc > 0.5",
        "(metrics.acc > 0.5 OR metrics.acc < 0.2) AND params.model = 'Tree'",
        "metrics.acc IN (0.1, 0.2)",
    ):
        pair.post("runs/search", {"experiment_ids": ["$searched"], "filter": condition, "order_by": ["run_name"]}, known=BEYOND)


SCRIPTS = (filters, orders, pages, bad_filters)
