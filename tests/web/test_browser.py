"""The pages as a person meets them: in Chromium, light and dark, with the keyboard, with no other origin asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .conftest import Tab, open_tab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from .conftest import Filled

pytestmark = pytest.mark.browser
# Read from a copy that is made for reading: Chromium complains, sometimes, of a canvas that is read back twice.
DRAWN = """[...document.querySelectorAll('figure canvas')].every((canvas) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
})"""
SHOTS = os.environ.get("DAVY_SHOTS")


@pytest.fixture
def seen(browser: Browser, scheme: str) -> Iterator[Tab]:
    yield from open_tab(browser, scheme)


def _paths(filled: Filled) -> dict[str, str]:
    return {"overview": "/", "models": "/models", "model": "/models/late", "version": "/models/late/2", "runs": "/runs?sort=auc",
            "run": f"/runs/{filled.runs['boosted']}", "hostile": f"/runs/{filled.runs['hostile']}", "prediction": f"/predictions/{filled.predictions[280]}",
            "streams": "/streams", "journal": "/journal", "feature_set": f"/feature-sets/{filled.feature_set}",
            "training_set": f"/training-sets/{filled.training_set}"}


def test_every_page_renders_without_a_complaint_or_a_foreign_request(seen: Tab, scheme: str, filled: Filled, address: str) -> None:
    backgrounds = set()
    for name, path in _paths(filled).items():
        seen.page.goto(address + path)
        if name == "run":
            expect(seen.page.locator("figure canvas")).to_have_count(2)
        assert seen.page.locator("h1").count() == 1, name
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        backgrounds.add(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        if SHOTS:
            seen.page.screenshot(path=Path(SHOTS) / f"{name}-{scheme}.png", full_page=name in ("run", "version", "prediction"))
    assert not seen.complaints
    assert all(url.startswith(address) for url in seen.asked)
    (background,) = backgrounds
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


def test_empty_pages_render(seen: Tab, scheme: str, empty_address: str) -> None:
    for path in ("/", "/models", "/runs", "/streams", "/journal"):
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


def test_the_keyboard_leads_to_a_run(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Runs"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
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
    tab.page.keyboard.press("/")
    tab.page.keyboard.type(filled.predictions[299])
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**/predictions/{filled.predictions[299]}")
    assert not tab.complaints


def test_curves_are_drawn_and_follow_the_scheme(tab: Tab, filled: Filled, address: str) -> None:
    page = tab.page
    page.goto(f"{address}/runs/{filled.runs['boosted']}")
    expect(page.locator("figure canvas")).to_have_count(2)
    assert page.evaluate(DRAWN)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("figure canvas")).to_have_count(2)
    assert page.evaluate(DRAWN)
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
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/late/2")
    context.close()
