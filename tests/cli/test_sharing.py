"""Users, tokens and roles on the command line."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from databases import write_settings
from davy.auth.permissions import action_of_verb, known_verbs
from davy.auth.secrets import PREFIX
from davy.cli.main import run
from davy.home import Home
from davy.store import journal
from serving_kit import add_version

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "correct horse battery\n"


class Terminal:
    """One person's command line in the project."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._monkeypatch, self._capsys = root, monkeypatch, capsys
        monkeypatch.chdir(root)
        monkeypatch.delenv("DAVY_TOKEN", raising=False)

    def type(self, *words: str, stdin: str = "", token: str = "") -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with self._monkeypatch.context() as patch:
            if token:
                patch.setenv("DAVY_TOKEN", token)
            code = run(words)
        out, error = self._capsys.readouterr()
        return code, out, error

    def told(self, *words: str, stdin: str = "", token: str = "") -> Any:
        code, out, error = self.type(*words, "--json", stdin=stdin, token=token)
        assert code == 0, error
        return json.loads(out)

    def refused(self, *words: str, stdin: str = "", token: str = "") -> str:
        code, out, error = self.type(*words, stdin=stdin, token=token)
        assert (code, out) == (2, ""), (code, out, error)
        return error

    def require(self) -> None:
        write_settings(self.root, 'project = "shop"\n[auth]\nrequired = true\n')


