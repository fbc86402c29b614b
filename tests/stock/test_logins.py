"""Stock clients at a Davy that wants a login."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from databases import write_settings
from stock_kit import davy, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server_kit import Running

PASSWORD = "correct horse battery"


def told(root: Path, *arguments: str, stdin: str = "") -> dict[str, str]:
    """What a command prints as JSON."""
    done = subprocess.run([sys.executable, "-m", "davy", *arguments, "--json"], cwd=root, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(msgspec.json.decode(done.stdout))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server with users, and a token of each."""
    root = tmp_path_factory.mktemp("guarded")
    write_settings(root, 'project = "shop"\n')
    for name, role in (("ada", "admin"), ("kim", "scientist"), ("vic", "viewer")):
        told(root, "user", "add", name, "--role", role, stdin=f"{PASSWORD} of {name}\n")
    tokens = {name: told(root, "token", "new", "--name", "test", "--user", name)["secret"] for name in ("kim", "vic")}
    with davy(root, "[auth]\nrequired = true\n") as server:
        yield server, tokens


@pytest.mark.slow
@pytest.mark.parametrize(("way", "lock"), [("token", "mlflow3"), ("password", "mlflow2")])
def test_a_client_logs_in(way: str, lock: str, guarded: tuple[Running, dict[str, str]], tmp_path: Path) -> None:
    server, tokens = guarded
    mine = {"MLFLOW_TRACKING_TOKEN": tokens["kim"]} if way == "token" else {"MLFLOW_TRACKING_USERNAME": "kim", "MLFLOW_TRACKING_PASSWORD": f"{PASSWORD} of kim"}

    steps = run("logins", lock, server.port, tmp_path, {**mine, "VIEWER_TOKEN": tokens["vic"]})

    assert len(steps) == 3
    assert "Traceback" not in server.log()
