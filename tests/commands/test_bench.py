"""The benchmark from the command line: real codecs, real files, fresh decoders."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d

from bkcodec.bench.cells import CELLS

SETTINGS = ("-q", "10,60", "--peers", "jpeg,webp", "--repetitions", "1")


@pytest.fixture(scope="module")
def dataset(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixed sizes, greyscale, alpha, a folder below, and one file that is no photo."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "below").mkdir()
    lake.crop((100, 100, 308, 292)).save(folder / "a.png")
    lake.crop((300, 200, 390, 270)).convert("L").save(folder / "grey.png")
    part = lake.crop((400, 200, 580, 390))
    part.putalpha(128)
    part.save(folder / "below" / "a.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    return folder


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark's output folder, made by a process of its own."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    command = [
        sys.executable,
        "-m",
        "bkcodec",
        "bench",
        dataset,
        "-o",
        folder,
        *SETTINGS,
        "--save-samples",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "skipped broken.jpg" in done.stderr
    assert "lite" in done.stdout and "webp" in done.stdout and "BD-rate" in done.stdout
    return folder


def test_every_cell_is_there(finished: Path, dataset: Path) -> None:
    detailed = json.loads((finished / "detailed.json").read_text())
    names = {"a.png", "below/a.png", "grey.png"}
    notes = {i["name"]: i["note"] for i in detailed["images"]}
    assert notes == {"a.png": "", "below/a.png": "alpha left out", "grey.png": "greyscale"}
    assert [s["name"] for s in detailed["skipped"]] == ["broken.jpg"]
    cells = detailed["cells"]
    assert len(cells) == 3 * (2 + 1 + 6 + 6)
    for cell in cells:
        assert cell["error"] is None and not cell["bugs"] and cell["image"] in names
        assert (cell["metrics"]["ms-ssim"] is None) == (cell["image"] == "grey.png")  # too small
        assert 10 < cell["metrics"]["psnr"] < 60
        if cell["codec"] != "lite:vae-roundtrip":
            assert cell["bpp"] == 8 * cell["n_bytes"] / (cell["width"] * cell["height"])
            assert cell["encode_seconds"] > 0 and cell["decode_seconds"] > 0
    ceiling = {c["image"]: c for c in cells if c["codec"] == "lite:vae-roundtrip"}
    assert len(ceiling) == 3 and all(c["n_bytes"] is None for c in ceiling.values())
    for cell in cells:
        if cell["codec"] == "lite":
            above = ceiling[cell["image"]]["metrics"]["psnr"]
            assert cell["metrics"]["psnr"] < above
    by_name = {c["name"]: c["statistics"] for c in detailed["codecs"]}
    # An encoder of JPEG files needs no networks: memory is that of each process alone.
    assert by_name["jpeg"]["encode_peak_rss"] < 200e6 < by_name["lite"]["encode_peak_rss"]
    assert by_name["lite"]["decode_load_seconds"] > 0


def test_results_are_in_compressais_schema(finished: Path) -> None:
    plot = pytest.importorskip("compressai.utils.plot.__main__")
    curve = plot.parse_json_file(finished / "results.json", "psnr")
    assert curve["name"] == "lite" and len(curve["xs"]) == len(curve["ys"]) == 2
    assert curve["xs"] == sorted(curve["xs"]) and curve["ys"] == sorted(curve["ys"])
    codecs = json.loads((finished / "results.json").read_text())["codecs"]
    assert [c["name"] for c in codecs] == ["lite", "jpeg", "webp"]
    rows = list(csv.DictReader((finished / "results.csv").read_text().splitlines()))
    assert len(rows) == 45 and rows[0]["codec"] == "lite" and float(rows[0]["bpp"]) > 0
    for kind in ("svg", "png"):
        assert (finished / f"rd-psnr.{kind}").stat().st_size > 5000


def test_two_points_are_no_curve(finished: Path) -> None:
    rates = json.loads((finished / "detailed.json").read_text())["bd_rates"]
    assert rates and all(r["percent"] is None and "4 points" in r["reason"] for r in rates)


def test_figures_agree_with_an_independent_computation(finished: Path, dataset: Path) -> None:
    """PSNR and MS-SSIM of three saved samples, straight from their definitions."""
    detailed = json.loads((finished / "detailed.json").read_text())
    original = np.asarray(Image.open(dataset / "a.png").convert("RGB"), np.float64)
    for codec, quality in (("lite", 60), ("jpeg", 17), ("webp", 35)):
        (cell,) = [
            c
            for c in detailed["cells"]
            if (c["codec"], c["quality"], c["image"]) == (codec, quality, "a.png")
        ]
        folder = finished / "samples" / f"{codec}-q{quality}"
        decoded = np.asarray(Image.open(folder / "a.png.png").convert("RGB"), np.float64)
        psnr = 20 * np.log10(255) - 10 * np.log10(((original - decoded) ** 2).mean())
        assert cell["metrics"]["psnr"] == pytest.approx(psnr, abs=1e-6)
        assert cell["metrics"]["ms-ssim"] == pytest.approx(ms_ssim(original, decoded), abs=2e-5)
        (file,) = [f for f in folder.glob("a.png.*") if f.suffix != ".png"]
        assert file.stat().st_size == cell["n_bytes"]


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang, Simoncelli and Bovik 2003: five scales, 11-pixel Gaussian windows, mean of channels."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        rows = correlate1d(correlate1d(x, window, axis=0), window, axis=1)
        return rows[5:-5, 5:-5]

    c1, c2, product = (0.01 * 255) ** 2, (0.03 * 255) ** 2, np.ones(3)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            a, b = (x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
            a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        ma, mb = blur(a), blur(b)
        va, vb, vab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        contrast = (2 * vab + c2) / (va + vb + c2)
        term = contrast if scale < 4 else contrast * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        product *= term.mean(axis=(0, 1)) ** weight
    return float(product.mean())


def test_an_interrupted_benchmark_goes_on(
    dataset: Path, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "bkcodec", "bench", dataset, "-o", folder, *SETTINGS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(lines(folder)) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = lines(folder)
    assert 4 <= len(kept) < 45 and not (folder / "results.json").exists()
    with (folder / CELLS).open("a") as file:
        file.write('{"codec": "torn')
    assert run("bench", dataset, "-o", folder, *SETTINGS) == 3  # without --resume
    assert run("bench", dataset, "-o", folder, *SETTINGS, "--resume", "--json") == 0
    cells = {
        (c["codec"], c["quality"], c["image"]): c
        for c in json.loads(capsys.readouterr().out)["cells"]
    }
    assert len(cells) == 45
    for line in kept:  # not measured again: to the last digit of their times
        cell = json.loads(line)
        again = cells[cell["codec"], cell["quality"], cell["image"]]
        assert {k: again[k] for k in cell} == cell
    assert (folder / "report.html").is_file() and not (folder / "samples").exists()
    (dataset / "extra.png").write_bytes((dataset / "grey.png").read_bytes())
    try:
        assert run("bench", dataset, "-o", folder, *SETTINGS, "--resume") == 3
        assert "other pictures" in capsys.readouterr().err
    finally:
        (dataset / "extra.png").unlink()


def test_an_interrupt_ends_it_at_once(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "bkcodec",
        "bench",
        dataset,
        "-o",
        folder,
        "-q",
        "50",
        "--peers",
        "none",
        "--repetitions",
        "100",
        "-j",
        "2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (folder / "run.json").exists():
        time.sleep(0.01)
    time.sleep(1)  # the workers are starting
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in err
    assert time.monotonic() - began < 5


def lines(folder: Path) -> list[str]:
    path = folder / CELLS
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 3, "no such file"),
        (("a.png", "--peers", "gif"), 2, "unknown peer 'gif'"),
        (("a.png", "--peers", "zoo:nothing"), 2, "CompressAI's zoo has"),
        (("a.png", "--peers", "zoo:mbt2018"), 5, "nothing is downloaded"),
        (("a.png", "--metrics", "lpips-sq"), 2, "--lpips FILE"),
        (("a.png", "--metrics", "butteraugli"), 5, "on PATH"),
        (("a.png", "-m", "lite@speed=3"), 2, "'speed=3': not NAME=VALUE"),
        (("a.png", "--metrics", "vmaf"), 2, "unknown metric"),
        (("a.png", "--save-samples"), 2, "--save-samples needs -o"),
        (("a.png", "--overlay", "broken.jpg"), 2, "--overlay needs -o"),
        (("a.png", "--peers", "none,jpeg"), 2, "none stands alone"),
        (("a.png", "-o", "new", "--resume"), 3, "no benchmark to resume"),
        (("a.png", "-q", "10,10.1"), 2, "half a step apart"),
        (("a.png", "-m", "lite", "-m", "lite"), 2, "two codecs are called lite"),
        (("a.png", "-q", "10,10"), 2, "half a step apart"),
        (("a.png", "-m", "nothing"), 5, "unknown bundle"),
        (("broken.jpg",), 3, "no readable photo"),
        (("a.png", "-o", "new", "--overlay", "broken.jpg"), 3, "CompressAI's schema"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    dataset: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(dataset)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run("bench", *arguments) == code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert message in line


def test_runs_are_drawn_into_one_plot(
    finished: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, other = finished / "results.json", tmp_path / "published.json"
    other.write_text('{"name": "paper", "results": {"bpp": [0.4, 0.2], "psnr-rgb": [32, 30]}}')
    for suffix in ("svg", "png"):
        out = tmp_path / f"plot.{suffix}"
        assert run("plot", results, results, other, "-o", out) == 0
        assert out.stat().st_size > 5000
        assert run("plot", results, "-o", out) == 3
    text = (tmp_path / "plot.svg").read_text()
    assert "paper" in text and "out/results.json" in text  # lite is there twice
    assert run("plot", results, "-o", tmp_path / "x.svg", "--metric", "lpips-sq") == 2
    assert "there are psnr" in capsys.readouterr().err
    assert run("plot", results, "-o", tmp_path / "x.gif") == 2
