"""The page of a comparison, in a browser."""

import re
import shutil
from itertools import pairwise

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("scipy")
playwright = pytest.importorskip("playwright.sync_api")

from comparison_cases import several

from iresnet_flows.experiments.comparison.report import write_reports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

PHONE = {"width": 375, "height": 812}
DESKTOP = {"width": 1280, "height": 900}

# The least contrast of the text of what is shown, by WCAG's formula, and where it is.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const here = rgba(getComputedStyle(element).backgroundColor);
    return here[3] === 1 ? here.slice(0, 3) : over(here, ground(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const words = [...document.querySelectorAll("body *")].filter((element) =>
    !element.closest("script, style, noscript, .skip") && element.checkVisibility() &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  const found = words.map((element) => {
    const style = getComputedStyle(element);
    const below = ground(element);
    const colour = over(rgba(element.ownerSVGElement ? style.fill : style.color), below);
    const [dark, light] = [luminance(colour), luminance(below)].sort((a, b) => a - b);
    return [(light + 0.05) / (dark + 0.05), `${element.tagName}: ${element.textContent}`];
  });
  return found.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_reports(several(), folder, "iresnet-flows report <here> & there")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page and, when the test is over, finds that nothing went wrong in it."""
    contexts, troubles = [], []

    def opened(**settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [trouble for trouble in troubles if not trouble.startswith((address, "data:"))] == []


def column(table, place):
    return table.evaluate(
        "(t, i) => [...t.tBodies[0].rows].map((row) => row.children[i].innerText.trim())", place
    )


def numbers(cells):
    return [float(re.match(r"[-+\d.e]+", cell).group()) for cell in cells if cell[-1].isdigit()]


def test_every_plot_is_drawn(visit):
    page = visit(viewport=DESKTOP)
    plots = page.locator(".plot")
    assert plots.count() == 15
    for plot in plots.all():
        assert plot.locator(".main-svg").count() > 0
        assert plot.locator(".trace").count() >= 6


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_page_does_not_scroll_sideways(visit, width):
    page = visit(viewport=PHONE | {"width": width})
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".plot").all():
        assert plot.bounding_box()["width"] <= width


def test_wide_tables_scroll_on_their_own(visit):
    page = visit(viewport=PHONE)
    region = page.get_by_role("region", name="Measures on two-moons")
    assert region.evaluate("(box) => box.scrollWidth > box.clientWidth")


@pytest.mark.parametrize("way", ["click", "Enter", "Space"])
def test_a_heading_sorts_both_ways_and_leaves_what_is_missing_last(visit, way):
    page = visit(viewport=DESKTOP)
    table = page.get_by_role("region", name="Measures on two-moons").locator("table")
    button = table.get_by_role("button", name="nats")
    head = button.locator("xpath=ancestor::th")
    assert head.get_attribute("aria-sort") == "none"

    for said, backwards in (("ascending", False), ("descending", True)):
        if way == "click":
            button.click()
        else:
            button.focus()
            page.keyboard.press(way)
        assert head.get_attribute("aria-sort") == said
        cells = column(table, 1)
        assert numbers(cells) == sorted(numbers(cells), reverse=backwards)
        assert len(numbers(cells)) == 6
        assert set(cells[6:]) == {"n/a", "failed"}

    table.get_by_role("button", name="model").click()
    assert head.get_attribute("aria-sort") == "none"
    names = column(table, 0)
    assert names == sorted(names, key=str.lower)


def test_a_key_hides_a_contender_in_the_plots_of_its_data_set(visit):
    page = visit(viewport=DESKTOP)
    section = page.locator("#on-digits")
    key = section.get_by_role("button", name="Glow")
    plot = section.locator(".plot").first
    before = plot.locator(".trace").count()
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    assert plot.locator(".trace").count() == before - 1
    key.click()
    assert plot.locator(".trace").count() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_text_is_readable(visit, scheme, media):
    page = visit(viewport=DESKTOP, color_scheme=scheme)
    page.emulate_media(media=media, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


def test_dark_is_dark_and_light_is_light(visit):
    shades = {
        scheme: visit(viewport=DESKTOP, color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    light, dark = (sum(map(int, re.findall(r"\d+", shades[s]))) for s in ("light", "dark"))
    assert light > 600
    assert dark < 150


def test_the_page_is_built_of_what_it_says(visit):
    page = visit(viewport=DESKTOP)
    assert page.title() == "Flows compared on two-moons, digits and power"
    assert page.locator("h1").count() == 1
    levels = page.locator("h1, h2, h3, h4").evaluate_all(
        "(heads) => heads.map((h) => +h.tagName[1])"
    )
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    ids = page.locator("[id]").evaluate_all(
        "(all) => all.filter((e) => !e.ownerSVGElement).map((e) => e.id)"
    )
    assert len(ids) == len(set(ids))
    assert page.locator("nav a").evaluate_all(
        "(all) => all.every((a) => document.querySelector(a.hash))"
    )
    assert "iresnet-flows report <here> & there" in page.locator("pre").inner_text()


def test_what_differs_from_the_paper_is_marked_in_words(visit):
    page = visit(viewport=DESKTOP)
    cells = page.locator("#on-two-moons .differs").all_inner_texts()
    assert [re.split(r"\s+", cell, maxsplit=1) for cell in cells] == 3 * [["yes*", "paper: no"]]


def test_it_prints_with_plots_that_fit(visit):
    page = visit(viewport=DESKTOP)
    page.evaluate("""addEventListener("beforeprint", () => {
      const drawn = [...document.querySelectorAll(".plot .main-svg")];
      window.widths = drawn.map((svg) => Number(svg.getAttribute("width")));
    })""")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert set(page.evaluate("widths")) == {320}
    assert page.locator("details:not([open])").count() == 0
