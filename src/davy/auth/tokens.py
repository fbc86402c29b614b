"""Tokens: secrets for programs. Each belongs to a user, may be limited to a lesser role, expires, and can be revoked. It is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import sqlalchemy as sa

from davy.auth.permissions import lesser
from davy.auth.secrets import PREFIX, digest_of, new_secret
from davy.auth.users import changed, get_user
from davy.core.clock import new_id
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import tokens
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.auth.permissions import Role
    from davy.core.clock import Clock

LONGEST_NAME = 100
LEAST_ID = 6


class Token(msgspec.Struct, frozen=True):
    """A token without its secret. `role` is its limit, if it has one; times are microseconds, `used` to the minute."""

    id: str
    owner: str
    name: str
    role: Role | None
    created: int
    expires: int | None
    used: int | None
    revoked: int | None


def new_token(connection: sa.Connection, *, clock: Clock, actor: str, owner: str, name: str, role: Role | None = None,
              lasts: int | None = None) -> tuple[Token, str]:
    """A new token and its secret, which is kept nowhere.

    Args:
        role: what it may do at most; None for all that its owner may.
        lasts: microseconds until it expires; None for never.

    Raises:
        NotFound: no such user. Conflict: the user is disabled. InvalidInput: a name or a duration that can't be, or a role that its owner has not.
    """
    user = get_user(connection, owner)
    if user.disabled is not None:
        raise Conflict(f"{user.name} is disabled.", "A token is for somebody who is let in.", f"Let them in again: davy user enable {user.name}")
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"{name!r} can't be a token's name.", f"It says what the token is for, in 1 to {LONGEST_NAME} characters.", "Write: --name ci")
    if lasts is not None and lasts <= 0:
        raise InvalidInput("The token would have expired already.", "It lasts for some time, such as 90d.", "Write: --expires 90d")
    if role is not None and lesser(user.role, role) != role:
        raise InvalidInput(f"{user.name} is {user.role}, and the token was to be {role}.", "A token may do at most what its owner may.",
                           f"Leave --role out, or: davy user role {user.name} {role}")
    now, secret = clock.now(), new_secret(PREFIX)
    row = {"token_id": new_id(clock), "digest": digest_of(secret), "owner": user.name, "name": name.strip(), "role": role, "created": now,
           "expires": None if lasts is None else now + lasts, "used": None, "revoked": None}
    connection.execute(sa.insert(tokens).values(**row))
    changed(connection)
    journal.append(connection, clock=clock, actor=actor, action="token.created", subject=user.name,
                   details={"token": row["token_id"], "name": row["name"], "role": role, "expires": row["expires"]})
    return get_token(connection, cast("str", row["token_id"])), secret


def revoke_token(connection: sa.Connection, *, clock: Clock, actor: str, token_id: str) -> Token:
    """Refuse the token from now on. Revoking twice is a no-op.

    Raises:
        NotFound: no such token.
    """
    found = get_token(connection, token_id)
    if found.revoked is None:
        connection.execute(sa.update(tokens).where(tokens.c.token_id == found.id).values(revoked=clock.now()))
        changed(connection)
        journal.append(connection, clock=clock, actor=actor, action="token.revoked", subject=found.owner, details={"token": found.id, "name": found.name})
    return get_token(connection, found.id)


def get_token(connection: sa.Connection, token_id: str) -> Token:
    """The token whose id begins so.

    Raises:
        NotFound: none does, or several do.
    """
    rows = connection.execute(sa.select(tokens).where(tokens.c.token_id.startswith(token_id, autoescape=True)).limit(2)).all()
    if len(rows) != 1 or len(token_id) < LEAST_ID:
        raise NotFound(f"{'Several tokens have' if len(rows) > 1 else 'No token has'} an id that begins with {token_id!r}.",
                       f"An id is found by its first {LEAST_ID} or more characters.", "See them: davy token list")
    return _token(rows[0])


def list_tokens(connection: sa.Connection, *, owner: str | None = None) -> list[Token]:
    """The newest first, revoked and expired ones too."""
    query = sa.select(tokens).order_by(tokens.c.created.desc(), tokens.c.token_id.desc())
    return [_token(row) for row in connection.execute(query if owner is None else query.where(tokens.c.owner == owner))]


def note_used(connection: sa.Connection, used: Mapping[str, int]) -> None:
    """When each token was last used."""
    for token_id, moment in used.items():
        connection.execute(sa.update(tokens).where(tokens.c.token_id == token_id).values(used=moment))


def _token(row: sa.Row[tuple[object, ...]]) -> Token:
    return Token(row.token_id, row.owner, row.name, cast("Role | None", row.role), row.created, row.expires, row.used, row.revoked)
