"""`davy user`: who may log in, and with which role."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.auth.permissions import ROLES, parse_role
from davy.cli import open_home
from davy.cli.output import print_json, table, when
from davy.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.auth.users import User
    from davy.home import Home


@click.group
def command() -> None:
    """Who may log in, and with which role: viewer, scientist, releaser or admin; each may do what those before it may.

    Users are disabled, never deleted, because the journal names them. Passwords are asked for, or read as one line of stdin; never give one
    as an argument.
    """


_json = click.option("--json", "as_json", is_flag=True, help="One JSON object: the user.")


@command.command
@click.argument("name")
@click.option("--role", required=True, metavar="ROLE", help=f"One of {', '.join(ROLES)}.")
@click.option("--no-password", is_flag=True, help="A user without a login, for programs that come with tokens.")
@_json
def add(name: str, role: str, no_password: bool, as_json: bool) -> None:
    """Make the user NAME."""
    from davy.auth.secrets import password_record
    from davy.auth.users import add_user, parse_name

    checked, name = parse_role(role), parse_name(name)
    home = open_home()
    record = None if no_password else password_record(name, _password(name))
    _change(home, lambda connection, who: add_user(connection, **who, name=name, role=checked, record=record), as_json)


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of users.")
def list_(as_json: bool) -> None:
    """List all users, disabled ones too."""
    from davy.auth.users import list_users

    home = open_home()
    try:
        with home.database.read() as connection:
            found = list_users(connection)
    finally:
        home.close()
    if as_json:
        print_json([msgspec.to_builtins(user) for user in found])
        return
    table([_row(user) for user in found], empty="There are no users. Make the first: davy user add NAME --role admin")


@command.command
@click.argument("name")
@click.argument("role", metavar="ROLE")
@_json
def role(name: str, role: str, as_json: bool) -> None:
    """Give the user NAME another ROLE."""
    from davy.auth.users import set_role

    checked = parse_role(role)
    _change(open_home(), lambda connection, who: set_role(connection, **who, name=name, role=checked), as_json)


@command.command
@click.argument("name")
@_json
def password(name: str, as_json: bool) -> None:
    """Give the user NAME a new password, and end their sessions."""
    from davy.auth.secrets import password_record
    from davy.auth.users import get_user, set_password

    home = open_home()
    with home.database.read() as connection:
        known = get_user(connection, name).name
    record = password_record(known, _password(known))
    _change(home, lambda connection, who: set_password(connection, **who, name=known, record=record), as_json)


@command.command
@click.argument("name")
@_json
def disable(name: str, as_json: bool) -> None:
    """Refuse the user NAME from now on: their sessions end, and their tokens are revoked for good."""
    from davy.auth.users import disable_user

    _change(open_home(), lambda connection, who: disable_user(connection, **who, name=name), as_json)


@command.command
@click.argument("name")
@_json
def enable(name: str, as_json: bool) -> None:
    """Let the disabled user NAME in again."""
    from davy.auth.users import enable_user

    _change(open_home(), lambda connection, who: enable_user(connection, **who, name=name), as_json)


def _change(home: Home, work: Callable[[Any, dict[str, Any]], User], as_json: bool) -> None:
    try:
        with home.database.begin() as connection:
            found = work(connection, {"clock": home.clock, "actor": home.actor})
    finally:
        home.close()
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        table([_row(found)])


def _row(user: User) -> dict[str, Any]:
    return {"user": user.name, "role": user.role, "logs in": "no, disabled" if user.disabled is not None else "by password" if user.login else "by token alone",
            "since (UTC)": when(user.created)}


def _password(name: str) -> str:
    """From the terminal, twice and unseen, or one line of stdin."""
    if sys.stdin.isatty():
        found: str = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
        return found
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise InvalidInput("No password came on stdin.", "It is one line.", "Type the command in a terminal, or pipe the password into it.")
    return line
