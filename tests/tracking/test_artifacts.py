"""Folders with links in them, paths that can't be, and where paths of the proxy lead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davy.errors import Conflict, Forbidden, InvalidInput, NotFound
from davy.tracking import run as start
from davy.tracking.artifacts import list_artifacts, read_artifact
from davy.tracking.places import list_place, locate, writable_place
from davy.tracking.roots import open_root

if TYPE_CHECKING:
    from davy.home import Home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "a.txt").write_text("a")
    (made / "sub" / "b.txt").write_text("b")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.txt").write_text("c")
    return made


def _logged(home: Home, folder: Path) -> dict[str, bytes]:
    with start(home=home) as run:
        run.artifact(folder, "out")
    with home.database.read() as connection:
        return {item.path: read_artifact(connection, home.blobs, run.id, item.path) for item in list_artifacts(connection, run.id, deep=True)}


def test_links_within_a_folder_are_what_they_lead_to(home: Home, folder: Path) -> None:
    (folder / "link.txt").symlink_to("sub/b.txt")
    (folder / "again").symlink_to(folder / "sub")
    assert _logged(home, folder) == {"out/a.txt": b"a", "out/again/b.txt": b"b", "out/link.txt": b"b", "out/sub/b.txt": b"b"}


def test_a_folder_that_is_itself_a_link_was_named_by_its_user(home: Home, folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert set(_logged(home, folder.parent / "link")) == {"out/a.txt", "out/sub/b.txt"}


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "../other", "/"])
def test_a_link_that_leads_out_is_refused(home: Home, folder: Path, target: str) -> None:
    (folder / "sub" / "link").symlink_to(Path("..", target) if target.startswith("..") else target)
    with pytest.raises(InvalidInput, match="leads out of the folder"):
        _logged(home, folder)


@pytest.mark.parametrize(("links", "error"), [({"sub/up": ".."}, InvalidInput), ({"sub/self": "."}, InvalidInput), ({"x": "y", "y": "x"}, NotFound),
                                              ({"a1": "sub", "sub/b1": "../a1"}, InvalidInput), ({"gone": "nowhere"}, NotFound)])
def test_a_link_that_leads_nowhere_is_refused(home: Home, folder: Path, links: dict[str, str], error: type[Exception]) -> None:
    for name, target in links.items():
        (folder / name).symlink_to(target)
    with pytest.raises(error):
        _logged(home, folder)


def test_a_path_is_a_file_or_a_folder(home: Home, tmp_path: Path) -> None:
    with start(home=home) as run:
        run.text("x", "a/b")
        for path in ("a", "a/b/c", "a/b/c/d"):
            with pytest.raises(Conflict, match="a file or a folder"):
                run.text("x", path)
        run.text("y", "a/b")
    with home.database.read() as connection:
        assert [item.path for item in list_artifacts(connection, run.id, deep=True)] == ["a/b"]
        assert read_artifact(connection, home.blobs, run.id, "a/b") == b"y"


def test_where_paths_lead(home: Home) -> None:
    with start(home=home) as run:
        run.text("x", "model/a/artifacts/x")
    with home.database.read() as connection:
        number = str(connection.exec_driver_sql("SELECT experiment_id FROM runs").scalar())
        root = f"{number}/{run.id}/artifacts"
        for path, found in ((f"{root}/model/a/artifacts/x", ("run", run.id, "model/a/artifacts/x")), (root, ("run", run.id, "")),
                            (f"{number}/traces/x", ("experiment", number, "traces/x")), (f"0{number}/x", ("nobody", "-", f"0{number}/x")),
                            (f"other/{run.id}/artifacts/x", ("nobody", "-", f"other/{run.id}/artifacts/x")), ("", ("nobody", "-", ""))):
            place = locate(connection, path)
            assert (place.kind, place.owner, place.path) == found
        assert [item.path for item in list_place(connection, f"{root}/model")] == ["a"]
        with pytest.raises(NotFound, match="No Experiment with id=77"):
            writable_place(connection, "77/x")
        with pytest.raises(NotFound, match="not found"):
            writable_place(connection, f"{number}/{'e' * 32}/artifacts/x")


def test_only_roots_that_are_allowed_are_read(tmp_path: Path) -> None:
    for uri in ("file:///etc", "/etc", f"{tmp_path}x", f"file://{tmp_path}/../..", "s3://bucketful/x", "s3://bucket", "gs://bucket/x", "file://host/etc",
                "s3://bucket/x/../y", "s3://bucket/x/%2e%2E/y"):
        with pytest.raises(Forbidden):
            open_root(uri, [str(tmp_path), "s3://bucket/x"], {})
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(Forbidden):
        open_root(f"file://{tmp_path}/link", [str(tmp_path)], {})
    root = open_root(f"file://{tmp_path}", [str(tmp_path)], {})
    assert root.files("link") == root.files("nowhere") == []
    assert root.size("link/passwd") is root.size("nowhere") is None
