"""The table of runs as somebody with a sweep meets it, and a run that MLflow's client has logged much into."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from davy.core.clock import new_id
from davy.tracking.inputs import Dataset, DatasetInput, log_datasets, log_outputs
from davy.tracking.logged_models import create_logged_model
from davy.tracking.writer import start
from davy.web.runs import FEW, PAGE

from .conftest import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.home import Home

    from .conftest import Tab

LONG = "sweep_over_learning_rate_and_depth_with_five_folds_and_a_seed_{}"


def _sweep(home: Home, count: int) -> list[str]:
    found = []
    for index in range(count):
        with start(LONG.format(index), home=home, params={f"p{key:02}": index if key == 7 else f"{key}-{index}" for key in range(30)},
                   tags={"team": f"t{index}"}, system_metrics=False) as run:
            run.log(loss=1 / (index + 1), **{f"m{key}": key * index for key in range(6)})
            found.append(run.id)
    return found


def _heads(text: str) -> list[str]:
    table = text[text.index('<table class="runs">'):]
    return re.findall(r'<th class="[^"]*" scope="col" title="([^"]*)"', table)


def test_metrics_stand_before_params_of_which_there_are_many(client: TestClient, home: Home) -> None:
    _sweep(home, 3)
    assert _heads(client.get("/runs").text) == ["Run", "Started", "loss", "m0", "m1", "m2", "p00", "p01", "p02"]


def test_an_address_keeps_filter_order_and_columns(client: TestClient, home: Home) -> None:
    ids = _sweep(home, PAGE + 1)
    asked = {"experiment": "Default", "filter": "metrics.loss > 0", "column": ["params.p29", "metrics.m5", "tags.team"], "sort": "metrics.m5", "order": "asc"}
    text = client.get("/runs", params=asked).text
    assert _heads(text) == ["Run", "Started", "m5", "p29", "team"]
    assert ">29-0<" in text
    assert ">t0<" in text
    following = re.search(r'href="([^"]*)">Next page', text)
    assert following is not None
    second = client.get(following[1].replace("&amp;", "&")).text
    assert _heads(second) == _heads(text)
    assert ids[-1] in second
    assert ids[0] not in second
    links = [link.replace("&amp;", "&") for link in re.findall(r'<th [^>]*><a href="(/runs[?][^"]*)"', text)]
    assert len(links) == 5
    for link in links:
        assert "column=params.p29&column=metrics.m5&column=tags.team" in link
        assert "filter=metrics.loss%20%3E%200" in link
    assert re.findall(r'value="([^"]*)" checked', text) == ["metrics.m5", "params.p29", "tags.team"]


@pytest.mark.parametrize(("sort", "key"), [("params.p07", 0), ("tags.team", 0), ("run_name", 0), ("metrics.loss", 2)])
def test_any_field_sorts(client: TestClient, home: Home, sort: str, key: int) -> None:
    ids = _sweep(home, 3)
    text = client.get("/runs", params={"sort": sort, "order": "asc"}).text
    rows = re.findall(r'name="run" value="(\w+)"', text)
    assert rows == (ids if key == 0 else ids[::-1])
    assert 'aria-sort="ascending"' in text


def test_what_cannot_be_sorted_or_shown_is_said(client: TestClient, home: Home) -> None:
    _sweep(home, 1)
    wrong = client.get("/runs", params={"sort": "shoesize"})
    assert wrong.status_code == 400
    assert "shoesize" in wrong.text
    wrong = client.get("/runs", params={"column": "shoesize"})
    assert wrong.status_code == 400
    assert "metrics.KEY" in wrong.text


def test_many_experiments_are_chosen_from_a_list(client: TestClient, home: Home) -> None:
    with start("one", experiment="e0", home=home):
        pass
    assert "<select" not in client.get("/runs").text
    for index in range(FEW):
        with start("one", experiment=f"e{index}", home=home):
            pass
    text = client.get("/runs", params={"experiment": "e3"}).text
    assert text.count("<option") == FEW + 2
    assert "<option selected>e3</option>" in text


def test_a_run_names_its_notes_source_datasets_and_models(client: TestClient, home: Home) -> None:
    with start("parent", home=home, tags={"mlflow.note.content": "Try <b>deeper</b> trees.", "mlflow.source.name": "train.py"}) as run:
        for depth in (3, 9):
            with start(f"child {depth}", home=home, params={"depth": depth}, parent=run.id) as child:
                child.log(auc=depth / 10)
    with home.database.begin() as connection:
        number = 0
        model = create_logged_model(connection, clock=home.clock, experiment_id=number, name="forest", source_run_id=run.id)
        log_outputs(connection, run.id, [(model.id, 0)])
        log_datasets(connection, run.id, number, [DatasetInput(Dataset("passengers", "d1g35t", "local", "{}"), (("mlflow.data.context", "training"),))],
                     clock=home.clock)
    text = client.get(f"/runs/{run.id}").text
    for told in ("Try &lt;b&gt;deeper&lt;/b&gt; trees.", "train.py", f"models:/{model.id}", "forest", "passengers, training", "d1g35t"):
        assert told in text
    within = text[text.index("Runs within"):]
    assert [within.index(told) for told in (">auc<", ">depth<", ">0.9<", ">9<")]
    compared = re.search(r'href="(/compare[^"]*)"', within)
    assert compared is not None
    assert client.get(compared[1].replace("&amp;", "&")).status_code == 200


def test_curves_stand_above_the_fold_whatever_was_logged(tab: Tab, home: Home) -> None:
    with start("wide", home=home, params={f"param_{key:03}": key for key in range(130)}, system_metrics=False) as run:
        for step in range(20):
            run.log(**{f"m{key}": step * key for key in range(40)}, step=step)
    for address in served(home):
        tab.page.goto(f"{address}/runs/{run.id}")
        box = tab.page.locator("figure[data-curve]").first.bounding_box()
        assert box is not None
        assert box["y"] + 200 < 768
        assert tab.page.get_by_text("param_129").count() == 1


def test_long_names_take_one_line_and_are_told_apart(tab: Tab, home: Home) -> None:
    _sweep(home, 12)
    for address in served(home):
        tab.page.goto(f"{address}/runs")
        heights = {row.bounding_box()["height"] for row in tab.page.locator("table.runs tbody tr").all()}  # type: ignore[index]
        assert max(heights) < 40
        links = tab.page.locator("table.runs tbody th a").all_inner_texts()
        assert len(set(links)) == 12
        tab.page.get_by_text("Columns", exact=True).click()
        tab.page.get_by_label("p29").check()
        tab.page.get_by_role("button", name="Show those chosen").click()
        expect(tab.page.locator("table.runs thead")).to_contain_text("p29")
        assert "column=params.p29" in tab.page.url
        tab.page.set_viewport_size({"width": 420, "height": 800})
        assert max(row.bounding_box()["height"] for row in tab.page.locator("table.runs tbody tr").all()) < 120  # type: ignore[index]
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("printed", "page"), [
    ("#/experiments/{experiment}/runs/{run}", "/runs/{run}"),
    ("#/experiments/{experiment}", "/runs?experiment_id={experiment}"),
    ("#/experiments/{experiment}/traces", "/traces?experiment_id={experiment}"),
    ("#/experiments/{experiment}/traces?selectedEvaluationId=tr-abc", "/traces/tr-abc"),
    ("#/models/forest/versions/3", "/models/forest/3"),
    ("#/prompts/greet", "/models/greet"),
])
def test_addresses_that_mlflow_prints_lead_to_pages(tab: Tab, filled_experiment: tuple[str, str, str], printed: str, page: str) -> None:
    address, experiment, run = filled_experiment
    tab.page.goto(f"{address}/{printed.format(experiment=experiment, run=run)}")
    tab.page.wait_for_url(address + page.format(experiment=experiment, run=run))


@pytest.fixture
def filled_experiment(home: Home) -> Iterator[tuple[str, str, str]]:
    with start("one", home=home) as run:
        pass
    for address in served(home):
        yield address, "0", run.id


def test_an_unknown_run_is_said_on_a_page(client: TestClient, home: Home) -> None:
    wrong = client.get(f"/runs/{new_id(home.clock)}")
    assert wrong.status_code == 404
    assert "There is no run" in wrong.text
