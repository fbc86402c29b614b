"""The pages as a person meets them: in Chromium, light and dark, with the keyboard, with no other origin asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from davy.tracking.writer import start

from .conftest import Tab, open_tab, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from davy.home import Home

    from .conftest import Filled

pytestmark = pytest.mark.browser
# A copy is looked at: reading the page's own canvas twice makes Chromium complain of the page.
DRAWN = """() => [...document.querySelectorAll('figure canvas')].every((canvas) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
})"""
CUT_OFF = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.innerText.slice(0, 60))"
SHOTS = os.environ.get("DAVY_SHOTS")


def listening(page: Page) -> None:
    """Wait until what is typed reaches the page, which may take a while after it was loaded."""
    page.wait_for_function("document.hasFocus()")


@pytest.fixture
def seen(browser: Browser, scheme: str) -> Iterator[Tab]:
    yield from open_tab(browser, scheme)


def _paths(filled: Filled) -> dict[str, str]:
    return {"overview": "/", "models": "/models", "model": "/models/late", "version": "/models/late/2", "runs": "/runs?sort=metrics.auc",
            "run": f"/runs/{filled.runs['boosted']}", "hostile": f"/runs/{filled.runs['hostile']}", "prediction": f"/predictions/{filled.predictions[280]}",
            "streams": "/streams", "journal": "/journal", "feature_set": f"/feature-sets/{filled.feature_set}",
            "training_set": f"/training-sets/{filled.training_set}", "gate": "/models/fares/2/gate", "releases": "/models/fares/releases",
            "rolled_back": f"/releases/{filled.rolled_back}", "under_way": f"/releases/{filled.under_way}", "alerts": "/alerts",
            "monitoring": "/models/fares/monitoring?version=2", "texts": "/models/fares/monitoring?feature=carrier"}


CHARTS = {"run": 2, "rolled_back": 4, "under_way": 4, "monitoring": 8, "texts": 7}


def test_every_page_renders_without_a_complaint_or_a_foreign_request(seen: Tab, scheme: str, filled: Filled, address: str) -> None:
    backgrounds = set()
    for name, path in _paths(filled).items():
        seen.page.goto(address + path)
        for figure in seen.page.locator("figure[data-chart]").all():
            figure.scroll_into_view_if_needed()
            expect(figure.locator("canvas")).to_have_count(1)
        if name in CHARTS:
            expect(seen.page.locator("figure canvas")).to_have_count(CHARTS[name])
        assert seen.page.locator("h1").count() == 1, name
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        if name in ("overview", "monitoring", "under_way", "releases", "alerts"):
            assert seen.page.evaluate(CUT_OFF) == [], name
        backgrounds.add(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        if SHOTS:
            seen.page.screenshot(path=Path(SHOTS) / f"{name}-{scheme}.png", full_page=name not in ("overview", "models", "runs", "streams", "journal"))
    assert not seen.complaints
    assert all(url.startswith(address) for url in seen.asked)
    (background,) = backgrounds
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


def test_empty_pages_render(seen: Tab, scheme: str, empty_address: str) -> None:
    for path in ("/", "/models", "/runs", "/streams", "/journal", "/alerts"):
        seen.page.goto(empty_address + path)
        assert seen.page.locator("code").count() >= 1
    if SHOTS:
        seen.page.goto(empty_address)
        seen.page.screenshot(path=Path(SHOTS) / f"empty-{scheme}.png")
    assert not seen.complaints


def test_what_is_live_stands_above_the_fold(tab: Tab, filled: Filled, address: str) -> None:
    tab.page.goto(address)
    for text in ("late@1", "late@2"):
        box = tab.page.get_by_role("link", name=text, exact=True).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 768
    assert tab.page.get_by_role("heading", name="Streams").bounding_box()["y"] < 768  # type: ignore[index]


def test_whether_it_is_well_stands_above_the_fold_with_alerts_first(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(address)
    tops = []
    for found in (page.get_by_role("heading", level=1), page.get_by_label("Firing alerts"), page.get_by_role("columnheader", name="Is it well?"),
                  page.get_by_role("link", name="step 2 of 3").first, page.get_by_text("USD").first):
        box = found.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 768
        tops.append(box["y"])
    assert tops == sorted(tops)


def test_the_keyboard_leads_from_drift_to_a_features_distribution(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(f"{address}/models/fares/monitoring?version=2#drift")
    listening(page)
    page.get_by_label("Drift per feature").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "distance":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**feature=distance**")
    expect(page.get_by_role("img", name="Distribution of distance in the training set and as served").locator("canvas")).to_have_count(1)
    assert page.locator("tr.chosen").inner_text().startswith("distance")
    assert not tab.complaints


def test_a_charts_legend_names_lines_and_limits_and_its_cursor_tells_the_time(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(f"{address}/releases/{filled.rolled_back}")
    figure = page.locator("figure", has_text="errors").first
    figure.scroll_into_view_if_needed()
    expect(figure.locator("canvas")).to_have_count(1)
    legend = figure.locator(".u-legend")
    for words in ("harm", "harmlessness", "rolls back at 3.69", "enough at 3.00"):
        assert words in legend.inner_text()
    figure.locator(".u-over").hover()
    expect(legend).to_contain_text("2013-04-30 01:")
    assert not tab.complaints


def test_the_keyboard_leads_to_a_run(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(address)
    listening(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("banner").get_by_role("link", name="Runs", exact=True)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
    listening(page)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "boosted":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{filled.runs['boosted']}")
    assert page.locator("h1").inner_text() == "boosted"
    assert not tab.complaints


def test_slash_reaches_the_search_and_enter_finds_a_prediction(tab: Tab, filled: Filled, address: str) -> None:
    tab.page.goto(address)
    listening(tab.page)
    tab.page.keyboard.press("/")
    expect(tab.page.locator("input[type=search]")).to_be_focused()
    tab.page.keyboard.type(filled.predictions[299])
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**/predictions/{filled.predictions[299]}")
    assert not tab.complaints


def test_curves_are_drawn_and_follow_the_scheme(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(f"{address}/runs/{filled.runs['boosted']}")
    expect(page.locator("figure canvas")).to_have_count(2)
    page.wait_for_function(DRAWN)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("figure canvas")).to_have_count(2)
    page.wait_for_function(DRAWN)
    assert not tab.complaints


def test_a_view_of_curves_stands_in_the_address(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(f"{address}/runs/{filled.runs['boosted']}?smooth=0.9")
    expect(page.locator("figure canvas")).to_have_count(2)
    expect(page.get_by_label("Smoothing")).to_have_value("0.9")
    expect(page.locator(".u-legend").first).to_contain_text("smoothed")
    with page.expect_response(lambda response: "x=time" in response.url and "smooth=0.9" in response.url):
        page.get_by_label("Across").select_option("time")
    page.get_by_label("Scale").select_option("log")
    expect(page.locator(".u-legend").first).to_contain_text("time since the start")
    assert page.url.endswith("?smooth=0.9&x=time&y=log")
    page.reload()
    expect(page.get_by_label("Scale")).to_have_value("log")
    page.wait_for_function(DRAWN)
    assert not tab.complaints


def test_a_run_under_way_is_followed(tab: Tab, home: Home) -> None:
    page = tab.page
    run = start("under way", home=home, system_metrics=False)
    run.log(loss=1.0, step=0)
    run.flush()
    for address in served(home):
        page.clock.install()
        page.goto(f"{address}/runs/{run.id}")
        expect(page.locator("figure")).to_have_count(0)
        run.log(loss=0.5, step=1)
        run.flush()
        page.clock.run_for(6_000)
        expect(page.locator("figure canvas")).to_have_count(1)
        expect(page.locator("figcaption")).to_contain_text("2 points")
        run.log(loss=0.25, step=2)
        run.finish()
        page.clock.run_for(6_000)
        expect(page.get_by_role("cell", name="0.25")).to_be_visible()
        expect(page.locator("dl").first).to_contain_text("finished")
        expect(page.locator("figcaption")).to_contain_text("3 points")
        expect(page.locator("[data-live]")).to_have_count(0)
    assert not tab.complaints


def test_uploaded_files_run_nothing(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    run = f"{address}/runs/{filled.runs['boosted']}"
    page.goto(run)
    image = page.locator("figure img").first
    image.scroll_into_view_if_needed()
    expect(image).to_have_js_property("naturalWidth", 200)
    page.goto(f"{run}/artifacts/roc.svg")
    assert page.evaluate("document.documentElement.getAttribute('data-ran')") is None
    with page.expect_download() as download:
        page.goto(run)
        page.get_by_role("link", name="page.html").click()
    assert download.value.suggested_filename == "page.html"


def test_pages_are_whole_without_scripts(browser: Browser, filled: Filled, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/runs/{filled.runs['boosted']}")
    assert "valid/logloss" in page.content()
    page.goto(address)
    page.fill("input[type=search]", "late@2")
    page.press("input[type=search]", "Enter")
    page.wait_for_url("**/models/late/2")
    context.close()
