"""The command line: parse, call, print. Each verb is one file with a click command named `command`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davy.home import Home


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

    Args:
        anywhere: where there is no project, the folder itself will do.
    """
    from davy.errors import NotFound
    from davy.home import Home

    project, home = folders()
    try:
        return Home.open(project, home=home)
    except NotFound:
        if not anywhere:
            raise
    return Home(project or Path.cwd(), path=home)
