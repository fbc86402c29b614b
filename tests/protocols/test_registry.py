"""MLflow's registry and logged models, spoken to a real server: what is answered, what is refused in which words, and many at once."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import pytest
import sqlalchemy as sa

from databases import write_settings
from davy.home import Home
from davy.registry.alias_history import alias_history
from davy.schema.tables import traffic
from davy.store import journal
from server_kit import Running, until
from serving_kit import add_version

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "/api/2.0/mlflow/"
MODELS, VERSIONS, ALIAS = "registered-models/", "model-versions/", "registered-models/alias"


class Speaker:
    """One client of the server."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.client = server.client()

    def __call__(self, method: str, path: str, /, **given: Any) -> tuple[int, Any]:
        if method == "GET":
            return self.client.request("GET", f"{ROOT}{path}?{urlencode(given, doseq=True)}")
        return self.client.request(method, ROOT + path, msgspec.json.encode(given))

    def ok(self, method: str, path: str, /, **given: Any) -> Any:
        status, answer = self(method, path, **given)
        assert status == 200, answer
        return answer

    def refused(self, status: int, code: str, said: str, method: str, path: str, /, **given: Any) -> None:
        found, answer = self(method, path, **given)
        assert (found, answer["error_code"]) == (status, code), answer
        assert said in answer["message"]

    def missing(self, said: str, method: str, path: str, /, **given: Any) -> None:
        self.refused(404, "RESOURCE_DOES_NOT_EXIST", said, method, path, **given)

    def invalid(self, said: str, method: str, path: str, /, **given: Any) -> None:
        self.refused(400, "INVALID_PARAMETER_VALUE", said, method, path, **given)

    def make(self, name: str, count: int = 1) -> None:
        self.ok("POST", f"{MODELS}create", name=name)
        for _ in range(count):
            self.ok("POST", f"{VERSIONS}create", name=name, source="s3://bucket/model")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A tracking server whose registry has a model that takes traffic, `fraud`."""
    root = tmp_path_factory.mktemp("registry") / "shop"
    root.mkdir()
    write_settings(root, '[registry]\nprotected = ["production"]\n')
    home = Home(root)
    add_version(home)
    add_version(home, seed=1)
    with home.database.begin() as connection:
        connection.execute(sa.insert(traffic).values(model="fraud", revision=1, weights='{"fraud@1": 1.0}', updated=0, actor="ada"))
    home.close()
    with Running(root, "--only", "tracking") as running:
        yield running


@pytest.fixture
def say(server: Running) -> Iterator[Speaker]:
    found = Speaker(server)
    yield found
    found.client.connection.close()


@pytest.fixture
def opened(server: Running) -> Iterator[Home]:
    """The server's home, opened beside it."""
    home = Home(server.root)
    yield home
    home.close()


def test_a_model_from_its_making_to_its_end(say: Speaker) -> None:
    made = say.ok("POST", f"{MODELS}create", name="m1", description="d", tags=[{"key": "a", "value": "1"}, {"key": "a", "value": "2"}, {"key": "b"}])
    model = made["registered_model"]
    assert set(model) == {"name", "creation_timestamp", "last_updated_timestamp", "description", "tags"}
    assert model["tags"] == [{"key": "a", "value": "2"}, {"key": "b", "value": ""}]
    assert say.ok("GET", f"{MODELS}get", name="m1") == made
    assert say.ok("PATCH", f"{MODELS}update", name="m1", description="e")["registered_model"]["description"] == "e"
    assert "description" not in say.ok("PATCH", f"{MODELS}update", name="m1")["registered_model"]
    assert say.ok("POST", f"{MODELS}set-tag", name="m1", key="c", value="3") == {}
    assert say.ok("DELETE", f"{MODELS}delete-tag", name="m1", key="a") == {}
    assert say.ok("DELETE", f"{MODELS}delete-tag", name="m1", key="a") == {}
    assert say.ok("POST", f"{MODELS}rename", name="m1", new_name="m1")["registered_model"]["tags"] == [
        {"key": "b", "value": ""}, {"key": "c", "value": "3"}]
    assert say.ok("DELETE", f"{MODELS}delete", name="m1") == {}
    say.missing("Registered Model with name=m1 not found", "GET", f"{MODELS}get", name="m1")


