"""What no client should send, sent to a real server: each time an error of MLflow's that says so, and never a 5xx, which clients repeat for minutes."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from databases import write_settings
from davy.protocols.mlflow import checks
from protocols.artifacts_kit import API, Answer, Tracking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACES = "/api/3.0/mlflow/traces"
MODEL = {"artifact_path": "model", "flavors": {"sklearn": {"code": None}}, "utc_time_created": "2026-01-01", "run_id": "r", "model_uuid": "u"}
DEEP = "[" * 100_000
MANY = 300_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    root: Path = tmp_path_factory.mktemp("bad") / "shop"
    root.mkdir()
    write_settings(root)
    with Tracking(root) as running:
        yield running
        assert "Traceback" not in running.log()


def ask(server: Tracking, path: str, given: Any) -> Answer:
    return server.ask("POST", path if path.startswith("/") else f"{API}/{path}", msgspec.json.encode(given), {"content-type": "application/json"})


def place(number: int | str) -> dict[str, Any]:
    return {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(number)}}


@pytest.mark.parametrize("path", ["runs/search", "experiments/search", "registered-models/search", "model-versions/search", "logged-models/search",
                                  f"{TRACES}/search"])
def test_a_token_that_goes_deep(server: Tracking, path: str) -> None:
    token = base64.urlsafe_b64encode(DEEP.encode()).decode()
    status, code, message = ask(server, path, {"experiment_ids": ["0"], "locations": [place(0)], "page_token": token}).error
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "Invalid page token" in message


def test_a_body_that_goes_deep(server: Tracking) -> None:
    answer = server.ask("POST", f"{API}/runs/search", b'{"a":' * 100_000, {"content-type": "application/json"})
    assert answer.error == (400, "INVALID_PARAMETER_VALUE", "The request body is nested too deeply.")


def test_the_history_of_models_in_a_tag(server: Tracking) -> None:
    run, text = server.run(), json.dumps(MODEL)
    for written in ("not json", "{}", DEEP[:5000]):
        server.call("runs/set-tag", run_id=run, key="mlflow.log-model.history", value=written)
        server.call("runs/log-model", run_id=run, model_json=text)
        server.call("runs/log-model", run_id=run, model_json=text)  # the client's second try
        tags = {tag["key"]: tag["value"] for tag in server.ask("GET", f"{API}/runs/get?run_id={run}").json["run"]["data"]["tags"]}
        assert json.loads(tags["mlflow.log-model.history"]) == [MODEL]
    server.call("runs/log-model", run_id=run, model_json=json.dumps({**MODEL, "artifact_path": "other"}))
    tags = {tag["key"]: tag["value"] for tag in server.ask("GET", f"{API}/runs/get?run_id={run}").json["run"]["data"]["tags"]}
    assert [one["artifact_path"] for one in json.loads(tags["mlflow.log-model.history"])] == ["model", "other"]
    for bad in (f'{{"z": {DEEP}', "[]", "{"):
        assert ask(server, "runs/log-model", {"run_id": run, "model_json": bad}).error[0] == 400


def test_more_than_a_statement_has_room_for(server: Tracking) -> None:
    run = server.run()
    models = [{"model_id": f"m-{number}"} for number in range(MANY)]
    for path, given in (("runs/log-inputs", {"run_id": run, "models": models}), ("runs/outputs", {"run_id": run, "models": models})):
        assert ask(server, path, given).error == (404, "RESOURCE_DOES_NOT_EXIST", "Logged model with ID 'm-0' not found.")
    numbers = [str(number) for number in range(MANY)]
    for path, given in (("logged-models/search", {"experiment_ids": numbers}), ("runs/search", {"experiment_ids": numbers, "max_results": 1}),
                        (f"{TRACES}/search", {"locations": [place(number) for number in range(MANY)]}), (f"{TRACES}/batchGetInfos", {"trace_ids": numbers}),
                        ("traces/delete-traces", {"experiment_id": "0", "request_ids": numbers})):
        assert ask(server, path, given).status == 200, path
    for given in ({"datasets": [{"dataset_name": str(number)} for number in range(5000)]},
                  {"order_by": [{"field_name": f"metrics.k{number}"} for number in range(300)]}):
        assert ask(server, "logged-models/search", {"experiment_ids": ["0"], **given}).error[0] == 400


def test_traces_are_erased_however_many(server: Tracking) -> None:
    experiment = server.experiment("traced")
    for number in range(3):
        info = {"trace_id": f"tr-{number}", "trace_location": place(experiment), "request_time": f"2026-01-0{number + 1}T00:00:00Z"}
        assert ask(server, TRACES, {"trace": {"trace_info": info}}).status == 200
    ids = ["tr-1", *(f"tr-none-{number}" for number in range(700)), "tr-0"]
    assert ask(server, "traces/delete-traces", {"experiment_id": experiment, "request_ids": ids}).json == {"traces_deleted": 2}
    found = ask(server, f"{TRACES}/search", {"locations": [place(experiment)]}).json["traces"]
    assert [one["trace_id"] for one in found] == ["tr-2"]
    ids = ["tr-2", *(f"tr-none-{number}" for number in range(700)), "tr-2"]
    assert [one["trace_id"] for one in ask(server, f"{TRACES}/batchGetInfos", {"trace_ids": ids}).json["trace_infos"]] == ["tr-2", "tr-2"]
    links = {"run_id": server.run(), "trace_ids": ["tr-2"] * 101}
    assert ask(server, "traces/link-to-run", links).error[2].startswith("Cannot link more than 100 traces to a run in a single request.")


def test_times_that_are_not_milliseconds(server: Tracking) -> None:
    experiment = server.experiment("far")
    for start in (2**63 - 1, -(2**63)):
        answer = ask(server, "runs/create", {"experiment_id": experiment, "start_time": start})
        assert answer.error[0] == 400
        assert "milliseconds" in answer.error[2]
        answer = ask(server, "traces", {"experiment_id": experiment, "timestamp_ms": start})
        assert answer.error[0] == 400
    for length in ("9" * 30 + "s", "-" + "9" * 18 + "s"):
        info = {"trace_id": "tr-long", "trace_location": place(experiment), "execution_duration": length}
        assert ask(server, TRACES, {"trace": {"trace_info": info}}).error[0] == 400
    made = [server.call("runs/create", experiment_id=experiment, start_time=start)["run"]["info"] for start in (1_700_000_000_000_000, -(10**14))]
    assert [one["start_time"] for one in made] == [1_700_000_000_000_000, -(10**14)]
    assert ask(server, "runs/update", {"run_id": made[0]["run_id"], "end_time": 2**63 - 1}).error[0] == 400
    server.call("runs/update", run_id=made[0]["run_id"], end_time=1_700_000_000_000_001)
    ask(server, "traces", {"experiment_id": experiment, "timestamp_ms": 1_700_000_000_000_000})
    found = ask(server, f"{TRACES}/search", {"locations": [place(experiment)]})
    assert [one["request_time"] for one in found.json["traces"]] == ["9999-12-31T23:59:59Z"]
    for page in ("/runs", f"/runs/{made[0]['run_id']}", f"/runs/{made[1]['run_id']}"):
        assert server.ask("GET", page).status == 200


def test_a_size_below_one(server: Tracking) -> None:
    path = f"{API}/metrics/get-history-bulk?run_id={server.run()}&metric_key=k&max_results="
    for size in ("0", "-1"):
        assert server.ask("GET", path + size).error[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert server.ask("GET", path + "99999").json == {"metrics": []}


def test_long_names_are_not_kept_in_memory() -> None:
    checks.check_name("loss", "key")
    known = checks._named.cache_info().currsize
    for number in range(3):
        assert checks.check_name(f"{number}" * 10_000, "key")
    assert checks._named.cache_info().currsize == known
