"""Prompts, which MLflow keeps among registered models, on pages: found, read, and not taken for what could serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.registry.catalog import create_model
from davy.registry.models import PROMPT_TAG
from davy.registry.sources import Source
from davy.registry.versions import create_version
from davy.web.pages import routes

if TYPE_CHECKING:
    from davy.home import Home

TEMPLATE = "Greet {{name}} <b>warmly</b>."


def test_a_prompt_is_listed_by_itself_and_shows_its_template(home: Home) -> None:
    with TestClient(Starlette(routes=routes(home))) as client:
        assert "Prompts" not in client.get("/models").text
        with home.database.begin() as connection:
            create_model(connection, clock=home.clock, actor="ada", name="greet", tags={PROMPT_TAG: "true"})
            create_model(connection, clock=home.clock, actor="ada", name="late")
        assert "The newest template" not in client.get("/models/greet").text
        with home.database.begin() as connection:
            for text in ("Hello.", TEMPLATE):
                create_version(connection, clock=home.clock, actor="ada", name="greet", source=Source("dummy-source"),
                               tags={PROMPT_TAG: "true", "mlflow.prompt.text": text})
        models = client.get("/models").text
        listed = models[models.index("<h2>Prompts"):]
        assert "/models/greet" in listed
        assert "/models/late" not in listed
        for path in ("/models/greet", "/models/greet/2"):
            page = client.get(path).text
            assert page.count("Greet {{name}} &lt;b&gt;warmly&lt;/b&gt;.") == 1
            assert "davy release" not in page
            assert "davy predict" not in page
        assert "Hello." in client.get("/models/greet/1").text
        assert "davy train late" in client.get("/models/late").text