@pytest.mark.parametrize(("given", "said"), [
    ({}, "Missing value for required parameter 'name'. See the API docs"), ({"name": " "}, "Missing value for required parameter 'name'."),
    ({"name": "a/b"}, "Invalid model name 'a/b'. Names cannot contain '/' or ':'."), ({"name": ".."}, "This name would resolve to '..'"),
    ({"name": 5}, "Invalid value 5 for parameter 'name' supplied:  Hint: Value was of type 'int'."), ({"name": "x" * 501}, "exceeds the maximum length"),
    ({"name": "n", "tags": [{"key": "a/../b"}]}, "This name would resolve to 'b'"), ({"name": "n", "tags": [{"value": "x"}]}, "for parameter 'key' supplied"),
    ({"name": "n", "tags": [{"key": "k" * 251}]}, "'key' exceeds the maximum length of 250 characters"),
    ({"name": "n", "tags": [{"key": "k", "value": "x" * 100_001}]}, "'value' exceeds the maximum length of 100000 characters")])
def test_a_model_that_can_not_be(say: Speaker, given: dict[str, Any], said: str) -> None:
    say.invalid(said, "POST", f"{MODELS}create", **given)


def test_a_name_is_taken_once_by_a_model_or_a_prompt(say: Speaker) -> None:
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    say.make("taken", 0)
    say.ok("POST", f"{MODELS}create", name="greeting", tags=prompt)
    for given, said in (({"name": "taken"}, "Registered Model (name=taken) already exists."),
                        ({"name": "greeting", "tags": prompt}, "Prompt (name=greeting) already exists."),
                        ({"name": "taken", "tags": prompt}, "Tried to create a prompt with name 'taken', but the name is already taken by a registered model."),
                        ({"name": "greeting"}, "Tried to create a registered model with name 'greeting', but the name is already taken by a prompt.")):
        say.refused(400, "RESOURCE_ALREADY_EXISTS", said, "POST", f"{MODELS}create", **given)
    say.refused(400, "RESOURCE_ALREADY_EXISTS", "Registered Model (name=greeting) already exists.", "POST", f"{MODELS}rename", name="taken",
                new_name="greeting")
    say.missing("Registered Model with name=nobody not found", "POST", f"{MODELS}rename", name="nobody", new_name="x")
    say.invalid("Missing value for required parameter 'new_name'.", "POST", f"{MODELS}rename", name="taken", new_name=" ")


def test_prompts_live_on_the_registry(say: Speaker) -> None:
    mark = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    say.ok("POST", f"{MODELS}create", name="hello", tags=[mark])
    for text in ("Hello {{name}}", "Hi {{name}}"):
        say.ok("POST", f"{VERSIONS}create", name="hello", source="dummy-source", tags=[mark, {"key": "mlflow.prompt.text", "value": text}])
    say.invalid("Prompt text exceeds max length of 100000 characters.", "POST", f"{VERSIONS}create", name="hello", source="dummy-source",
                tags=[mark, {"key": "mlflow.prompt.text", "value": "x" * 100_001}])
    say.invalid("Invalid prompt source", "POST", f"{VERSIONS}create", name="hello", source="s3://b/k", tags=[mark])
    say.ok("POST", ALIAS, name="hello", alias="best", version="1")
    tags = say.ok("GET", ALIAS, name="hello", alias="best")["model_version"]["tags"]
    assert {"key": "mlflow.prompt.text", "value": "Hello {{name}}"} in tags
    asks = "tags.`mlflow.prompt.is_prompt` = 'true'"
    assert "hello" in [model["name"] for model in say.ok("GET", f"{MODELS}search", filter=asks)["registered_models"]]
    assert [version["version"] for version in say.ok("GET", f"{VERSIONS}search", filter=f"{asks} AND name = 'hello'")["model_versions"]] == ["2", "1"]
    assert "hello" not in [model["name"] for model in say.ok("GET", f"{MODELS}search")["registered_models"]]
    assert say.ok("GET", f"{VERSIONS}search", filter="name = 'hello'") == {}