@pytest.fixture
def terminal(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(project, monkeypatch, capsys)


def test_a_user_from_their_first_day_to_their_last(terminal: Terminal) -> None:
    assert "davy user add NAME --role admin" in terminal.type("user", "list")[1]
    assert terminal.told("user", "add", "Ada", "--role", "admin", stdin=PASSWORD)["name"] == "ada"
    assert terminal.told("user", "add", "ci", "--role", "scientist", "--no-password")["login"] is False
    assert terminal.told("user", "role", "ci", "viewer")["role"] == "viewer"
    assert terminal.told("user", "password", "ci", stdin="another password\n")["login"] is True
    assert terminal.told("user", "disable", "ci")["disabled"] is not None
    assert [(user["name"], user["disabled"] is None) for user in terminal.told("user", "list")] == [("ada", True), ("ci", False)]
    assert "by password" in terminal.type("user", "enable", "ci")[1]
    assert "last admin" in terminal.refused("user", "disable", "ada")
    home = Home(terminal.root)
    with home.database.read() as connection:
        told = [(entry.actor, entry.action, entry.subject) for entry in journal.entries(connection)]
    home.close()
    assert told == [("tester", f"user.{action}", name) for action, name in (
        ("enabled", "ci"), ("disabled", "ci"), ("password", "ci"), ("role", "ci"), ("added", "ci"), ("added", "ada"))]


def test_a_token_is_printed_once_and_listed_without_its_secret(terminal: Terminal) -> None:
    terminal.told("user", "add", "tester", "--role", "scientist", "--no-password")
    code, out, error = terminal.type("token", "new", "--name", "ci")
    assert code == 0
    assert out.startswith(PREFIX)
    assert out.count("\n") == 1
    assert "is not shown again" in error
    forever = terminal.told("token", "new", "--name", "robot", "--user", "tester", "--role", "viewer", "--expires", "never")
    assert (forever["owner"], forever["role"], forever["expires"]) == ("tester", "viewer", None)
    listed = terminal.type("token", "list")[1]
    assert listed.count("valid") == 2
    assert out.strip() not in listed
    assert terminal.told("token", "revoke", forever["id"])["revoked"] is not None
    assert [(token["name"], token["revoked"] is None) for token in terminal.told("token", "list", "--user", "tester")] == [("robot", False), ("ci", True)]


@pytest.mark.parametrize(("words", "stdin", "says"), [
    (["user", "add", "a b", "--role", "viewer"], PASSWORD, "can't be a user's name"),
    (["user", "add", "bob", "--role", "vewer"], PASSWORD, "did you mean 'viewer'"),
    (["user", "add", "bob", "--role", "viewer"], "", "No password came on stdin"),
    (["user", "add", "bob", "--role", "viewer"], "short\n", "5 characters"),
    (["user", "add", "bob"], PASSWORD, "--role"),
    (["user", "add", "bob", "--role", "viewer", "--password", "x"], "", "--password"),
    (["user", "role", "bob", "viewer"], "", "no user 'bob'"),
    (["user", "password", "bob"], PASSWORD, "no user 'bob'"),
    (["token", "new", "--name", "ci"], "", "you (tester) are none"),
    (["token", "new", "--name", "ci", "--user", "bob"], "", "no user 'bob'"),
    (["token", "new", "--name", "ci", "--expires", "soon"], "", "soon"),
    (["token", "revoke", "abc"], "", "No token has"),
])
def test_what_is_wrong_is_told_and_changes_nothing(terminal: Terminal, words: list[str], stdin: str, says: str) -> None:
    assert says in terminal.refused(*words, stdin=stdin)
    home = Home(terminal.root)
    with home.database.read() as connection:
        assert journal.entries(connection) == []
    home.close()


def test_a_laptop_asks_nobody_who_they_are_even_if_there_are_users(terminal: Terminal) -> None:
    terminal.told("user", "add", "ada", "--role", "admin", "--no-password")
    terminal.told("user", "add", "bob", "--role", "viewer", "--no-password", token="davy_of_another_home")


def test_where_a_login_is_required_the_first_admin_is_made_freely_and_then_a_role_is_asked_for(terminal: Terminal) -> None:
    terminal.require()
    terminal.told("user", "add", "ada", "--role", "admin", "--no-password")
    error = terminal.refused("user", "add", "bob", "--role", "viewer", "--no-password")
    assert "DAVY_TOKEN is not set" in error
    assert "davy token new --user NAME" in error


def test_where_a_login_is_required_the_token_says_who_acts_and_its_role_what_they_may(terminal: Terminal) -> None:
    terminal.told("user", "add", "ada", "--role", "admin", "--no-password")
    terminal.told("user", "add", "bob", "--role", "scientist", "--no-password")
    ada, bob, spare = (terminal.told("token", "new", "--name", "t", "--user", name) for name in ("ada", "bob", "bob"))
    terminal.require()
    assert terminal.told("audit")["broken"] is None
    assert "may not move traffic" in terminal.refused("traffic", "late", "late@1=1", token=bob["secret"])
    assert "no model 'late'" in terminal.refused("traffic", "late", token=bob["secret"])
    assert "no model 'late'" in terminal.refused("traffic", "late", "late@1=1", token=ada["secret"])
    assert "may not change users" in terminal.refused("token", "new", "--name", "mine", token=bob["secret"])
    assert "may not change users" in terminal.refused("token", "revoke", ada["id"], token=bob["secret"])
    assert terminal.told("token", "revoke", spare["id"], token=bob["secret"])["revoked"] is not None
    assert "not a valid token" in terminal.refused("token", "revoke", spare["id"], token=spare["secret"])
    terminal.told("user", "disable", "bob", token=ada["secret"])
    assert "not a valid token" in terminal.refused("token", "revoke", spare["id"], token=bob["secret"])
    home = Home(terminal.root)
    with home.database.read() as connection:
        told = [(entry.actor, entry.action) for entry in journal.entries(connection, limit=2)]
    home.close()
    assert told == [("ada", "user.disabled"), ("bob", "token.revoked")]


def test_a_protected_alias_is_a_releasers_to_move(terminal: Terminal) -> None:
    home = Home(terminal.root)
    add_version(home)
    home.close()
    for name in ("admin", "releaser", "scientist"):
        terminal.told("user", "add", name, "--role", name, "--no-password")
    tokens = {name: terminal.told("token", "new", "--name", "t", "--user", name)["secret"] for name in ("releaser", "scientist")}
    write_settings(terminal.root, 'project = "shop"\n[auth]\nrequired = true\n[registry]\nprotected = ["production"]\n')
    assert terminal.told("alias", "fraud", "staging", "1", token=tokens["scientist"])["staging"] == 1
    assert "is protected" in terminal.refused("alias", "fraud", "production", "1", token=tokens["scientist"])
    assert terminal.told("alias", "fraud", "production", "1", token=tokens["releaser"])["production"] == 1
    assert "is protected" in terminal.refused("alias", "fraud", "production", "--delete", token=tokens["scientist"])


CHANGING = ("ingest flights", "push flights", "outcomes push davy.toml", "train late", "reproduce 0123456789ab", "import mlflow mlruns", "sync", "gate late",
            "gate late --override why", "release late@1", "promote late", "pause late", "resume late", "abort late", "rollback late", "gc",
            "user add x --role viewer --no-password", "user role x viewer", "user disable x", "user enable x", "token new --name x",
            "token revoke 0123456789ab", "traffic late late@1=1", "alias late production 1", "alias late production --delete")


@pytest.mark.parametrize("words", CHANGING)
def test_whatever_changes_something_asks_who_types_it(terminal: Terminal, words: str) -> None:
    terminal.told("user", "add", "ada", "--role", "admin", "--no-password")
    terminal.require()
    assert "DAVY_TOKEN is not set" in terminal.refused(*words.split())


def test_those_are_all_verbs_that_change_something() -> None:
    assert {words.split()[0] for words in CHANGING} >= {verb for verb in known_verbs() if action_of_verb(verb, {}) not in (None, "read")}
