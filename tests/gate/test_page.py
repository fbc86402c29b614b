"""The gate's page: how a version stands, on which evidence, and every run before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.gate.record import Report, Result, keep, override
from davy.web.pages import routes
from gate.kit import trained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.home import Home


@pytest.fixture
def client(empty: Home) -> Iterator[TestClient]:
    trained(empty)
    with TestClient(Starlette(routes=routes(empty))) as client:
        yield client


def report(verdict: str, *, complete: bool = True) -> Report:
    evidence = {"deep": {"list": [1, 2]}, "x": "<script>"}
    result = Result("mine", "It is mine", verdict, verdict == "fail", f"a <b>{verdict}</b>", "Do <i>this</i>.", evidence, 0.25)
    return Report("returns", 1, "sha256:0", None, "no version is stable yet", verdict != "fail", complete, 1_704_067_200_000_000, 1.5, (result,))


def test_a_version_that_was_not_judged_says_what_to_type(client: TestClient) -> None:
    assert "davy gate returns@1" in client.get("/models/returns/1/gate").text
    assert "not run" in client.get("/models/returns/1").text
    assert client.get("/models/returns/9/gate").status_code == 404
    assert client.get("/models/returns/1/gate?run=nothing").status_code == 404


def test_evidence_is_shown_escaped_and_older_runs_are_linked(client: TestClient, empty: Home) -> None:
    with empty.database.begin() as connection:
        first = keep(connection, report("fail"), clock=empty.clock, actor="ada")
        keep(connection, report("pass", complete=False), clock=empty.clock, actor="bob")
    page = client.get("/models/returns/1/gate").text
    assert "a &lt;b&gt;pass&lt;/b&gt;" in page
    assert "<script>" not in page.split("<main")[1]
    assert "chosen checks alone, which decide nothing" in page
    assert f"/models/returns/1/gate?run={first.gate}" in page
    older = client.get(f"/models/returns/1/gate?run={first.gate}").text
    assert "Do &lt;i&gt;this&lt;/i&gt;." in older
    assert 'class="bad">fail<' in older
    version = client.get("/models/returns/1").text
    assert 'class="bad">failed<' in version
    assert "/models/returns/1/gate" in version


def test_an_override_is_told_with_its_reason(client: TestClient, empty: Home) -> None:
    with empty.database.begin() as connection:
        keep(connection, report("fail"), clock=empty.clock, actor="ada")
        override(connection, "returns", 1, "operations asked & agreed", clock=empty.clock, actor="eve")
    page = client.get("/models/returns/1/gate").text
    assert "Overridden by eve: operations asked &amp; agreed" in page
    assert 'class="bad">fail<' in page
    assert 'class="wait">overridden<' in page
