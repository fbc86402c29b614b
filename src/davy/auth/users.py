"""Users: a name, a role, and a password unless they come with tokens alone. They are disabled, never deleted, because the journal names them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput, NotFound, nearest
from davy.schema.tables import auth_revision, sessions, tokens, users
from davy.store import journal
from davy.store.database import insert

if TYPE_CHECKING:
    from davy.auth.permissions import Role
    from davy.core.clock import Clock

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


class User(msgspec.Struct, frozen=True):
    """A user. `login` is whether there is a password; times are microseconds."""

    name: str
    role: Role
    login: bool
    created: int
    disabled: int | None


def parse_name(text: str) -> str:
    """The name in the form in which it is kept: small letters, so that no two look alike.

    Raises:
        InvalidInput: other characters than a user's name has.
    """
    found = text.strip().lower()
    if _NAME.fullmatch(found) is None:
        raise InvalidInput(f"{text!r} can't be a user's name.", "A name has 1 to 64 of a-z, 0-9 and . _ @ + -, and begins with a letter or digit.",
                           "Take for example ada or ada@example.com.")
    return found


def add_user(connection: sa.Connection, *, clock: Clock, actor: str, name: str, role: Role, record: str | None) -> User:
    """A new user.

    Args:
        record: what `secrets.password_record` made of the password; None for a user who comes with tokens alone.

    Raises:
        InvalidInput: a name that can't be. Conflict: it is taken.
    """
    name = parse_name(name)
    if _row(connection, name) is not None:
        raise Conflict(f"There is a user {name!r} already.", "A name belongs to one person for good, because the journal knows them by it.",
                       f"Take another name, or: davy user enable {name}")
    connection.execute(sa.insert(users).values(name=name, role=role, password=record, created=clock.now(), disabled=None))
    changed(connection)
    journal.append(connection, clock=clock, actor=actor, action="user.added", subject=name, details={"role": role, "password": record is not None})
    return get_user(connection, name)


def set_role(connection: sa.Connection, *, clock: Clock, actor: str, name: str, role: Role) -> User:
    """Give the user this role, for what they do from now on.

    Raises:
        NotFound: no such user. Conflict: it is the last admin.
    """
    before = get_user(connection, name)
    connection.execute(sa.update(users).where(users.c.name == before.name).values(role=role))
    _keep_an_admin(connection, before)
    changed(connection)
    journal.append(connection, clock=clock, actor=actor, action="user.role", subject=before.name, details={"before": before.role, "role": role})
    return get_user(connection, before.name)


def set_password(connection: sa.Connection, *, clock: Clock, actor: str, name: str, record: str) -> User:
    """Give the user the password of this record and end their sessions. Tokens stay.

    Raises:
        NotFound: no such user.
    """
    found = get_user(connection, name)
    connection.execute(sa.update(users).where(users.c.name == found.name).values(password=record))
    connection.execute(sa.delete(sessions).where(sessions.c.owner == found.name))
    changed(connection)
    journal.append(connection, clock=clock, actor=actor, action="user.password", subject=found.name, details={})
    return get_user(connection, found.name)


def disable_user(connection: sa.Connection, *, clock: Clock, actor: str, name: str) -> User:
    """Refuse the user from now on, end their sessions and revoke their tokens.

    Raises:
        NotFound: no such user. Conflict: it is the last admin.
    """
    found = get_user(connection, name)
    if found.disabled is None:
        now = clock.now()
        connection.execute(sa.update(users).where(users.c.name == found.name).values(disabled=now))
        _keep_an_admin(connection, found)
        ended = connection.execute(sa.delete(sessions).where(sessions.c.owner == found.name)).rowcount
        revoked = connection.execute(sa.update(tokens).where(tokens.c.owner == found.name, tokens.c.revoked.is_(None)).values(revoked=now)).rowcount
        changed(connection)
        journal.append(connection, clock=clock, actor=actor, action="user.disabled", subject=found.name, details={"sessions": ended, "tokens": revoked})
    return get_user(connection, found.name)


def enable_user(connection: sa.Connection, *, clock: Clock, actor: str, name: str) -> User:
    """Let a disabled user in again, with the password and role that they had. Revoked tokens stay revoked.

    Raises:
        NotFound: no such user.
    """
    found = get_user(connection, name)
    if found.disabled is not None:
        connection.execute(sa.update(users).where(users.c.name == found.name).values(disabled=None))
        changed(connection)
        journal.append(connection, clock=clock, actor=actor, action="user.enabled", subject=found.name, details={"role": found.role})
    return get_user(connection, found.name)


def get_user(connection: sa.Connection, name: str) -> User:
    """The user of that name.

    Raises:
        NotFound: there is none.
    """
    row = _row(connection, name.strip().lower())
    if row is None:
        raise NotFound(f"There is no user {name!r}.", nearest(name, [user.name for user in list_users(connection)]),
                       f"See them: davy user list, or make one: davy user add {name if _NAME.fullmatch(name) else 'NAME'}")
    return _user(row)


def list_users(connection: sa.Connection) -> list[User]:
    """All users by name, disabled ones too."""
    return [_user(row) for row in connection.execute(sa.select(users).order_by(users.c.name))]


def has_admin(connection: sa.Connection) -> bool:
    """Whether anybody can administer: an admin who is not disabled."""
    return connection.execute(sa.select(users.c.name).where(users.c.role == "admin", users.c.disabled.is_(None)).limit(1)).first() is not None


def changed(connection: sa.Connection) -> None:
    """Tell who keeps users, tokens or sessions in memory that they have changed."""
    row = insert(connection, auth_revision).values(id=1, revision=1)
    connection.execute(row.on_conflict_do_update(index_elements=["id"], set_={"revision": auth_revision.c.revision + 1}))


def _keep_an_admin(connection: sa.Connection, before: User) -> None:
    if before.role == "admin" and before.disabled is None and not has_admin(connection):
        raise Conflict(f"{before.name} is the last admin.", "Without an admin nobody could change users any more.",
                       "Make another admin first: davy user add NAME --role admin")


def _row(connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]] | None:
    return connection.execute(sa.select(users).where(users.c.name == name)).first()


def _user(row: sa.Row[tuple[object, ...]]) -> User:
    return User(row.name, cast("Role", row.role), row.password is not None, row.created, row.disabled)
