"""The report in a real browser: everything moves, nothing complains."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
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


@pytest.fixture
def page(report: Path, complaints: list[str]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if r.url[:4] == "http" else None)
        page.goto(report.as_uri())
        yield page
        browser.close()
    assert not complaints


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


def test_pictures_side_by_side(page: Any) -> None:
    left, right = page.locator("#left-picture"), page.locator("#right-picture")
    for picture in (left, right):
        assert picture.evaluate("p => p.decode().then(() => p.naturalWidth)") == 208
    assert "lite q 30" in page.locator("#left-caption").inner_text()
    page.locator("#viewport").evaluate("v => v.scrollIntoView()")
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
    page.mouse.up()
    assert page.locator("#divider").input_value() == "25"
    assert "75%" in left.evaluate("p => p.style.clipPath")
    page.locator("#divider").press("ArrowRight")
    assert page.locator("#divider").input_value() == "25.5"

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
    page.locator("#zoom button", has_text="4×").click()
    assert page.locator("#stage").bounding_box()["width"] == 960
    assert page.locator("#zoom button[aria-pressed=true]").inner_text() == "4×"


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
