"""`davy token`: secrets for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.auth.permissions import ROLES, parse_role
from davy.cli import open_home, require
from davy.cli.output import note, print_json, table, when
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.auth.tokens import Token
    from davy.home import Home

SHORTEST_ID = 12


@click.group
def command() -> None:
    """Secrets with which programs say who they are: Authorization: Bearer davy_..., or DAVY_TOKEN, or MLFLOW_TRACKING_TOKEN.

    A token may do what its user may, or less. It is shown once; only its digest is kept.
    """


@command.command
@click.option("--name", required=True, help="What it is for, such as ci.")
@click.option("--user", "owner", metavar="NAME", help="Whose it is (default: yours).")
@click.option("--role", metavar="ROLE", help=f"At most this role: one of {', '.join(ROLES)} (default: all that its user may).")
@click.option("--expires", default="90d", show_default=True, metavar="DURATION", help="How long it lasts, such as 12h or 365d; never for always.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the token and its secret.")
def new(name: str, owner: str | None, role: str | None, expires: str, as_json: bool) -> None:
    """Make a token and print its secret, once."""
    from davy.auth.tokens import new_token
    from davy.core.time import parse_duration

    limit, lasts = parse_role(role) if role is not None else None, None if expires == "never" else parse_duration(expires)
    home = open_home()
    try:
        with home.database.begin() as connection:
            whose = _yours(connection, home) if owner is None else owner
            found, secret = new_token(connection, clock=home.clock, actor=home.actor, owner=whose, name=name, role=limit, lasts=lasts)
    finally:
        home.close()
    if as_json:
        print_json({**msgspec.to_builtins(found), "secret": secret})
        return
    print(secret)
    until = "never expires" if found.expires is None else f"expires at {when(found.expires)} UTC"
    note(f"This token of {found.owner} is not shown again; it {until}. Take it back with: davy token revoke {found.id}")


@command.command(name="list")
@click.option("--user", "owner", metavar="NAME", help="Only those of this user.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of tokens, without their secrets.")
def list_(owner: str | None, as_json: bool) -> None:
    """List tokens, the newest first; expired and revoked ones too."""
    from davy.auth.tokens import list_tokens

    home = open_home()
    try:
        with home.database.read() as connection:
            found, now = list_tokens(connection, owner=owner), home.clock.now()
    finally:
        home.close()
    if as_json:
        print_json([msgspec.to_builtins(token) for token in found])
        return
    digits = next(digits for digits in range(SHORTEST_ID, 33) if len({token.id[:digits] for token in found}) == len(found) or digits == 32)
    table([_row(token, digits, now) for token in found], empty="There are no tokens. Make one: davy token new --name ci")


@command.command
@click.argument("token")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the token.")
def revoke(token: str, as_json: bool) -> None:
    """Refuse the TOKEN, whose id begins so, from now on."""
    from davy.auth.tokens import get_token, revoke_token

    home = open_home()
    try:
        with home.database.begin() as connection:
            if get_token(connection, token).owner != home.actor:
                require("users.write")
            found, now = revoke_token(connection, clock=home.clock, actor=home.actor, token_id=token), home.clock.now()
    finally:
        home.close()
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        table([_row(found, 32, now)])


def _yours(connection: Connection, home: Home) -> str:
    from davy.auth.users import list_users

    users = [user.name for user in list_users(connection)]
    if home.actor not in users:
        raise InvalidInput(f"A token belongs to a user, and you ({home.actor}) are none.", f"Users: {', '.join(users) or 'none yet'}.",
                           "Say whose it is: --user NAME")
    return home.actor


def _row(token: Token, digits: int, now: int) -> dict[str, Any]:
    state = "revoked" if token.revoked is not None else "expired" if token.expires is not None and token.expires <= now else "valid"
    return {"token": token.id[:digits], "user": token.owner, "name": token.name, "role": token.role or "", "state": state,
            "expires (UTC)": when(token.expires) if token.expires is not None else "never", "last used (UTC)": when(token.used)}
