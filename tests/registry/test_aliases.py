"""Aliases move, are told of afterwards, and some not by everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.errors import Forbidden, InvalidInput, NotFound
from davy.registry import aliases, catalog, versions
from davy.registry.alias_history import alias_at, alias_history
from davy.registry.aliases import Protection
from davy.registry.models import find_alias
from davy.registry.sources import Source
from davy.schema.tables import gates
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home

HELD = Protection.of(["production", "late@blessed"], "scientist")


def _do(home: Home, work: Callable[..., Any], actor: str = "ada", **given: Any) -> Any:
    with home.database.begin() as connection:
        return work(connection, clock=home.clock, actor=actor, **given)


def _model(home: Home, name: str = "late", count: int = 3) -> None:
    _do(home, catalog.create_model, name=name)
    for _ in range(count):
        _do(home, versions.create_version, name=name, source=Source("s3://bucket/model"))


def _set(home: Home, version: int, alias: str = "production", name: str = "late", **more: Any) -> int:
    """Move the alias; returns the moment after."""
    _do(home, aliases.set_alias, name=name, alias=alias, version=version, **more)
    return home.clock.now()


def _history(home: Home, name: str = "late", alias: str | None = "production") -> list[tuple[str, int | None, int | None, str]]:
    with home.database.read() as connection:
        assert journal.verify(connection).broken is None
        return [(change.model, change.before, change.version, change.actor) for change in alias_history(connection, name, alias)]


def _then(home: Home, moment: int, name: str = "late", alias: str = "production") -> int | None:
    with home.database.read() as connection:
        return alias_at(connection, name, alias, moment).version


def test_what_an_alias_meant_at_any_moment(home: Home) -> None:
    _model(home)
    first = _set(home, 1)
    second = _set(home, 2, actor="bob", evidence={"reason": "better on 2 March"})
    _set(home, 3, alias="other")
    _do(home, aliases.delete_alias, name="late", alias="production", actor="eve")
    assert _history(home) == [("late", 2, None, "eve"), ("late", 1, 2, "bob"), ("late", None, 1, "ada")]
    assert [_then(home, moment) for moment in (first, second, home.clock.now())] == [1, 2, None]
    with home.database.read() as connection:
        change = alias_at(connection, "late", "production", second)
        assert change.evidence == {"reason": "better on 2 March"}
        assert (change.seq, change.digest) in {(entry.seq, entry.digest) for entry in journal.entries(connection, action="alias.set")}
        with pytest.raises(NotFound, match="had not been set by"):
            alias_at(connection, "late", "production", change.time - 10**9)
        with pytest.raises(NotFound, match="never been set"):
            alias_at(connection, "late", "prod", home.clock.now())
        with pytest.raises(NotFound, match="did you mean 'late'"):
            alias_history(connection, "lat")


def test_the_version_s_newest_gate_is_evidence(home: Home) -> None:
    _model(home)
    with home.database.begin() as connection:
        for number, state in ((1, "failed"), (2, "passed")):
            connection.execute(sa.insert(gates).values(gate_id=f"g{number}", name="late", version=2, state=state, complete=True, time=number, actor="ada",
                                                       digest="sha256:0", evidence="{}", seq=number))
    _set(home, 1)
    _set(home, 2, evidence={"release": "r1"})
    with home.database.read() as connection:
        found = alias_history(connection, "late", "production")
    assert [change.evidence for change in found] == [{"release": "r1", "gate": "g2", "verdict": "passed"}, {}]


def test_history_follows_a_rename_and_does_not_mix_up_who_has_the_name_later(home: Home) -> None:
    _model(home)
    _set(home, 1)
    _do(home, catalog.rename_model, name="late", to="delayed")
    _set(home, 2, name="delayed")
    _model(home)
    _set(home, 3)
    assert _history(home) == [("late", None, 3, "ada")]
    assert _history(home, "delayed") == [("delayed", 1, 2, "ada"), ("late", None, 1, "ada")]
    _do(home, catalog.rename_model, name="late", to="early")
    _do(home, catalog.rename_model, name="delayed", to="late")
    assert _history(home) == [("delayed", 1, 2, "ada"), ("late", None, 1, "ada")]
    assert _history(home, "early") == [("late", None, 3, "ada")]


def test_what_goes_takes_its_aliases_along_and_says_so(home: Home) -> None:
    _model(home)
    _set(home, 2)
    _do(home, versions.delete_version, name="late", version=2)
    _set(home, 3)
    _do(home, catalog.delete_model, name="late")
    assert _history(home) == [("late", 3, None, "ada"), ("late", None, 3, "ada"), ("late", 2, None, "ada"), ("late", None, 2, "ada")]
    with home.database.read() as connection:
        found = alias_history(connection, "late", "production")
    assert [change.evidence.get("because") for change in found] == ["the model was deleted", None, "version 2 was deleted", None]


@pytest.mark.parametrize(("alias", "refused"), [("production", True), ("blessed", True), ("challenger", False)])
def test_a_protected_alias_is_moved_by_a_releaser_only(home: Home, alias: str, refused: bool) -> None:
    _model(home)
    _set(home, 1, alias=alias, protection=Protection.of(["production", "late@blessed"], "releaser"))
    steps: list[Callable[[], Any]] = [
        lambda: _set(home, 2, alias=alias, protection=HELD),
        lambda: _do(home, versions.delete_version, name="late", version=2, protection=HELD),
        lambda: _do(home, catalog.rename_model, name="late", to="delayed", protection=HELD),
        lambda: _do(home, aliases.delete_alias, name="delayed", alias=alias, protection=HELD),
        lambda: _do(home, catalog.delete_model, name="delayed", protection=HELD)]
    if not refused:
        for step in steps:
            step()
        return
    _set(home, 1, alias=alias, protection=HELD)  # it means that already
    for step in (steps[0], lambda: _do(home, versions.delete_version, name="late", version=1, protection=HELD), steps[2],
                 lambda: _do(home, aliases.delete_alias, name="late", alias=alias, protection=HELD),
                 lambda: _do(home, catalog.delete_model, name="late", protection=HELD)):
        with pytest.raises(Forbidden, match=r"protected[\s\S]*releaser"):
            step()
    with home.database.read() as connection:
        found = find_alias(connection, "late", alias)
    assert found is not None
    assert found.version == 1


@pytest.mark.parametrize("role", ["releaser", "admin"])
def test_who_may_is_let(home: Home, role: str) -> None:
    _model(home)
    _set(home, 1, protection=Protection.of(["production"], role))
    _do(home, catalog.delete_model, name="late", protection=Protection.of(["production"], role))


def test_a_protected_alias_of_one_model_is_free_in_another(home: Home) -> None:
    _model(home)
    _model(home, "early")
    _set(home, 1, alias="blessed", name="early", protection=HELD)
    with pytest.raises(Forbidden):
        _set(home, 1, alias="blessed", protection=HELD)


def test_no_rename_makes_a_protected_alias(home: Home) -> None:
    _model(home, "early")
    _set(home, 1, alias="blessed", name="early", protection=HELD)
    with pytest.raises(Forbidden, match="alias 'blessed' of 'late' is protected"):
        _do(home, catalog.rename_model, name="early", to="late", protection=HELD)
    _do(home, catalog.rename_model, name="early", to="later", protection=HELD)


def test_an_alias_is_one_word(home: Home) -> None:
    _model(home, count=1)
    for alias in ("", "a b", "v1", "Latest", "x" * 256):
        with pytest.raises(InvalidInput, match="alias"):
            _set(home, 1, alias=alias)
    _set(home, 1, alias="123")  # MLflow's clients may; late@123 is version 123 all the same
