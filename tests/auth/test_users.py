"""Users and tokens as they are kept: each change with its entry in the journal, and no secret anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.auth.secrets import PREFIX, password_record, verify_password
from davy.auth.tokens import get_token, list_tokens, new_token, revoke_token
from davy.auth.users import add_user, disable_user, enable_user, get_user, has_admin, list_users, parse_name, set_password, set_role
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import auth_revision, tokens, users
from davy.store import journal

from .conftest import NOW, PASSWORD, Team, record

if TYPE_CHECKING:
    from davy.home import Home


def who(team: Team) -> dict[str, Any]:
    return {"clock": team.clock, "actor": "root"}


def last(home: Home) -> tuple[str, str, str, dict[str, Any]]:
    with home.database.read() as connection:
        entry = journal.entries(connection, limit=1)[0]
        assert journal.verify(connection).broken is None
    return entry.actor, entry.action, entry.subject, entry.details


def revision(home: Home) -> int:
    with home.database.read() as connection:
        return connection.execute(sa.select(auth_revision.c.revision)).scalar_one()


def test_every_change_of_a_user_is_journaled_and_raises_the_revision(team: Team) -> None:
    database, seen = team.home.database, revision(team.home)
    changes: list[tuple[Any, str, dict[str, Any]]] = [
        (lambda connection: add_user(connection, **who(team), name="Bob", role="viewer", record=record()), "user.added", {"role": "viewer", "password": True}),
        (lambda connection: set_role(connection, **who(team), name="bob", role="releaser"), "user.role", {"before": "viewer", "role": "releaser"}),
        (lambda connection: set_password(connection, **who(team), name="bob", record=record()), "user.password", {}),
        (lambda connection: disable_user(connection, **who(team), name="bob"), "user.disabled", {"sessions": 0, "tokens": 0}),
        (lambda connection: enable_user(connection, **who(team), name="bob"), "user.enabled", {"role": "releaser"}),
    ]
    for change, action, details in changes:
        with database.begin() as connection:
            assert change(connection).name == "bob"
        assert last(team.home) == ("root", action, "bob", details)
        assert revision(team.home) == seen + 1
        seen += 1


def test_what_changes_nothing_is_not_journaled(team: Team) -> None:
    team.add("bob", "viewer")
    with team.home.database.begin() as connection:
        disable_user(connection, **who(team), name="bob")
        before = len(journal.entries(connection))
        disable_user(connection, **who(team), name="bob")
        enable_user(connection, **who(team), name="ada")
        assert len(journal.entries(connection)) == before


def test_the_last_admin_stays(team: Team) -> None:
    for change in (lambda connection: set_role(connection, **who(team), name="ada", role="releaser"),
                   lambda connection: disable_user(connection, **who(team), name="ada")):
        with pytest.raises(Conflict, match="last admin"), team.home.database.begin() as connection:
            change(connection)
        with team.home.database.read() as connection:
            assert get_user(connection, "ada").role == "admin"
            assert has_admin(connection)
    team.add("bob", "admin")
    with team.home.database.begin() as connection:
        disable_user(connection, **who(team), name="ada")
        assert [(user.name, user.disabled) for user in list_users(connection)] == [("ada", NOW), ("bob", None)]


def test_a_name_belongs_to_one_person(team: Team) -> None:
    with pytest.raises(Conflict, match="'ada' already"), team.home.database.begin() as connection:
        add_user(connection, **who(team), name="ADA", role="viewer", record=None)
    with pytest.raises(NotFound, match="did you mean 'ada'"), team.home.database.read() as connection:
        get_user(connection, "adda")


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "ä", "аda", "-a", ".a", "a/b", "a\0", "a" * 65, "a\nb", "(unknown)"])
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="can't be a user's name"):
        parse_name(name)


@pytest.mark.parametrize(("password", "message"), [("short", "5 characters"), ("x" * 1025, "1025 characters"), ("Ada-12345678", "user's name"), ("", "0 char"),
                                                   ("davy_jones_locker", "begins with 'davy_'")])
def test_what_can_be_no_password_is_refused(password: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        password_record("ada", password)


def test_a_password_is_kept_as_its_record_with_its_cost(team: Team) -> None:
    kept = record()
    assert PASSWORD not in kept
    assert kept.split("$")[:4] == ["scrypt", "32768", "8", "3"]
    assert verify_password(PASSWORD, kept)
    assert not verify_password(PASSWORD + " ", kept)
    # A record of another cost, as an older or newer version may have written it (RFC 7914's own example, with 32 of its 64 bytes).
    assert verify_password("password", "scrypt$1024$8$16$TmFDbA==$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI=")
    assert not verify_password(PASSWORD, None)


def test_the_same_password_typed_in_another_form_of_unicode_is_the_same() -> None:
    assert verify_password("pa\u0308sswo\u0308rter", password_record("ada", "p\u00e4ssw\u00f6rter"))


def test_a_token_is_shown_once_and_kept_as_its_digest(team: Team) -> None:
    found, secret = team.token(lasts=3_600_000_000)
    assert secret.startswith(PREFIX)
    assert len(secret) == len(PREFIX) + 43
    assert (found.owner, found.created, found.expires, found.used, found.revoked) == ("ada", NOW, NOW + 3_600_000_000, None, None)
    with team.home.database.read() as connection:
        stored = "".join(str(row) for table in (tokens, users) for row in connection.execute(sa.select(table)))
        told = "".join(str(entry) for entry in journal.entries(connection))
    assert secret not in stored + told
    assert secret[len(PREFIX):] not in stored + told
    assert last(team.home)[1:3] == ("token.created", "ada")


def test_a_revoked_token_stays_in_the_list(team: Team) -> None:
    found, _ = team.token()
    other, _ = team.token()
    for _ in range(2):
        with team.home.database.begin() as connection:
            assert revoke_token(connection, **who(team), token_id=found.id).revoked == NOW
    assert last(team.home)[1] == "token.revoked"
    with team.home.database.read() as connection:
        assert {token.id: token.revoked for token in list_tokens(connection, owner="ada")} == {found.id: NOW, other.id: None}
        assert list_tokens(connection, owner="bob") == []
        for prefix in (found.id[:5], "", "%", "_" * 6, found.id[:10]):  # too short, no ids, and the beginning of both
            with pytest.raises(NotFound):
                get_token(connection, prefix)
        assert get_token(connection, found.id).id == found.id


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"owner": "eve"}, NotFound, "no user 'eve'"),
    ({"owner": "gone"}, Conflict, "gone is disabled"),
    ({"name": " "}, InvalidInput, "token's name"),
    ({"name": "x" * 101}, InvalidInput, "token's name"),
    ({"name": "a\nb"}, InvalidInput, "token's name"),
    ({"lasts": 0}, InvalidInput, "expired already"),
    ({"owner": "vera", "role": "admin"}, InvalidInput, "vera is viewer, and the token was to be admin"),
])
def test_a_token_that_cannot_be_is_refused(team: Team, change: dict[str, Any], error: type[Exception], message: str) -> None:
    team.add("vera", "viewer", login=False)
    team.add("gone", "viewer", login=False)
    with team.home.database.begin() as connection:
        disable_user(connection, **who(team), name="gone")
    with pytest.raises(error, match=message), team.home.database.begin() as connection:
        new_token(connection, **{**who(team), "owner": "ada", "name": "ci", **change})


def test_disabling_a_user_revokes_their_tokens_for_good(team: Team) -> None:
    team.add("bob", "viewer")
    team.token("bob")
    with team.home.database.begin() as connection:
        disable_user(connection, **who(team), name="bob")
    assert last(team.home)[3] == {"sessions": 0, "tokens": 1}
    with team.home.database.begin() as connection:
        enable_user(connection, **who(team), name="bob")
        assert [token.revoked for token in list_tokens(connection, owner="bob")] == [NOW]
