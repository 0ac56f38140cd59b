"""What the report is made of: a sentence, tables that fit, cells that do nothing, hostile files."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from bkcodec.bench import metrics
from bkcodec.bench.cells import Cell
from bkcodec.bench.codecs import Candidate
from bkcodec.bench.dataset import Dataset, Photo
from bkcodec.bench.report import published
from bkcodec.bench.report.page import matrices
from bkcodec.bench.report.results import Outcome, harmless
from bkcodec.bench.report.summary import BdRate, bd_rates, points
from bkcodec.bench.report.terminal import Column, fitted, show
from bkcodec.bench.report.verdict import verdict

PSNR = metrics.Metric("psnr", "PSNR (RGB), dB", True, metrics.psnr, 2)
SSIM = metrics.Metric("ms-ssim", "MS-SSIM (RGB)", True, metrics.ms_ssim, 4)
ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
QUALITIES = (5.0, 20.0, 35.0, 50.0, 70.0, 90.0)
SIZES = {"lite": 900, "jpeg": 2000, "=cmd|' /C calc'!A0": 1000}  # bytes at the lowest quality


def outcome(image: str = "a.png", trouble: str | None = None, folder: str = "photos") -> Outcome:
    """Three codecs, six qualities, one picture."""
    kinds = ("bundle", "pillow", "pillow")
    codecs = [
        Candidate(kind, name, QUALITIES, "jpeg") for kind, name in zip(kinds, SIZES, strict=True)
    ]
    ceiling = Candidate("ceiling", "lite:vae-roundtrip", (0.0,), "lite")
    values = {c: {"psnr": 20.0 + c, "ms-ssim": 1 - 2.0**-c} for c in range(1, 7)}
    cells = [
        Cell(c.name, q, image, 640, 480, SIZES[c.name] * 2**i, values[i + 1], 12.345, 123.456)
        for c in codecs
        for i, q in enumerate(c.qualities)
    ]
    cells.append(Cell(ceiling.name, 0.0, image, 640, 480, None, values[6]))
    cells[0].error = trouble
    candidates = [codecs[0], ceiling, *codecs[1:]]
    means = points(cells, candidates)
    rates = bd_rates(means, [c.name for c in codecs], [PSNR, SSIM])
    photo = Photo(image, Path(image), 640, 480, "digest", "")
    figures = {"encode_load_seconds": 12.34, "encode_peak_rss": 2.0**34}
    return Outcome(
        folder,
        Dataset([photo], []),
        candidates,
        [PSNR, SSIM],
        cells,
        means,
        [r for r in rates if r.codec == "lite"],
        rates,
        dict.fromkeys(SIZES, figures),
        [],
        {"device": "cpu", "repetitions": 1, "jobs": 1},
    )


def test_ranges_and_settings_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """MS-SSIM is -10 log10(1 - x) of 1 - 2^-1 to 1 - 2^-6 here: 3.01 to 18.06 dB."""
    result = outcome()
    jpeg = next(c for c in result.candidates if c.name == "jpeg")
    noted = [replace(c, note="set like this") if c is jpeg else c for c in result.candidates]
    show(replace(result, candidates=noted))
    text = capsys.readouterr().out
    assert "ms-ssim as -10 log10(1 - x), dB" in text and "3.01 to 18.06 dB" in text
    assert "21 to 26" in text and "21 to 26 dB" not in text and "set like this" in text
    assert {m["name"]: m["scale"] for m in result.detailed()["metrics"]} == {
        "psnr": "",
        "ms-ssim": metrics.DECIBELS,
    }
    assert matrices(result)[1]["label"] == "MS-SSIM (RGB) as -10 log10(1 - x), dB"


def test_the_verdict_is_one_sentence() -> None:
    result = outcome()
    odd = "=cmd|' /C calc'!A0"
    expected = f"10.0\N{NO-BREAK SPACE}% smaller than those of {odd}, the strongest of 2 others"
    assert verdict("lite", result.metrics, result.matrix) == (
        f"At equal MS-SSIM (RGB) the files of lite are {expected}; "
        f"at equal PSNR (RGB) they are {expected}."
    )
    pair = [BdRate("a", "b", "psnr", -20.0, 1, 2), BdRate("a", "c", "psnr", 4.04, 1, 2)]
    assert verdict("a", [PSNR], pair) == (
        "At equal PSNR (RGB) the files of a are 4.0\N{NO-BREAK SPACE}% larger than those of c, "
        "and smaller than those of 1 of 2 others."
    )
    assert verdict("a", [PSNR], pair[:1]).endswith("% smaller than those of b.")
    assert verdict("a", [PSNR], pair[1:]).endswith("% larger than those of c.")
    few = BdRate("a", "b", "psnr", None, reason="fewer than 4 points on a curve")
    text = "How a compares cannot be said in BD-rates: fewer than 4 points on a curve."
    assert verdict("a", [PSNR], [few]) == text
    assert verdict("a", [PSNR], []) == "a stands alone: nothing was compared with it."


def test_every_codec_stands_against_every_other() -> None:
    (first, _) = matrices(outcome())
    assert first["label"] == PSNR.label and first["names"] == list(SIZES)
    for codec, row in first["rows"]:
        for anchor, rate in zip(SIZES, row, strict=True):
            if codec == anchor:
                assert rate is None
            else:
                assert (rate.codec, rate.anchor, rate.metric) == (codec, anchor, "psnr")
                percent = 100 * (SIZES[codec] / SIZES[anchor] - 1)
                assert rate.percent == pytest.approx(percent, abs=0.01)


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_tables_on_a_terminal_lose_no_digit(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = outcome(trouble="no", folder=ESCAPES)
    show(result)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns and "…" not in out
    assert all(c.isprintable() for line in lines for c in line)
    words = out.split()
    for p in result.points:
        if p.bpp is not None:
            assert f"{p.bpp:.4f}" in words and f"{p.metrics['ms-ssim']:.4f}" in words
    assert words.count("12.345") == words.count("123.456") == 17  # one failed, one is no codec
    assert words.count("16384") == 3 and words.count("12.34") == 3
    assert ["1", "failed"] in [words[i : i + 2] for i in range(len(words))]


def test_a_wide_table_becomes_several() -> None:
    columns = [Column(f"figure {i}", ["123456789"] * 2) for i in range(12)]
    tables = fitted("title", ["a" * 60, "b"], Column("q", ["1", "2"]), columns, 80)
    assert len(tables) == 3 and [table.title for table in tables] == ["title", None, None]
    console = Console(width=80, file=io.StringIO())
    for table in tables:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("123456789") == 24 and text.count("a") >= 60 * 3
    alone = fitted("title", ["a"], None, [Column("x" * 99, ["1"])], 80)
    assert len(alone) == 1  # nothing to divide


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("lite", "lite"),
        ("=1+2", "'=1+2"),
        ("@sum", "'@sum"),
        ("+1", "+1"),
        ("-0.5", "-0.5"),
        ("-1+cmd", "'-1+cmd"),
        ("+cmd", "'+cmd"),
        ("\t=1", "\N{REPLACEMENT CHARACTER}=1"),
        ("\x1b[31m", "\N{REPLACEMENT CHARACTER}[31m"),
        ("", ""),
    ],
)
def test_cells_of_a_table_do_nothing(text: str, cell: str) -> None:
    assert harmless(text) == cell


def test_a_csv_file_has_no_formula() -> None:
    image = '=HYPERLINK("http://x";"y")'
    result = outcome(image, trouble="-2+3+cmd|' /C calc'!A0\x1b[31m\nnew line")
    rows = list(csv.DictReader(io.StringIO(result.csv())))
    assert rows[0]["image"] == f"'{image}" and rows[12]["codec"].startswith("'=cmd")
    assert rows[0]["trouble"].startswith("'-2+3")
    assert float(rows[0]["psnr"]) == 21 and rows[-1]["bytes"] == ""
    for row in rows:
        assert all(not v.startswith(("=", "@", "\t")) and v.isprintable() for v in row.values())


GOOD: dict[str, Any] = {"bpp": [0.1, 0.2], "psnr-rgb": [30, 32.5]}
MARKUP = "<script>alert(1)</script>--></svg>&amp;]]>$x$"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "CompressAI's schema"),
        ("\xff\xfe", "CompressAI's schema"),
        ("5", "the file must be an object"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"bpp": [NaN], "psnr": [1]}', "NaN is no number"),
        ('{"bpp": [0.1], "psnr": [-Infinity]}', "-Infinity is no number"),
        ('{"bpp": [1e999], "psnr": [1]}', "bpp has a value that is no number, or one above"),
        ('{"bpp": [0.1], "psnr": [1e300]}', "psnr has a value that is no number, or one above"),
        ('{"bpp": [' + "9" * 9999 + '], "psnr": [1]}', "bpp has a value"),
        ('{"bpp": [1e-300], "psnr": [1]}', "rates must be numbers from"),
        ('{"bpp": [-1], "psnr": [1]}', "rates must be numbers from"),
        ('{"bpp": [null], "psnr": [1]}', "rates must be numbers from"),
        ({"bpp": ["0.1"], "psnr": [1]}, "bpp has a value"),
        ({"bpp": [[0.1]], "psnr": [1]}, "bpp has a value"),
        ({"bpp": [True], "psnr": [1]}, "bpp has a value"),
        ({"bpp": {"0": 0.1}, "psnr": [1]}, "bpp must be a list"),
        ({"bpp": [0.1, 0.2], "psnr": [1]}, "psnr has 1 values for 2 rates"),
        ({"bpp": [0.1], "psnr": [{}]}, "psnr has a value"),
        ({"bpp": [0.1] * 5000, "psnr": [1] * 5000}, "more than 1000 entries"),
        ({"psnr": [1]}, "there is no bpp"),
        ({}, "there is no bpp"),
        ({"results": []}, "results must be an object"),
        ({"results": None}, "results must be an object"),
        ({"codecs": {}}, "codecs must be a list"),
        ({"codecs": [GOOD] * 101}, "codecs has more than 100 entries"),
        ({"codecs": [None]}, "a codec must be an object"),
        ({"codecs": []}, "there is no curve to draw"),
        ({"bpp": [], "psnr": []}, "there is no curve to draw"),
        ({"bpp": [0.1], "psnr": [None]}, "there is no curve to draw"),
        ({"name": ESCAPES, **GOOD}, "printable characters"),
        ({"name": "\ud800", **GOOD}, "printable characters"),
        ({"name": "a" * 101, **GOOD}, "printable characters"),
        ({"name": ["lite"], "results": GOOD}, "printable characters"),
        ({"name": "", **GOOD}, "printable characters"),
        ({ESCAPES: [1, 2], **GOOD}, "printable characters"),
        ({**GOOD, **{f"metric {i}": [1, 2] for i in range(101)}}, "more than 100 metrics"),
    ],
)
def test_hostile_results_are_one_line(
    content: object,
    message: str,
    tmp_path: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / "results.json", tmp_path / "plot.svg"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("latin-1"))
    assert run("plot", path, "-o", out) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bkcodec: error: ") and message in line and len(line) < 400
    assert line.isprintable() and not out.exists()


def test_a_file_without_end_is_not_read_to_its_end(
    tmp_path: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    (tmp_path / "long.json").write_text(" " * 1001)
    for path in (tmp_path / "long.json", Path("/dev/zero"), tmp_path, tmp_path / "nowhere"):
        assert run("plot", path, "-o", tmp_path / "x.svg") == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bkcodec: error: ")


def test_markup_and_odd_letters_are_drawn(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate(
        (MARKUP, "$\\frac{", "_hidden", "\N{PILE OF POO} \N{HIRAGANA LETTER A}")
    ):
        (tmp_path / f"{i}.json").write_text(json.dumps({"name": name, MARKUP: [1, 2], **GOOD}))
    files = sorted(tmp_path.glob("*.json"))
    for metric in ("psnr", MARKUP):
        out = tmp_path / "plot.svg"
        options = ("--metric", metric, "--title", f"{ESCAPES}{MARKUP}", "-f")
        assert run("plot", *files, "-o", out, *options) == 0
        root = ElementTree.parse(out).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not root.findall(".//{*}script")
        captured = capsys.readouterr()
        assert captured.err == f"bkcodec: the plot is {out}\n" and not captured.out
    assert run("plot", *files, "-o", tmp_path / "x.svg", "--metric", ESCAPES) == 2
    assert capsys.readouterr().err.strip().isprintable()


def test_no_settings_file_has_a_say(tmp_path: Path) -> None:
    """Neither the folder's matplotlibrc nor the user's: plots are the same, byte for byte."""
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text("open('owned', 'w')")
    (tmp_path / "evil" / "matplotlibrc").write_text(
        "backend: module://evil\ntext.usetex: True\nfigure.facecolor: red\n"
        f"lines.linewidth: 9\nno such key{ESCAPES}: 1\nsvg.fonttype: none\n"
    )
    (tmp_path / "plain").mkdir()
    for folder in ("plain", "evil"):
        environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / folder)}
        for suffix in ("svg", "png"):
            command = [sys.executable, "-P", "-m", "bkcodec", "plot", "../good.json"]
            done = subprocess.run(
                [*command, "-o", f"plot.{suffix}"],
                cwd=tmp_path / folder,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stderr == f"bkcodec: the plot is plot.{suffix}\n"
    assert not (tmp_path / "evil" / "owned").exists()
    for suffix in ("svg", "png"):
        one, other = ((tmp_path / f / f"plot.{suffix}").read_bytes() for f in ("plain", "evil"))
        assert one == other
    with Image.open(tmp_path / "evil" / "plot.png") as image:
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    "run_file",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"statistics": {}, "images": [], "codecs": {}, "metrics": {}, "conditions": {}}',
        '{"statistics": 1, "images": {}, "codecs": {}, "metrics": {}, "conditions": {}}',
        '{"statistics": {"a": {"b": NaN}}, "images": {}, "codecs": {}, "metrics": {}, '
        '"conditions": {}}',
    ],
)
def test_a_hostile_folder_is_not_resumed(
    run_file: str,
    tmp_path: Path,
    small: Image.Image,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    small.save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(run_file)
    options = ("--peers", "none", "--resume", "-q", "50")
    assert run("bench", tmp_path / "a.png", "-o", tmp_path / "out", *options) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "run.json: damaged" in line


def test_a_range_leaves_an_empty_curve_empty() -> None:
    result = outcome()
    blind = [replace(p, metrics={}, rates={}) if p.codec == "lite" else p for p in result.points]
    rates = bd_rates(blind, list(SIZES), [PSNR], (0.05, 0.5))
    assert {r.reason for r in rates if "lite" in (r.codec, r.anchor)} == {
        "fewer than 4 points on a curve"
    }


def test_failures_have_no_verdict() -> None:
    result = outcome(trouble="no")
    text = verdict("lite", result.metrics, result.matrix)
    assert text.endswith("in BD-rates: not all pictures were coded at all qualities.")
    assert replace(result, cells=result.cells[1:]).n_failed == 0
