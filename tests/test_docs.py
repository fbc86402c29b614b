"""What is documented is there, and what is there is documented."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest

from databases import write_settings
from davy.cli.main import VERBS
from davy.config import Config
from davy.project import load_project

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
MODULES = [".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
           for path in sorted(SOURCE.rglob("*.py")) if ">>>" in path.read_text()]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def _tracked() -> list[Path]:
    """The files that are, or would be, in the repository."""
    done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_the_generated_reference_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", page, re.M))
    known: dict[str, str] = {}
    for name, kind in get_type_hints(Config).items():
        section = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if isinstance(section, type) and issubclass(section, msgspec.Struct):
            for field in msgspec.structs.fields(section):
                if field.required:
                    known[f"{name}.{field.encode_name}"] = "required"
                    continue
                default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]
                known[f"{name}.{field.encode_name}"] = f"`{msgspec.json.encode(default).decode()}`"
        else:
            known[name] = "the folder's name"
    assert documented == known


def test_every_environment_variable_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"environ[^\n]*?[\"'](DAVY_[A-Z_]+)", path.read_text()):
            assert f"`{name}`" in page, name


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


def test_the_project_in_the_readme_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert [name for name, _ in blocks] == ["features.py", "models.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    (tmp_path / "davy.toml").write_text("")
    project = load_project(tmp_path)
    assert list(project.models) == ["late"]
    assert project.models["late"].spec.feature_set.outputs == ("departures_1h", "mean_delay_3h", "rush", "distance")


def test_the_python_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    blocks = dict(re.findall(r"```python\n# ([\w.]+)\n(.*?)```", page, re.S))
    assert list(blocks) == ["features.py", "models.py", "notebook"]
    write_settings(tmp_path)
    for name in ("features.py", "models.py"):
        (tmp_path / name).write_text(blocks[name])
    code = f"import davy\n{blocks['notebook']}\nprint(now['orders_1d'], data.features.shape, run.id)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(1, 7)" in done.stdout


def test_the_pages_name_every_public_name_and_every_path() -> None:
    python = "".join((ROOT / "docs" / "reference" / name).read_text() for name in ("python.md", "expressions.md"))
    import davy

    for name in davy.__all__:
        assert name == "errors" or re.search(rf"\b{name}\b", python), name
    http = (ROOT / "docs" / "reference" / "http.md").read_text()
    for name in re.findall(r'"(\w+)": self\._\w+[,}]', (SOURCE / "davy" / "server" / "app.py").read_text()):
        assert f"`POST /{name}/" in http
    for field in ("prediction_id", "arm", "watermarks", "davy-routing-key"):
        assert field in http


@pytest.mark.parametrize("verb", sorted({*re.findall(r"^davy (\w+)", (ROOT / "README.md").read_text(), re.M)}))
def test_verbs_in_the_readme_exist(verb: str) -> None:
    assert verb in {known.name for known in VERBS}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_first() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            waiting += [page.parent / target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert {page.resolve() for page in (ROOT / "docs").rglob("*.md")} <= seen


# Spelt in pieces, so that this file passes its own test.
FORBIDDEN = [re.compile(pattern) for pattern in (
    "py" + r"pi\.org", "pythonhosted" + r"\.org", r"registry\.npm" + "js", r"deb\.deb" + r"ian\.org", "--index" + "-url", "--extra-index" + "-url",
    "--find" + r"-links\b", "/wo" + "rk/", "/ro" + "ot/", r"/tmp/" + "davy", "/opt/py" + "pi")]


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    for path in _tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern in FORBIDDEN:
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"


def test_no_file_is_large() -> None:
    for path in _tracked():
        assert path.stat().st_size < 1 << 20, path
