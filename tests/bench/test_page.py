"""The report in a real browser: everything moves, nothing complains."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import fresh
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--no-first-run",
    "--disable-quic",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium on PATH")


@pytest.fixture(scope="module")
def report(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    photos = folder / "photos <script>"  # an awkward name must do no harm
    photos.mkdir()
    lake.crop((100, 100, 308, 292)).save(photos / "a.png")
    lake.crop((300, 100, 540, 292)).save(photos / f"b&<b>{'_long' * 30}.png")
    (photos / "broken.png").write_bytes(b"no photo")
    curve = folder / "paper.json"
    curve.write_text('{"name": "paper", "results": {"bpp": [0.2, 0.4], "psnr-rgb": [30, 32]}}')
    done = fresh(
        "bench",
        photos,
        "-o",
        folder / "out",
        "-q",
        "10,30,50,80",
        "--repetitions",
        "1",
        "--peers",
        "jpeg,webp,jpeg2000",
        "--overlay",
        curve,
    )
    assert done.returncode == 0, done.stderr
    return folder / "out" / "report.html"


@pytest.fixture
def complaints() -> list[str]:
    return []


@contextmanager
def opened(path: Path, complaints: list[str]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if r.url[:4] == "http" else None)
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert not complaints


@pytest.fixture
def page(report: Path, complaints: list[str]) -> Iterator[Any]:
    with opened(report, complaints) as page:
        yield page


def test_curves_tables_and_switches(page: Any) -> None:
    assert page.locator("#chart polyline").count() == 5  # lite, three peers, one published
    assert page.locator("#chart polyline.overlay").count() == 1
    before = page.locator("#chart polyline").first.get_attribute("points")
    page.select_option("#metric", "ms-ssim")
    assert page.locator("#chart polyline").count() == 4  # the paper has no MS-SSIM
    assert page.locator("#chart polyline").first.get_attribute("points") != before
    page.locator("#legend input").nth(1).focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.type") == "checkbox"  # and stays in reach
    assert page.locator("#chart polyline").count() == 3
    page.locator("#chart .mark").first.focus()
    hover = page.locator("#hover").inner_text()
    assert re.fullmatch(r"lite q 10: 0\.\d{4} bpp, MS-SSIM \(RGB\) 0\.\d{4}", hover)
    page.locator("#chart .mark").nth(2).hover()
    assert page.locator("#hover").inner_text().startswith("lite q 50")

    head = page.locator("#means th", has_text="bpp")
    for direction in ("ascending", "descending"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == direction
        cells = page.locator("#means tbody tr td:nth-child(3)").all_inner_texts()
        values = [float(text) for text in cells if text != "–"]
        assert values == sorted(values, reverse=direction == "descending")
        assert cells[-1] == "–"  # the ceiling has no rate
    assert "broken.png: skipped" in page.locator("body").inner_text()


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end)
    page.mouse.up()


def test_pictures_side_by_side(page: Any) -> None:
    left, right = page.locator("#left-picture"), page.locator("#right-picture")
    for picture in (left, right):
        assert picture.evaluate("p => p.decode().then(() => p.naturalWidth)") == 208
    assert "lite q 30" in page.locator("#left-caption").inner_text()
    page.select_option("#right-codec", "jpeg")
    assert re.search(
        r"jpeg q \d+: .* bpp, .* bytes; PSNR", page.locator("#right-caption").inner_text()
    )
    before = right.get_attribute("src")
    page.select_option("#right-quality", "67")
    assert right.get_attribute("src") != before and right.get_attribute("src").startswith(
        "data:image/jpeg"
    )
    assert "jpeg q 67" in right.get_attribute("alt")
    page.select_option("#rate", index=3)  # both sides follow
    assert "lite q 80" in page.locator("#left-caption").inner_text()
    page.select_option("#left-codec", "")
    assert page.locator("#left-caption").inner_text() == "original"
    page.select_option("#image", "1")
    assert right.evaluate("p => p.decode().then(() => p.naturalWidth)") == 240


def test_the_divider_stays_in_the_window_and_pictures_are_dragged(page: Any) -> None:
    viewport, handle = page.locator("#viewport"), page.locator("#handle")
    assert page.locator("#zoom button[aria-pressed=true]").inner_text() == "1:1"
    left = page.locator("#left-picture")
    assert left.bounding_box()["width"] == 208  # a pixel is a pixel
    viewport.scroll_into_view_if_needed()
    for name, width in (("8×", 8 * 208), ("4×", 4 * 208), ("2×", 2 * 208)):
        page.locator("#zoom button", has_text=name).click()
        assert left.bounding_box()["width"] == width
        window, grip = viewport.bounding_box(), handle.bounding_box()
        assert window["x"] < grip["x"] + 22 < window["x"] + window["width"]
        assert grip["height"] == pytest.approx(window["height"], abs=2)
    page.locator("#zoom button", has_text="8×").click()
    window, before, grip = viewport.bounding_box(), left.bounding_box(), handle.bounding_box()
    start = (window["x"] + 200, window["y"] + 100)
    drag(page, start, (start[0] - 60, start[1] + 40))
    after = left.bounding_box()
    assert (after["x"] - before["x"], after["y"] - before["y"]) == (-60, 40)
    assert handle.bounding_box() == grip  # it did not move
    drag(page, (grip["x"] + 22, start[1]), (window["x"] + 1 + window["width"] / 4, start[1]))
    assert float(page.locator("#divider").input_value()) == pytest.approx(25, abs=0.5)
    assert left.bounding_box() == after  # nor did they
    drag(page, start, (start[0] + 5000, start[1] + 5000))  # the edge stops at the window's
    assert left.bounding_box()["x"] == window["x"] + 1
    viewport.press("0")
    assert page.locator("#zoom button[aria-pressed=true]").inner_text() == "Fit"
    assert left.bounding_box()["height"] == pytest.approx(window["height"] - 2, abs=1)
    viewport.press("1")
    viewport.press("+")
    viewport.press("ArrowLeft")
    assert left.bounding_box()["width"] == 2 * 208
    page.locator("#divider").press("ArrowRight")
    assert float(page.locator("#divider").input_value()) == pytest.approx(25.5, abs=0.5)


def middle(page: Any, place: str) -> list[int]:
    """The colour of the pixel at a part ("1/4", say) of the window's width, half of its height."""
    png = page.locator("#viewport").screenshot()
    with Image.open(io.BytesIO(png)) as image:
        x = int(image.width * Fraction(place))
        return list(image.convert("RGB").getpixel((x, image.height // 2)))


def test_difference_and_original(page: Any) -> None:
    page.locator("#zoom button", has_text="8×").click()
    page.select_option("#left-codec", "")
    page.select_option("#right-codec", "jpeg")
    page.select_option("#right-quality", "3")
    original, coded = middle(page, "1/4"), middle(page, "3/4")
    page.locator("#difference").click()
    assert middle(page, "1/4") == [0, 0, 0]  # the original differs from itself nowhere
    shown = middle(page, "3/4")
    page.locator("#difference").click()
    page.locator("#hold").hover()
    page.mouse.down()
    assert page.locator("#hold").get_attribute("aria-pressed") == "true"
    true = middle(page, "3/4")
    assert middle(page, "1/4") == original
    page.mouse.up()
    assert middle(page, "3/4") == coded
    expected = [min(255, 4 * abs(a - b)) for a, b in zip(coded, true, strict=True)]
    assert shown == pytest.approx(expected, abs=4) and max(expected) > 12
    page.locator("#viewport").press("d")
    assert page.locator("#difference").get_attribute("aria-pressed") == "true"


def test_an_address_says_what_is_shown(page: Any, report: Path) -> None:
    page.select_option("#image", "1")
    page.select_option("#left-codec", "webp")
    page.select_option("#left-quality", "58")
    page.select_option("#metric", "ms-ssim")
    page.locator("#zoom button", has_text="4×").click()
    page.locator("#viewport").press("ArrowDown")
    page.locator("#divider").fill("30")
    page.locator("#difference").click()
    page.wait_for_url(re.compile("difference=1"))
    script = "document.getElementById('viewport').style.cssText"
    before, address = page.evaluate(script), page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.evaluate(script) == before
    chosen = {f"#{name}": page.locator(f"#{name}").input_value() for name in STATE}
    assert chosen == dict(zip((f"#{n}" for n in STATE), STATE.values(), strict=True))
    assert page.locator("#difference").get_attribute("aria-pressed") == "true"
    # What makes no sense is passed over.
    page.goto("about:blank")
    page.goto(
        f"{report.as_uri()}#picture=<img src=x>&left=__proto__&left-quality=NaN&zoom=1e99"
        "&at=Infinity,x&divider=-5&metric=<b>&difference=7"
    )
    assert page.locator("#left-codec").input_value() == "lite"
    assert page.locator("#divider").input_value() == "0"
    assert page.locator("#left-picture").bounding_box()["width"] == 16 * 208


STATE = {
    "image": "1",
    "left-codec": "webp",
    "left-quality": "58",
    "metric": "ms-ssim",
    "divider": "30",
}


def test_the_verdict_the_matrix_and_the_downloads(page: Any, report: Path) -> None:
    assert re.fullmatch(
        r"At equal MS.SSIM \(RGB\) the files of lite are \d+\.\d.% (smaller|larger) than .*\.",
        page.locator("#verdict").inner_text(),
    )
    assert page.locator("#verdict").evaluate("v => v.getBoundingClientRect().bottom") < 200
    assert page.locator("#viewport").evaluate("v => v.getBoundingClientRect().top") < 450
    assert page.locator("table.matrix").count() == 3
    detailed = json.loads((report.parent / "detailed.json").read_text())
    rates = {(r["anchor"], r["metric"]): r["percent"] for r in detailed["bd_rates"]}
    matrix = page.locator("table.matrix").nth(0)
    assert matrix.locator("tbody tr").count() == matrix.locator("thead th").count() - 1 == 4
    cells = matrix.locator("tbody tr").nth(0).locator("td").all_inner_texts()
    anchors = ("jpeg", "webp", "jpeg2000")
    expected = [f"{rates[name, 'psnr']:+.1f} %".replace("-", "−") for name in anchors]
    assert cells == ["", *expected]
    names = page.locator("#downloads a").all_inner_texts()
    assert names[:3] == ["results.json", "results.csv", "rd-psnr.svg"]
    for name in names:
        with page.expect_download() as download:
            page.locator("#downloads a", has_text=name).click()
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).read_bytes() == (report.parent / name).read_bytes()


BROKEN_WORDS = """
[...document.querySelectorAll("h1, h2, th, caption, summary")].flatMap((head) => {
  const walker = document.createTreeWalker(head, NodeFilter.SHOW_TEXT), broken = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    for (const word of node.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) broken.push(word[0]);
    }
  }
  return broken;
})
"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 200), (98, 211)])
def test_no_heading_breaks_inside_a_word(page: Any, width: int, height: int) -> None:
    """Desktop and phone, at 100 and at 400 %: zoom makes a page that much narrower."""
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    window = page.locator("#viewport").bounding_box()
    assert window["width"] <= width and window["height"] <= max(176, height)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_both_schemes(page: Any, scheme: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{name}").removeprefix("rgb(").split(",")[0]
        for name in ("backgroundColor", "color")
    )
    assert abs(int(paper) - int(ink)) > 150 and (int(paper) > int(ink)) == (scheme == "light")
    for picture in page.locator("img").all():
        assert picture.get_attribute("alt")


def test_the_page_of_one_picture(
    lake: Image.Image, tmp_path: Path, run: Callable[..., int], complaints: list[str]
) -> None:
    name = "<b>&amp; \x1b]0;"  # an awkward name must do no harm
    photo, file = tmp_path / f"{name}.png", tmp_path / f"{name}.bkc"
    lake.save(photo)
    assert run("encode", photo, "-q", 10, "-o", file) == 0
    assert run("view", file, photo) == 0 and run("view", file, "-o", tmp_path / "alone.html") == 0
    with opened(tmp_path / f"{name}.html", complaints) as page:
        pictures = [page.locator(f"#{side}-picture") for side in ("left", "right")]
        sizes = [p.evaluate("p => p.decode().then(() => p.naturalWidth)") for p in pictures]
        assert sizes == [768, 768] and page.locator("#handle").is_visible()
        assert page.locator("h1").inner_text() == "<b>&amp; \N{REPLACEMENT CHARACTER}]0;.bkc"
        assert re.search(r"768 × 512 pixels, .* bytes, .* PSNR \d", page.inner_text("body"))
        coded = middle(page, "3/8")
        page.locator("#hold").hover()
        page.mouse.down()
        assert middle(page, "3/8") != coded and not page.locator("#handle").is_visible()
        page.mouse.up()
        assert middle(page, "3/8") == coded
        original = page.locator("#left-layer .original").get_attribute("src")
        assert original == pictures[1].get_attribute("src")
        page.locator("#zoom button", has_text="8×").click()
        grip, window = page.locator("#handle").bounding_box(), page.locator("#viewport")
        assert grip["x"] + 22 < window.bounding_box()["x"] + window.bounding_box()["width"]
        page.wait_for_url(re.compile("zoom=8"))
        page.reload()
        assert pictures[0].bounding_box()["width"] == 8 * 768
        for width, height in ((1280, 800), (390, 844), (320, 200), (98, 211)):
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    with opened(tmp_path / "alone.html", complaints) as page:
        for missing in ("#handle", "#divider", "#difference", "#hold", "#right-picture"):
            assert not page.locator(missing).is_visible(), missing
        left = page.locator("#left-picture")
        assert left.bounding_box()["width"] == 768
        page.locator("#viewport").press("+")
        assert left.bounding_box()["width"] == 2 * 768
