"""Finds and checks a project's definitions before anything runs: features.py and models.py beside davy.toml."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.code import forget, importing_from, is_own
from davy.errors import DavyError, DefinitionError, NotFound, nearest
from davy.features.define import Derived, Model, Resolver, Stream, View

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from davy.features.definition import ModelSpec, StreamSpec, ViewSpec
    from davy.features.kpi import Kpi

FILES = ("features", "models")


@dataclass(frozen=True)
class ModelDefinition:
    """A model as the project declares it, checked."""

    spec: ModelSpec
    declared: Model

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def train(self) -> Callable[..., Any]:
        return self.declared.train

    @property
    def spine(self) -> Any:
        return self.declared.spine

    @property
    def label(self) -> Callable[[Any], Any] | None:
        return self.declared.outcome.label

    @property
    def kpis(self) -> tuple[Kpi, ...]:
        return self.declared.kpis


@dataclass(frozen=True)
class Project:
    """Everything that a project defines, by name."""

    root: Path
    streams: dict[str, StreamSpec] = field(default_factory=dict)
    views: dict[str, type[View]] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    models: dict[str, ModelDefinition] = field(default_factory=dict)

    @property
    def resolver(self) -> Resolver:
        """Resolves names against this project."""
        return Resolver(self.views.values(), self.derived.values())

    def model(self, name: str) -> ModelDefinition:
        """The model of that name, or `NotFound` with the nearest."""
        if name not in self.models:
            raise NotFound(f"There is no model {name!r} in {self.root / 'models.py'}.", nearest(name, self.models), "Declare it with @davy.model.")
        return self.models[name]

    def stream(self, name: str) -> StreamSpec:
        """The stream of that name, or `NotFound` with the nearest."""
        if name not in self.streams:
            raise NotFound(f"There is no stream {name!r} in {self.root / 'features.py'}.", nearest(name, self.streams), "Declare it: davy.Stream(...).")
        return self.streams[name]

    def view_specs(self) -> list[tuple[StreamSpec, ViewSpec]]:
        """Every view with its stream."""
        return [(view.stream.spec, view.spec) for view in self.views.values()]


def load_project(root: Path) -> Project:
    """Run features.py and models.py of this folder, collect what they define, and check it all.

    Raises:
        DefinitionError: with file and line; also for two streams, views or models of one name.
    """
    root = root.resolve()
    project = Project(root)
    forget()
    for name in FILES:
        path = root / f"{name}.py"
        sys.modules.pop(name, None)
        if path.exists():
            lines = _lines(path)
            _collect(project, _run(name, path), path, lines)
    for definition in list(project.models):
        declared: Any = project.models[definition]
        try:
            project.models[definition] = ModelDefinition(project.resolver.model(declared), declared)
        except DavyError as error:
            code = declared.train.__code__
            raise _located(error, f"{Path(code.co_filename).name}:{code.co_firstlineno}") from None
    return project


def load_module(root: Path, name: str) -> ModuleType | None:
    """Run one further file of a project's folder, after `load_project`; None where there is no such file.

    Raises:
        DefinitionError: with file and line.
    """
    path = root.resolve() / f"{name}.py"
    if not path.exists():
        return None
    _lines(path)
    return _run(name, path)


def _run(name: str, path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with importing_from(path.parent):
            specification.loader.exec_module(module)
    except DavyError as error:
        raise _located(error, _line(error, path.parent)) from None
    except SyntaxError as error:
        raise _unreadable(error, path) from None
    except Exception as error:  # a user's file may raise anything; what matters is where
        raise DefinitionError(
            f"{_line(error, path.parent)}: {type(error).__name__}: {error}", f"{path.name} must run from top to bottom.", "Mend the line."
        ) from error
    return module


def _line(error: BaseException, root: Path) -> str:
    """The innermost line of the project's own files, without packages that are installed below it."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own(Path(frame.filename), root)]
    return f"{Path(own[-1].filename).relative_to(root)}:{own[-1].lineno}" if own else root.name


def _located(error: DavyError, where: str) -> DavyError:
    return type(error)(f"{where}: {error.came}", error.allowed, error.fix)


def _unreadable(error: SyntaxError, path: Path) -> DefinitionError:
    return DefinitionError(f"{Path(error.filename or path).name}:{error.lineno}: {error.msg}.", "It must be valid Python.", "Mend the line.")


def _lines(path: Path) -> dict[str, int]:
    """Where each top-level name is defined.

    Raises:
        DefinitionError: not Python; or a class or a decorated function of one name twice, of which the first would be lost in silence.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise _unreadable(error, path) from None
    lines: dict[str, int] = {}
    declared: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.decorator_list and not node.name.startswith("_")):
            if node.name in declared:
                raise DefinitionError(
                    f"{path.name}:{node.lineno}: {node.name!r} is defined already, in line {declared[node.name]}.", "Each has a name of its own.", "Rename one."
                )
            declared[node.name] = lines[node.name] = node.lineno
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            lines |= {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}
    return lines


def _collect(project: Project, module: ModuleType, path: Path, lines: dict[str, int]) -> None:
    for variable, value in list(vars(module).items()):
        where = f"{path.name}:{lines[variable]}" if variable in lines else path.name
        if isinstance(value, Stream):
            _add(project.streams, value.name, value.spec, "streams", where)
        elif isinstance(value, type) and issubclass(value, View) and value is not View:
            _add(project.views, value.__name__, value, "views", where)
        elif isinstance(value, Derived):
            _add(project.derived, value.name, value, "derived features", where)
        elif isinstance(value, Model):
            _add(project.models, value.name, value, "models", where)


def _add(known: dict[str, Any], name: str, value: Any, what: str, where: str) -> None:
    if name in known and known[name] is not value:
        raise DefinitionError(f"{where}: there are two {what} named {name!r}.", "Each has a name of its own.", "Rename one.")
    known[name] = value
