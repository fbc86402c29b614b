"""Protected aliases by role: over MLflow's protocol and on the command line, where everybody says who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from auth.conftest import record
from databases import write_settings
from davy.auth.tokens import new_token
from davy.auth.users import add_user
from davy.cli.main import run
from davy.home import Home
from davy.registry.alias_history import alias_history
from server_kit import Running

if TYPE_CHECKING:
    from collections.abc import Iterator


MODELS, VERSIONS, ALIAS = "registered-models/", "model-versions/", "registered-models/alias"


class Team(Running):
    """A tracking server that asks who is there, with a token of a scientist and of a releaser."""

    tokens: dict[str, str]

    def say(self, role: str, method: str, path: str, **given: Any) -> tuple[int, Any]:
        with self.client() as client:
            return client.request(method, f"/api/2.0/mlflow/{path}", msgspec.json.encode(given), {"authorization": f"Bearer {self.tokens[role]}"})


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    root = tmp_path_factory.mktemp("protected") / "shop"
    root.mkdir()
    write_settings(root, '[auth]\nrequired = true\n[registry]\nprotected = ["production"]\n')
    home, tokens = Home(root), {}
    with home.database.begin() as connection:
        for name, role in (("sam", "scientist"), ("rita", "releaser"), ("ann", "admin")):
            add_user(connection, clock=home.clock, actor="tester", name=name, role=role, record=record())  # type: ignore[arg-type]
            tokens[role] = new_token(connection, clock=home.clock, actor="tester", owner=name, name="t")[1]
    home.close()
    with Team(root, "--only", "tracking") as running:
        running.tokens = tokens
        assert running.say("scientist", "POST", f"{MODELS}create", name="late")[0] == 200
        for _ in range(3):
            assert running.say("scientist", "POST", f"{VERSIONS}create", name="late", source="s3://b/k")[0] == 200
        yield running


def test_over_the_protocol(team: Team) -> None:
    assert team.say("scientist", "POST", ALIAS, name="late", alias="challenger", version="2")[0] == 200
    assert team.say("releaser", "POST", ALIAS, name="late", alias="production", version="1")[0] == 200
    for method, path, given in (("POST", ALIAS, {"name": "late", "alias": "production", "version": "2"}),
                                ("DELETE", ALIAS, {"name": "late", "alias": "production"}), ("POST", f"{MODELS}rename", {"name": "late", "new_name": "other"}),
                                ("DELETE", f"{VERSIONS}delete", {"name": "late", "version": "1"}), ("DELETE", f"{MODELS}delete", {"name": "late"})):
        status, answer = team.say("scientist", method, path, **given)
        assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED"), answer
        assert "protected" in answer["message"]
        assert "releaser" in answer["message"]
    assert team.say("scientist", "POST", ALIAS, name="late", alias="production", version="1")[0] == 200  # it means that already
    assert team.say("releaser", "POST", ALIAS, name="late", alias="production", version="2")[0] == 200
    home = Home(team.root)
    with home.database.read() as connection:
        assert [(change.version, change.actor) for change in alias_history(connection, "late", "production")] == [(2, "rita"), (1, "rita")]
    home.close()


def test_on_the_command_line(team: Team, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    move = ["--project", str(team.root), "alias", "late", "production", "3"]
    monkeypatch.setenv("DAVY_TOKEN", team.tokens["scientist"])
    assert run(move) == 2
    assert "protected" in capsys.readouterr().err
    assert run([*move[:-2], "other", "3"]) == 0
    monkeypatch.setenv("DAVY_TOKEN", team.tokens["releaser"])
    assert run(move) == 0
    capsys.readouterr()
    assert run([*move[:-1], "--history"]) == 0
    assert "rita" in capsys.readouterr().out.splitlines()[1]


def test_a_viewer_may_ask_what_was(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(team.root)
    with home.database.begin() as connection:
        add_user(connection, clock=home.clock, actor="tester", name="vera", role="viewer", record=record())
        token = new_token(connection, clock=home.clock, actor="tester", owner="vera", name="t")[1]
    home.close()
    monkeypatch.setenv("DAVY_TOKEN", token)
    where = ["--project", str(team.root), "alias", "late"]
    assert run([*where, "challenger", "--history"]) == 0
    assert run([*where, "challenger", "--at", "2100-01-01T00:00:00Z"]) == 0
    assert run(where) == 0
    assert run([*where, "challenger", "1"]) == 2
