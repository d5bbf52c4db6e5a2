"""The page of a report in a browser: what it does, with mouse and keyboard, in the dark, on paper, and read aloud."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Literal

import pytest

import parity
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install --group browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core: pip install --group browser")

_BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
CHROMIUM = os.environ.get("CHROME_BIN") or next(filter(None, map(shutil.which, _BROWSERS)), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH, nor named by CHROME_BIN"),
]

FOCUSED = "() => document.activeElement.matches(':focus-visible') ? document.activeElement.innerText : ''"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the page of a candidate that is wrong three times."""
    file: Path = tmp_path_factory.mktemp("page") / "report.html"
    report = parity.check("tests/candidates/eps_bias_pool.py:SmallViT", overrides=SMALL, modes=["eval"])
    file.write_text(report.to_html(), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened; whatever it complains of, and whatever it fetches, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(f"{error}"))
    opened.on("request", lambda request: said.extend([request.url] if request.url != address else []))
    opened.goto(address)
    yield opened
    context.close()
    assert not said


def _is_open(page: Page, what: str) -> list[bool]:
    found: list[bool] = page.locator(what).evaluate_all("all => all.map(one => one.open)")
    return found


def test_stages_are_folded_and_unfolded(page: Page) -> None:
    assert _is_open(page, "details.stage").count(True) == 1
    page.get_by_role("button", name="Unfold all").click()
    assert all(_is_open(page, "details.stage"))
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert not any(_is_open(page, "details.stage"))


def test_search_leaves_the_tensors_that_have_the_words(page: Page) -> None:
    rows = page.locator("#tensors tbody tr")
    everything = rows.count()
    page.get_by_label("Search tensors").fill("LN_1")
    shown = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < everything
    assert all("ln_1" in row.inner_text() for row in shown)
    assert page.get_by_role("status").inner_text() == f"{len(shown)} found"
    page.get_by_label("Search tensors").fill("")
    assert all(row.is_visible() for row in rows.all())


def _chosen(page: Page) -> tuple[list[str], int, int]:
    """Returns the chosen rows' names, and how many points and opened figures are chosen."""
    rows = page.locator("tr.chosen").filter(visible=True)
    names = rows.locator("td.name").all_inner_texts()
    return names, page.locator("circle.chosen").count(), page.locator("details.layer.chosen[open]").count()


def test_a_pair_of_modules_is_chosen_in_table_chart_and_figures(page: Page) -> None:
    name = "encoder.layers.encoder_layer_1.ln_2"
    page.locator("circle").filter(has_text=f"{name}:").click()
    assert _chosen(page) == ([name, "transformer.3.norm"], 1, 1)
    button = page.get_by_role("button", name="encoder.layers.encoder_layer_1.mlp.0", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert _chosen(page) == (["encoder.layers.encoder_layer_1.mlp.0", "transformer.3.fn.0"], 1, 1)
    assert button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert _chosen(page) == ([], 0, 0)


def test_a_layer_is_chosen_by_keyboard_and_its_errors_are_drawn(page: Page) -> None:
    closed = page.locator("details.stage[open] details.layer:not([open])").first
    name = closed.locator("summary").inner_text()
    page.locator("body").press("Tab")
    for _ in range(100):
        if page.evaluate(FOCUSED) == name:
            break
        page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == name
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    layer = page.locator("details.layer").filter(has_text=name)
    assert layer.get_by_role("img").first.is_visible()
    page.keyboard.press("Space")
    assert not layer.get_by_role("img").first.is_visible()


def test_everything_that_acts_is_reached_by_keyboard(page: Page) -> None:
    acting = "button, input, summary, [tabindex='0']"
    visible = page.locator(acting).evaluate_all("all => all.filter(one => one.checkVisibility()).length")
    reached = set()
    for _ in range(visible):
        page.keyboard.press("Tab")
        all_of_them = f"() => [...document.querySelectorAll({acting!r})].indexOf(document.activeElement)"
        reached.add(page.evaluate(all_of_them))
    assert len(reached - {-1}) == visible


def test_it_is_dark_where_that_is_asked_for(page: Page) -> None:
    def brightness() -> dict[str, int]:
        colours = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
        ground, text = page.locator("html").evaluate(colours)
        return {"ground": sum(map(int, ground[4:-1].split(","))), "text": sum(map(int, text[4:-1].split(",")))}

    light = brightness()
    page.emulate_media(color_scheme="dark")
    dark = brightness()
    assert light["ground"] - light["text"] > 500
    assert dark["text"] - dark["ground"] > 500


def test_it_is_printed_unfolded_and_in_a_few_sheets(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.get_by_role("button", name="Unfold all").is_visible()
    assert page.locator("html").evaluate("one => getComputedStyle(one).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 680, "height": 900})
    tables = page.locator(".scroll").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert max(tables) <= 0
    sheets = page.pdf().count(b"/Type /Page\n")
    assert 2 <= sheets <= 12
    assert all(_is_open(page, "details.stage"))
    assert _is_open(page, "details.layer").count(True) == 1


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name="Unfold all").click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_axe_finds_nothing_that_keeps_anybody_out(page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