def test_a_version_from_its_making_to_its_end(say: Speaker) -> None:
    say.make("v", 0)
    made = say.ok("POST", f"{VERSIONS}create", name="v", source="s3://b/k", tags=[{"key": "t", "value": "1"}], run_link="http://x/y", description="d")
    version = made["model_version"]
    assert {name: version[name] for name in ("name", "version", "current_stage", "description", "source", "run_id", "status", "tags", "run_link")} == {
        "name": "v", "version": "1", "current_stage": "None", "description": "d", "source": "s3://b/k", "run_id": "", "status": "READY",
        "tags": [{"key": "t", "value": "1"}], "run_link": "http://x/y"}
    assert say.ok("GET", f"{VERSIONS}get", name="v", version="1") == made
    assert say.ok("GET", f"{VERSIONS}get-download-uri", name="v", version="1") == {"artifact_uri": "s3://b/k"}
    assert say.ok("PATCH", f"{VERSIONS}update", name="v", version="1", description="e")["model_version"]["description"] == "e"
    assert "description" not in say.ok("PATCH", f"{VERSIONS}update", name="v", version="1")["model_version"]
    say.ok("POST", f"{VERSIONS}set-tag", name="v", version="1", key="u", value="2")
    say.ok("DELETE", f"{VERSIONS}delete-tag", name="v", version="1", key="t")
    say.ok("DELETE", f"{VERSIONS}delete-tag", name="v", version="1", key="t")
    say.ok("POST", ALIAS, name="v", alias="champ", version="1")
    found = say.ok("GET", f"{VERSIONS}get", name="v", version="1")["model_version"]
    assert (found["tags"], found["aliases"]) == ([{"key": "u", "value": "2"}], ["champ"])
    assert say.ok("GET", f"{MODELS}get", name="v")["registered_model"]["aliases"] == [{"alias": "champ", "version": "1"}]
    say.ok("DELETE", f"{VERSIONS}delete", name="v", version="1")
    say.missing("Model Version (name=v, version=1) not found", "DELETE", f"{VERSIONS}delete", name="v", version="1")
    say.missing("Model Version (name=v, version=1) not found", "GET", f"{VERSIONS}get-download-uri", name="v", version="1")
    assert "aliases" not in say.ok("GET", f"{MODELS}get", name="v")["registered_model"]
    assert say.ok("POST", f"{VERSIONS}create", name="v", source="s3://b/k")["model_version"]["version"] == "2"


def test_a_version_that_is_not_there(say: Speaker) -> None:
    say.make("w")
    for method, path, more in (("GET", "get", {}), ("GET", "get-download-uri", {}), ("PATCH", "update", {}), ("DELETE", "delete", {}),
                               ("POST", "set-tag", {"key": "k", "value": "v"}), ("DELETE", "delete-tag", {"key": "k"}),
                               ("POST", "transition-stage", {"stage": "Staging"})):
        for name, number in (("w", "99"), ("nobody", "1"), ("w", "99999999999999999999")):
            say.missing(f"Model Version (name={name}, version={number}) not found", method, VERSIONS + path, name=name, version=number, **more)
        say.invalid("Parameter 'version' must be an integer, got 'x'.", method, VERSIONS + path, name="w", version="x", **more)
    say.missing("Registered Model with name=nobody not found", "POST", f"{VERSIONS}create", name="nobody", source="s3://b/k")
    say.invalid("Missing value for required parameter 'source'. See the API docs", "POST", f"{VERSIONS}create", name="w", source="")


def test_stages(say: Speaker) -> None:
    say.make("s", 3)
    assert say.ok("POST", f"{VERSIONS}transition-stage", name="s", version="1", stage="production")["model_version"]["current_stage"] == "Production"
    say.ok("POST", f"{VERSIONS}transition-stage", name="s", version="2", stage="Production", archive_existing_versions=True)
    for method in ("GET", "POST"):
        found = say.ok(method, f"{MODELS}get-latest-versions", name="s")["model_versions"]
        assert [(version["version"], version["current_stage"]) for version in found] == [("1", "Archived"), ("2", "Production"), ("3", "None")]
        found = say.ok(method, f"{MODELS}get-latest-versions", name="s", stages=["Production", "none"])["model_versions"]
        assert [version["version"] for version in found] == ["2", "3"]
    assert say.ok("GET", f"{MODELS}get-latest-versions", name="s", stages=["Staging"]) == {}
    say.invalid("Invalid Model Version stage: x. Value must be one of None, Staging, Production, Archived.", "GET", f"{MODELS}get-latest-versions",
                name="s", stages=["x"])
    say.invalid("'Archived' is not an Active stage", "POST", f"{VERSIONS}transition-stage", name="s", version="2", stage="Archived",
                archive_existing_versions=True)


