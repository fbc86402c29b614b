"""The models as the project declares them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.project import FILES, Project, load_project

if TYPE_CHECKING:
    from davy.home import Home
    from davy.project import ModelDefinition


class Definitions:
    """A project's definitions, loaded again when one of its files has changed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._files: tuple[float, ...] = ()
        self._project: Project | None = None

    def get(self, model: str) -> ModelDefinition | None:
        """The model's, or None where the project does not declare it.

        Raises:
            DefinitionError: the project can't be loaded; raised once for each change of its files.
        """
        files = tuple(path.stat().st_mtime if (path := self._home.root / f"{name}.py").exists() else 0.0 for name in FILES)
        if files != self._files:
            self._files, self._project = files, None
            self._project = load_project(self._home.root)
        return None if self._project is None else self._project.models.get(model)
