"""The artifact proxy and the purge when blobs lie in an object store."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import pytest

from databases import write_settings
from davy.cli.main import run as davy
from davy.home import Home
from protocols.artifacts_kit import PROXY, Tracking
from s3_kit import BUCKET, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 1 << 20
BIG = hashlib.shake_128(b"s3").digest(17 * MB + 3)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def root(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    write_settings(tmp_path, f'project = "shop"\n[storage]\nblobs = "s3://{BUCKET}/{tmp_path.name}"\n')
    return tmp_path


def test_files_go_to_the_bucket_and_come_back(root: Path, s3: S3Server) -> None:
    with Tracking(root) as server:
        run = server.run()
        place = f"0/{run}/artifacts"
        for name, body in (("big.bin", BIG), ("small.txt", b"small"), ("empty", b"")):
            assert server.put(f"{place}/{name}", body).status == 200
            assert server.fetch(f"{place}/{name}").body == body
        assert server.fetch(f"{place}/big.bin", {"range": "bytes=16777215-16777300"}).body == BIG[16777215:16777301]
        assert not (root / ".davy" / "blobs").exists()
        assert not [path for path in (root / ".davy" / "run" / "spool").iterdir() if path.stat().st_size]
        signed = server.ask("GET", f"{PROXY}/presigned/{place}/big.bin").json
        assert signed["url"].startswith(f"{s3.url}/{BUCKET}/")
        s3.guard(False)
        with urllib.request.urlopen(urllib.request.Request(signed["url"], headers={"range": "bytes=1-3"})) as answer:
            assert answer.read() == BIG[1:4]
        s3.guard(True)
        server.dies(f"{place}/half", b"Content-Length: 9000000", b"x" * MB)
        assert server.fetch(f"{place}/half").status == 404
        server.call("runs/delete", run_id=run)
        home = Home(root)
        assert len(list(home.blobs.listed())) == 3
        with redirect_stdout(io.StringIO()) as out:
            assert davy(["--project", str(root), "gc", "--yes"]) == 0
        assert "Purged 1 run" in out.getvalue()
        assert "Removed 3 files, 17.8 MB." in out.getvalue()
        assert list(home.blobs.listed()) == []
        home.close()


def test_a_store_that_refuses_is_told_to_the_client(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with Tracking(root) as server:
        place = f"0/{server.run()}/artifacts"
        code, name, told = server.put(f"{place}/x", b"x").error
        assert (code, name) == (503, "TEMPORARILY_UNAVAILABLE")
        assert "refuses the credentials" in told
        assert server.listed(place) == []