def test_aliases(say: Speaker, opened: Home) -> None:
    say.make("al", 2)
    say.ok("POST", ALIAS, name="al", alias="production", version="1")
    say.ok("POST", ALIAS, name="al", alias="production", version="2")
    assert say.ok("GET", ALIAS, name="al", alias="production")["model_version"]["version"] == "2"
    assert say.ok("GET", ALIAS, name="al", alias="LATEST")["model_version"]["version"] == "2"
    for alias, said in (("Latest", "'latest' alias name (case insensitive) is reserved."), ("v1", "Version alias name 'v1' is reserved."),
                        ("a b", "Invalid alias name: 'a b'. Names may only contain alphanumerics, underscores (_), and dashes (-)."),
                        ("x" * 256, "'Registered model alias name' exceeds the maximum length of 255 characters")):
        say.invalid(said, "POST", ALIAS, name="al", alias=alias, version="1")
    say.missing("Model Version (name=al, version=9) not found", "POST", ALIAS, name="al", alias="ok", version="9")
    say.invalid("Registered model alias Production not found.", "GET", ALIAS, name="al", alias="Production")
    say.missing("Registered Model with name=nobody not found", "GET", ALIAS, name="nobody", alias="x")
    say.missing("Registered Model with name=nobody not found", "DELETE", ALIAS, name="nobody", alias="x")
    for _ in range(2):
        assert say.ok("DELETE", ALIAS, name="al", alias="production") == {}
    say.ok("DELETE", f"{MODELS}delete", name="al")
    with opened.database.read() as connection:
        assert [(change.before, change.version) for change in alias_history(connection, "al", "production")] == [(2, None), (1, 2), (None, 1)]


def test_no_text_is_a_server_s_fault(say: Speaker) -> None:
    """PostgreSQL takes no NUL, and nobody half a surrogate pair; both are said to be the request's fault."""
    say.make("texts")
    for text in ("a\x00b", "\U0001f600" * 1000, "\u202e"):
        for method, path, given in (
                ("POST", f"{MODELS}set-tag", {"name": "texts", "key": "k", "value": text}),
                ("PATCH", f"{MODELS}update", {"name": "texts", "description": text}),
                ("POST", f"{VERSIONS}create", {"name": "texts", "source": "s3://b/k", "run_link": text}), ("GET", ALIAS, {"name": text, "alias": "x"}),
                ("PATCH", f"{VERSIONS}update", {"name": "texts", "version": "1", "description": text}), ("GET", ALIAS, {"name": "texts", "alias": text}),
                ("POST", "logged-models", {"experiment_id": "0", "name": "net", "tags": [{"key": "k", "value": text}]})):
            assert say(method, path, **given)[0] < 500
    status, answer = say.client.request("POST", f"{ROOT}{MODELS}create", b'{"name": "\\ud800"}')
    assert (status, answer["error_code"]) == (400, "BAD_REQUEST")


def test_searches_turn_pages(say: Speaker) -> None:
    for number in range(5):
        say.make(f"page-{number}", 2)
    names: list[str] = []
    token: str | None = ""
    while token is not None:
        found = say.ok("GET", f"{MODELS}search", filter="name LIKE 'page-%'", max_results=2, order_by=["name DESC"], **({"page_token": token} if token else {}))
        names += [model["name"] for model in found["registered_models"]]
        token = found.get("next_page_token")
    assert names == [f"page-{number}" for number in (4, 3, 2, 1, 0)]
    found = say.ok("GET", f"{MODELS}search", filter="name = 'page-1'")["registered_models"]
    assert [version["version"] for version in found[0]["latest_versions"]] == ["2"]
    versions = say.ok("GET", f"{VERSIONS}search", filter="name LIKE 'page-%'", order_by=["name", "version_number"])["model_versions"]
    assert [(version["name"], version["version"]) for version in versions] == [(f"page-{number}", version) for number in range(5) for version in "12"]
    say.invalid("", "GET", f"{MODELS}search", filter="nonsense here")
    say.invalid("", "GET", f"{VERSIONS}search", max_results=0)


