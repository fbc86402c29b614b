"""Registered models and versions are found by filters; prompts only by their tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from databases import open_at
from davy.errors import InvalidInput
from davy.registry.models import PROMPT_TAG as PROMPT
from davy.registry.search import search_models, search_versions
from davy.schema.tables import model_version_tags, model_versions, registered_model_tags, registered_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

MODELS = {"alpha": {"team": "ops", "stage": "new"}, "Beta": {"team": "Ops"}, "gamma": {}, "ask": {PROMPT: "true", "team": "ops"}, "plain": {PROMPT: "false"}}
# name, version, run, source, deleted, tags
VERSIONS: list[tuple[str, int, str | None, str | None, bool, dict[str, str]]] = [
    ("alpha", 1, "r1", "s3://b/1", False, {"team": "ops"}), ("alpha", 2, "r2", None, False, {}), ("alpha", 3, "r3", "x", True, {}),
    ("Beta", 1, None, "s3://B/2", False, {"team": "Ops"}), ("ask", 1, None, "p", False, {PROMPT: "true"}), ("ask", 2, None, "p", False, {})]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_at(tmp_path_factory.mktemp("registry") / "davy.db")
    with opened.begin() as connection:
        for place, (name, tags) in enumerate(MODELS.items()):
            connection.execute(sa.insert(registered_models).values(name=name, creation_time=place, last_update_time=100 - place // 2))
            for key, value in tags.items():
                connection.execute(sa.insert(registered_model_tags).values(name=name, key=key, value=value))
        for place, (name, version, run, source, deleted, tags) in enumerate(VERSIONS):
            connection.execute(sa.insert(model_versions).values(
                name=name, version=version, creation_time=place, last_update_time=50 - place // 2, user_id="ada", current_stage="None", run_id=run,
                source=source, status="READY", deleted=deleted))
            for key, value in tags.items():
                connection.execute(sa.insert(model_version_tags).values(name=name, version=version, key=key, value=value))
    yield opened
    opened.close()


def _models(database: Database, text: str, *order: str) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        with database.read() as connection:
            page = search_models(connection, filter=text, order_by=order, limit=2, after=after)
        found += page.names
        after = page.next
        if after is None:
            return found


def _versions(database: Database, text: str, *order: str) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        with database.read() as connection:
            page = search_versions(connection, filter=text, order_by=order, limit=1, after=after)
        found += [f"{name}@{version}" for name, version in page.versions]
        after = page.next
        if after is None:
            return found


@pytest.mark.parametrize(("text", "order", "names"), [
    ("", [], ["Beta", "alpha", "gamma", "plain"]),
    ("", ["name DESC"], ["plain", "gamma", "alpha", "Beta"]),
    ("", ["timestamp"], ["plain", "gamma", "Beta", "alpha"]),
    ("", ["last_updated_timestamp DESC", "name desc"], ["alpha", "Beta", "gamma", "plain"]),
    ("name LIKE '%a'", [], ["Beta", "alpha", "gamma"]),
    ("name ILIKE 'B%'", [], ["Beta"]),
    ("name in ('alpha', 'gamma', 'ask')", [], ["alpha", "gamma"]),
    ("tags.team = 'ops'", [], ["alpha"]),
    ("tags.team != 'ops'", [], ["Beta"]),
    ("tags.team ILIKE 'OPS' and tags.stage = 'new' and tags.stage != 'old'", [], ["alpha"]),
    ("not tags.team = 'ops'", [], ["Beta", "gamma", "plain"]),
    (f"tags.`{PROMPT}` = 'true'", [], ["ask"]),
    (f"tags.`{PROMPT}` != 'false'", [], ["ask"]),
    (f"tags.`{PROMPT}` = 'true' and tags.team = 'no'", [], []),
    (f"tags.`{PROMPT}` = 'false'", [], ["Beta", "alpha", "gamma", "plain"]),
    (f"tags.`{PROMPT}` != 'true' and name = 'gamma'", [], ["gamma"]),
    (f"tags.`{PROMPT}` = 'true' or name = 'gamma'", [], ["ask", "gamma"]),
])
def test_models(database: Database, text: str, order: list[str], names: list[str]) -> None:
    assert _models(database, text, *order) == names


@pytest.mark.parametrize(("text", "order", "names"), [
    ("", [], ["alpha@2", "alpha@1", "Beta@1"]),
    ("", ["version_number"], ["Beta@1", "alpha@1", "alpha@2"]),
    ("", ["name", "version_number ASC"], ["Beta@1", "alpha@1", "alpha@2"]),
    ("", ["creation_timestamp DESC"], ["Beta@1", "alpha@2", "alpha@1"]),
    ("name = 'alpha'", [], ["alpha@2", "alpha@1"]),
    ("version_number >= 2", [], ["alpha@2"]),
    ("version_number = '2'", [], ["alpha@2"]),
    ("version_number in (1, 3)", [], ["alpha@1", "Beta@1"]),
    ("run_id in ('r1', 'r3')", [], ["alpha@1"]),
    ("run_id != 'r1'", [], ["alpha@2"]),
    ("not run_id = 'r1'", [], ["alpha@2", "Beta@1"]),
    ("source_path LIKE 's3://b%'", [], ["alpha@1"]),
    ("source_path is null", [], ["alpha@2"]),
    ("tags.team ILIKE 'ops'", [], ["alpha@1", "Beta@1"]),
    (f"tags.`{PROMPT}` = 'true'", [], ["ask@1"]),
    (f"name = 'ask' and tags.`{PROMPT}` = 'false'", [], []),
])
def test_versions(database: Database, text: str, order: list[str], names: list[str]) -> None:
    assert _versions(database, text, *order) == names


@pytest.mark.parametrize(("find", "asked", "message"), [
    (search_models, {"filter": "nme = 'x'"}, "did you mean 'name'?"),
    (search_models, {"filter": "params.a = 'x'"}, "Invalid entity type 'params'"),
    (search_models, {"order_by": ["nam"]}, "Invalid order by key 'nam' specified. Valid keys are"),
    (search_models, {"order_by": ["timestamp", "last_updated_timestamp"]}, "duplicate fields"),
    (search_models, {"limit": 1001}, "1 to 1,000"),
    (search_versions, {"filter": "version_number > 'x'"}, "Invalid value for numeric attribute 'version_number': 'x'"),
    (search_versions, {"filter": "name > 'x'"}, "Invalid comparator for attribute: >"),
    (search_versions, {"filter": "tags.a > 'x'"}, "Invalid comparator for tag: >"),
    (search_versions, {"order_by": ["run_id"]}, "Invalid attribute key 'run_id'"),
    (search_versions, {"after": "x"}, "Invalid page token"),
])
def test_what_is_wrong_is_said(database: Database, find: Any, asked: dict[str, Any], message: str) -> None:
    with database.read() as connection, pytest.raises(InvalidInput) as caught:
        find(connection, **asked)
    assert message in str(caught.value)


def test_a_token_belongs_to_its_kind_and_filter(database: Database) -> None:
    with database.read() as connection:
        token = search_models(connection, limit=1).next
        assert search_models(connection, limit=1, after=token).names == ["alpha"]
        for find, asked in ((search_models, {"filter": "name != 'x'"}), (search_models, {"order_by": ["name"]}), (search_versions, {})):
            with pytest.raises(InvalidInput, match="Invalid page token"):
                find(connection, after=token, **asked)  # type: ignore[operator]
