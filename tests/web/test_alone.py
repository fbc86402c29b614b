"""The pages of a server that tracks runs and models and does nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.registry.catalog import create_model
from davy.registry.sources import Source
from davy.registry.versions import create_version
from davy.web.pages import routes

if TYPE_CHECKING:
    from davy.home import Home


def test_it_begins_with_runs_and_offers_only_what_it_has(home: Home) -> None:
    application = Starlette(routes=routes(home, alone=True))
    application.state.alone = True
    with TestClient(application) as client:
        page = client.get("/")
        assert page.url.path == "/runs"
        assert "MLFLOW_TRACKING_URI=http://testserver" in page.text
        assert "/streams" not in page.text
        assert "/models" in page.text
    with TestClient(Starlette(routes=routes(home))) as client:
        assert client.get("/").url.path == "/"
        assert "/streams" in client.get("/runs").text


def test_its_pages_of_models_lead_nowhere_that_is_not_there(home: Home) -> None:
    with home.database.begin() as connection:
        create_model(connection, clock=home.clock, actor="tester", name="late")
        create_version(connection, clock=home.clock, actor="tester", name="late", source=Source("s3://bucket/model"))
    application = Starlette(routes=routes(home, alone=True))
    application.state.alone = True
    with TestClient(application) as client:
        for path in ("/models/late", "/models/late/1", "/models/late/releases"):
            page = client.get(path).text
            links = {link.partition("#")[0] for link in re.findall(r'href="(/[^"]*)"', page)} - {""}
            assert dict.fromkeys(links, 200) == {link: client.get(link).status_code for link in links}


def test_it_holds_no_engine_in_memory(home: Home) -> None:
    program = f"""
import sys
from pathlib import Path
import davy.server.tracking
from davy.home import Home
from davy.server.parts import load_mlflow, load_pages
home = Home(Path({str(home.root)!r}))
load_mlflow(home)
load_pages(home, None, alone=True)
print(sorted({{"polars", "deltalake", "lmdb"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