def test_native_versions_are_seen_and_what_takes_traffic_is_kept(say: Speaker) -> None:
    found = say.ok("GET", f"{VERSIONS}get", name="fraud", version="1")["model_version"]
    assert (found["status"], found["current_stage"], found["source"]) == ("READY", "None", "models:/fraud/1")
    say.missing("no run has them", "GET", f"{VERSIONS}get-download-uri", name="fraud", version="1")
    say.invalid("no files that MLflow's clients could read", "POST", f"{VERSIONS}create", name="fraud", source="models:/fraud/1")
    assert [version["version"] for version in say.ok("GET", f"{MODELS}get", name="fraud")["registered_model"]["latest_versions"]] == ["2"]
    say.ok("POST", ALIAS, name="fraud", alias="champ", version="1")
    say.invalid("the traffic", "DELETE", f"{VERSIONS}delete", name="fraud", version="1")
    say.invalid("takes traffic", "DELETE", f"{MODELS}delete", name="fraud")
    say.invalid("takes traffic", "POST", f"{MODELS}rename", name="fraud", new_name="other")
    assert say.ok("POST", f"{VERSIONS}create", name="fraud", source="s3://b/k")["model_version"]["version"] == "3"
    status, page = until(lambda: found if (found := say.client.request("GET", "/models/fraud"))[0] != 503 else None)
    assert status == 200
    assert "champ" in page
    assert "gate passed" in page
    say.make("empty", 0)
    assert say.client.request("GET", "/models/empty")[0] == 200
    status, page = say.client.request("GET", "/models/fraud/3")
    assert status == 200
    assert page.count("s3://b/k") >= 2
    say.make("many", 102)
    say.ok("POST", ALIAS, name="many", alias="old", version="1")
    page = say.client.request("GET", "/models/many")[1]
    assert "101 of 102 versions" in page
    assert ['href="/models/many/1"' in page, 'href="/models/many/2"' in page, 'href="/models/many/3"' in page] == [True, False, True]


