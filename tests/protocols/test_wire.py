"""Messages as MLflow's clients of all ages write them, and errors in its words."""

from __future__ import annotations

import json

import pytest

from davy.errors import Conflict, Forbidden, NotFound, StorageFull
from davy.protocols.mlflow.metrics import LogMetric
from davy.protocols.mlflow.runs import CreateRun, LogBatch, SearchRuns
from davy.protocols.mlflow.wire import MlflowError, number, read_json, read_query, translated

SEE = "See the API docs for more information about request parameters."


def _log_batch(metrics: str) -> LogBatch:
    return read_json(LogBatch, b'{"run_id": "r", "metrics": [' + metrics.encode() + b"]}")


@pytest.mark.parametrize("body", [
    b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 5}', b'{"runId": "r", "key": "k", "value": "1", "timestamp": "5"}',
    json.dumps('{"run_id": "r", "key": "k", "value": 1.0, "timestamp": 5.0}').encode(), b'{"run_id":"r","key":"k","value":1,"timestamp":5,"unknown":{"a":[1]}}',
    b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 5, "step": null}'])
def test_one_message_written_in_many_ways(body: bytes) -> None:
    assert read_json(LogMetric, body) == LogMetric(run_id="r", key="k", value=1.0, timestamp=5)


@pytest.mark.parametrize(("text", "value"), [
    ('"NaN"', "nan"), ("NaN", "nan"), ('"Infinity"', "inf"), ("Infinity", "inf"), ('"-Infinity"', "-inf"), ("1e3", "1000.0")])
def test_numbers_beyond_numbers(text: str, value: str) -> None:
    assert str(_log_batch(f'{{"key": "k", "value": {text}, "timestamp": 0}}').metrics[0].value) == value
    assert number(float(value)) == {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(value, 1000.0)


@pytest.mark.parametrize(("body", "said"), [
    (b'{"experiment_id": 5}', f"Invalid value 5 for parameter 'experiment_id' supplied:  Hint: Value was of type 'int'. {SEE}"),
    (b'{"tags": {"a": 1}}', f"Invalid value {{\"a\":1}} for parameter 'tags' supplied:  Hint: Value was of type 'dict'. {SEE}"),
    (b'{"tags": [{"key": "a"}, {"key": 7}]}', f"Invalid value 7 for parameter 'tags[1].key' supplied:  Hint: Value was of type 'int'. {SEE}"),
    (b'{"start_time": "soon"}', f"Invalid value \"soon\" for parameter 'start_time' supplied:  Hint: Value was of type 'str'. {SEE}"),
    (b'{"start_time": 99999999999999999999}', f"Invalid value 99999999999999999999 for parameter 'start_time' supplied:  Hint: Value was of type 'int'. {SEE}"),
    (b'{"run_name": "a", "runName": "b"}', "Request specifies both 'run_name' and 'runName'; provide only one of them."),
    (b"[1]", "The request body must be a JSON object, not a list.")])
def test_what_is_wrong_is_named(body: bytes, said: str) -> None:
    with pytest.raises(MlflowError) as caught:
        read_json(CreateRun, body)
    assert (caught.value.code, caught.value.status, caught.value.message) == ("INVALID_PARAMETER_VALUE", 400, said)


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"run_name": "\\ud800"}', b"[" * 200_000, b'{"a":' * 200_000, b'{"a": 1} x', b"nul"])
def test_what_is_no_json_is_the_client_s_fault(body: bytes) -> None:
    with pytest.raises(MlflowError) as caught:
        read_json(CreateRun, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{}", b'{"run_id": ""}', b'{"run_id": null}'])
def test_a_required_field_is_asked_for(body: bytes) -> None:
    with pytest.raises(MlflowError, match="Missing value for required parameter 'run_id'"):
        read_json(LogBatch, body, ("run_id",))


def test_a_query_repeats_what_is_a_list() -> None:
    found = read_query(SearchRuns, "experiment_ids=1&experiment_ids=2&max_results=5&filter=a%20%3D%20%27b%27&unknown=1")
    assert found == SearchRuns(experiment_ids=["1", "2"], max_results=5, filter="a = 'b'")
    with pytest.raises(MlflowError, match="max_results"):
        read_query(SearchRuns, "max_results=many")


def test_our_errors_get_mlflow_s_codes() -> None:
    for error, code, status in ((NotFound("gone", "ok", "do"), "RESOURCE_DOES_NOT_EXIST", 404), (Forbidden("no"), "PERMISSION_DENIED", 403),
                                (Conflict("taken"), "INVALID_PARAMETER_VALUE", 400), (StorageFull("full"), "TEMPORARILY_UNAVAILABLE", 503)):
        found = translated(error)
        assert (found.code, found.status) == (code, status)
    assert translated(NotFound("gone", "ok", "do")).message == "gone\nok\ndo"
