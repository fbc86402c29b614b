"""The project's own modules: what they held when they were loaded, and a version's copies of them, which run instead of today's.

A pickle holds names, not code. So the modules travel with the version, under `code/` among its files, and are imported from there.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

FOLDER = "code"
_INSTALLED = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
_texts: dict[str, tuple[ModuleType, bytes]] = {}


def is_own(path: Path, root: Path) -> bool:
    """Whether a file is the project's, and not a package's that is installed below it."""
    return path.is_relative_to(root) and not any(path.is_relative_to(folder) for folder in _INSTALLED) and "site-packages" not in path.parts


@contextmanager
def importing_from(root: Path) -> Iterator[None]:
    """The project's folder is importable, and what is imported from it is remembered with its text."""
    root = root.resolve()
    before = dict(sys.modules)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        with suppress(ValueError):  # the project's code may have changed the path itself
            sys.path.remove(str(root))
        for name, module, path in _own_modules(root, before):
            with suppress(OSError):
                _texts[name] = module, path.read_bytes()


def forget() -> None:
    """Unload the modules that projects have brought, so that the next one runs what its files say now."""
    importlib.invalidate_caches()
    for name, (module, _) in _texts.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _texts.clear()


def loaded_code(root: Path) -> dict[str, bytes]:
    """The text of each loaded module of the project, by the path under which it is imported: `models.py`, `shop/__init__.py`."""
    found = {}
    for name, module, path in _own_modules(root.resolve()):
        kept = _texts.get(name)
        place = f"{name.replace('.', '/')}{'/__init__' if hasattr(module, '__path__') else ''}.py"
        with suppress(FileNotFoundError):  # of a file that is gone, nothing can be kept; a model that needs it can't be loaded alone, and is refused
            found[place] = kept[1] if kept is not None and kept[0] is module else path.read_bytes()
    return dict(sorted(found.items()))


def names_of(root: Path) -> set[str]:
    """The loaded modules that are the project's."""
    return {name for name, _, _ in _own_modules(root.resolve())}


def use_code(folder: Path, project: Path) -> None:
    """From now on import the modules in `folder/code`, and none from today's project."""
    project = project.resolve()
    sys.path[:] = [str(folder / FOLDER), *(entry for entry in sys.path if Path(entry).resolve() != project)]


@contextmanager
def only_with(folder: Path, project: Path) -> Iterator[None]:
    """Import from `folder/code` as a version's own process does; afterwards this process has its own modules again."""
    names = set(_names(folder / FOLDER))
    before, path = {name: sys.modules.pop(name) for name in names if name in sys.modules}, sys.path[:]
    use_code(folder, project)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _names(folder: Path) -> Iterable[str]:
    """The modules in a folder of code, and the packages that they lie in."""
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        yield from (".".join(parts[:length]) for length in range(1, len(parts) + (parts[-1] != "__init__")))


def _own_modules(root: Path, before: Mapping[str, ModuleType] | None = None) -> Iterator[tuple[str, ModuleType, Path]]:
    """Name, module and file of the project's loaded modules; with `before`, only of those that are new since."""
    for name, module in list(sys.modules.items()):
        if before is not None and before.get(name) is module:
            continue
        file = getattr(module, "__file__", None)
        if name != "__main__" and isinstance(file, str) and file.endswith(".py") and is_own(path := Path(file).resolve(), root):
            yield name, module, path