def test_a_logged_model_from_its_making_to_its_end(say: Speaker) -> None:
    run = say.ok("POST", "runs/create", experiment_id="0")["run"]["info"]
    made = say.ok("POST", "logged-models", experiment_id="0", name="net", model_type="x", source_run_id=run["run_id"], params=[{"key": "p", "value": "1"}],
                  tags=[{"key": "t", "value": "1"}])["model"]
    model_id, info = made["info"]["model_id"], made["info"]
    assert (info["status"], info["artifact_uri"]) == ("LOGGED_MODEL_PENDING", f"mlflow-artifacts:/0/models/{model_id}/artifacts")
    assert made["data"] == {"params": [{"key": "p", "value": "1"}]}
    for status in ("LOGGED_MODEL_UPLOAD_FAILED", 2):
        found = say.ok("PATCH", f"logged-models/{model_id}", model_id=model_id, status=status)["model"]["info"]["status"]
    assert found == "LOGGED_MODEL_READY"
    say.invalid("It is one of LOGGED_MODEL_PENDING", "PATCH", f"logged-models/{model_id}", model_id=model_id, status="zz")
    say.ok("PATCH", f"logged-models/{model_id}/tags", tags=[{"key": "a", "value": "b"}, {"key": "a", "value": "c"}])
    say.ok("DELETE", f"logged-models/{model_id}/tags/t")
    say.missing(f"No tag with key 't' found for model with ID '{model_id}'.", "DELETE", f"logged-models/{model_id}/tags/t")
    say.ok("PATCH", f"logged-models/{model_id}/tags", tags=[{"key": "a/b c", "value": "1"}])
    say.ok("DELETE", f"logged-models/{model_id}/tags/a%2Fb%20c")
    for _ in range(2):
        say.ok("POST", f"logged-models/{model_id}/params", params=[{"key": "q", "value": "2"}])
    say.invalid("Changing param values is not allowed.", "POST", f"logged-models/{model_id}/params", params=[{"key": "q", "value": "3"}])
    point = {"key": "acc", "value": 0.5, "timestamp": 10, "step": 1, "model_id": model_id, "dataset_name": "d", "dataset_digest": "g"}
    for _ in range(2):
        say.ok("POST", "runs/log-batch", run_id=run["run_id"], metrics=[point])
        say.ok("POST", "runs/outputs", run_id=run["run_id"], models=[{"model_id": model_id, "step": 3}])
    found = say.ok("GET", f"logged-models/{model_id}")["model"]
    assert found["data"]["metrics"] == [{**point, "run_id": run["run_id"]}]
    assert found["info"]["tags"] == [{"key": "a", "value": "c"}]
    made = say.ok("POST", f"{MODELS}create", name="nets")
    for _ in range(2):
        version = say.ok("POST", f"{VERSIONS}create", name="nets", source=f"models:/{model_id}", model_id=model_id)["model_version"]
    assert (version["run_id"], version["version"]) == (run["run_id"], "2")
    assert say.ok("GET", f"{VERSIONS}get-download-uri", name="nets", version="2")["artifact_uri"] == info["artifact_uri"]
    tags = say.ok("GET", f"logged-models/{model_id}")["model"]["info"]["tags"]
    assert tags[1] == {"key": "mlflow.modelVersions", "value": '[{"name": "nets", "version": 1}, {"name": "nets", "version": 2}]'}
    search = {"experiment_ids": ["0"], "filter": "name = 'net' AND metrics.acc > 0.4", "order_by": [{"field_name": "metrics.acc", "ascending": False}]}
    assert [model["info"]["model_id"] for model in say.ok("POST", "logged-models/search", **search)["models"]] == [model_id]
    say.ok("DELETE", f"logged-models/{model_id}")
    say.missing(f"Logged model with ID '{model_id}' not found.", "GET", f"logged-models/{model_id}")
    assert say.ok("GET", f"logged-models/{model_id}", allow_deleted="true")["model"]["info"]["name"] == "net"
    assert say.ok("POST", "logged-models/search", **search) == {}


@pytest.mark.parametrize(("given", "status", "code", "said"), [
    ({}, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'experiment_id'."),
    ({"experiment_id": "999"}, 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=999 exists"),
    ({"experiment_id": "0", "name": "a/b"}, 400, "INVALID_PARAMETER_VALUE", "Invalid model name ('a/b') provided. Model name must be a non-empty string"),
    ({"experiment_id": "0", "params": [{"key": "p", "value": "1"}, {"key": "p", "value": "2"}]}, 400, "INVALID_PARAMETER_VALUE", "Duplicate parameter keys"),
    ({"experiment_id": "0", "tags": [{"key": "k" * 300, "value": "1"}]}, 400, "INVALID_PARAMETER_VALUE", "250")])
def test_a_logged_model_that_can_not_be(say: Speaker, given: dict[str, Any], status: int, code: str, said: str) -> None:
    say.refused(status, code, said, "POST", "logged-models", **given)


def test_eight_clients_get_numbers_without_gaps_or_doubles(say: Speaker, server: Running, opened: Home) -> None:
    say.make("crowd", 0)
    numbers: list[int] = []
    refused: list[Any] = []

    def register() -> None:
        own = Speaker(server)
        for turn in range(15):
            status, answer = own("POST", f"{VERSIONS}create", name="crowd", source="s3://b/k", tags=[{"key": "turn", "value": str(turn)}])
            (numbers if status == 200 else refused).append(int(answer["model_version"]["version"]) if status == 200 else answer)
            if turn % 5 == 0:  # neighbours whose work fails take nothing along
                own("POST", f"{MODELS}create", name="crowd")
                with suppress(KeyError):
                    own("DELETE", f"{VERSIONS}delete", name="fraud", version="1")
        own.client.connection.close()

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert refused == []
    assert sorted(numbers) == list(range(1, 121))
    with opened.database.read() as connection:
        audit = journal.verify(connection)
        assert (audit.broken, audit.cause) == (None, None)
        told = journal.entries(connection, subject="crowd", action="version.register", limit=200)
    assert [entry.details["version"] for entry in reversed(told)] == list(range(1, 121))
