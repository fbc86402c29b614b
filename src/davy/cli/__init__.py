"""The command line: parse, call, print. Each verb is one file with a click command named `command`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from davy.auth.permissions import Identity, Role
    from davy.home import Home

_IDENTITY = "davy.identity"


def folders() -> tuple[Path | None, Path | None]:
    """What `--project` and `--home` said in the command that is running, before or after its verb."""
    import click

    found: dict[str, Path | None] = {"project": None, "home": None}
    context = click.get_current_context(silent=True)
    while context is not None:
        for name in found:
            value = context.meta.get(f"davy.{name}")
            found[name] = found[name] or (Path(value) if value else None)
        context = context.parent
    return found["project"], found["home"]


def open_home(*, anywhere: bool = False) -> Home:
    """The home that this command works on: of the project in `--project` (default: around the working directory).

    Where `auth.required` is set, who types the command is asked too, and acts under that name.

    Args:
        anywhere: where there is no project, the folder itself will do.

    Raises:
        Unauthenticated, Forbidden: the command takes a role, and there is no token, or one of a lesser role.
    """
    home = _open(anywhere)
    if home.config.auth.required:
        import click

        from davy.auth.local import identify

        try:
            verb, given = _asked()
            click.get_current_context().meta[_IDENTITY] = identity = identify(home, verb, given)
            home.act_as(identity.name)
        except BaseException:
            home.close()
            raise
    return home


def require(action: str) -> None:
    """Let the command that has opened a home go on with this.

    Raises:
        Forbidden: `auth.required` is set, and the role of who types does not suffice.
    """
    identity = _identity()
    if identity is not None:
        from davy.auth import permissions

        permissions.require(identity, action)


def role() -> Role:
    """The role of who types, once the command has opened a home; an admin's where nobody is asked."""
    identity = _identity()
    return "admin" if identity is None else identity.role


def _identity() -> Identity | None:
    import click

    found: Identity | None = click.get_current_context().meta.get(_IDENTITY)
    return found


def _open(anywhere: bool) -> Home:
    from davy.errors import NotFound
    from davy.home import Home

    project, home = folders()
    try:
        return Home.open(project, home=home)
    except NotFound:
        if not anywhere:
            raise
    return Home(project or Path.cwd(), path=home)


def _asked() -> tuple[str, dict[str, Any]]:
    """The verb that is running, its subcommand's name as `action`, and what it was given."""
    import click

    context = click.get_current_context()
    given = dict(context.params)
    names = []
    while context.parent is not None:
        names.append(context.info_name or "")
        context = context.parent
    verb, *rest = reversed(names) if names else ("",)
    return verb, {**given, "action": rest[0] if rest else None}
