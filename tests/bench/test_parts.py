"""Parts of the benchmark: failures, BD-rates, space for pictures, the zoo, outside programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import save_file
from scipy import interpolate
from ssimulacra2 import compute_ssimulacra2
from torchvision import models

from bkcodec.bench import codecs as codecs_module
from bkcodec.bench import metrics
from bkcodec.bench.cells import CELLS, Cell, append, read
from bkcodec.bench.codecs import (
    Candidate,
    bundles,
    default_peers,
    encoder_options,
    pillow_peer,
    zoo_peer,
)
from bkcodec.bench.coders import BundleCoder, PillowCoder, ZooCoder
from bkcodec.bench.dataset import Dataset, Photo, prepare
from bkcodec.bench.report.pictures import plan
from bkcodec.bench.report.published import read_curves
from bkcodec.bench.report.summary import bd_rate, bd_rates, compressai_results, cut, points
from bkcodec.bench.report.summary import curve as curve_of
from bkcodec.bench.run import Bench, measure, slug
from bkcodec.bench.workers import Lane, Worker
from bkcodec.container import container_from_bytes
from bkcodec.errors import InputError, UnsupportedError, UsageError
from bkcodec.models.lpips import Lpips
from bkcodec.pages.template import as_script

PSNR = metrics.Metric("psnr", "PSNR", True, metrics.psnr, 2)
BUNDLE = Candidate("bundle", "lite", (50.0,), "lite", {})


class Scripted:
    """A worker that says what a test wants."""

    peaks: dict[str, int] = {}
    load_seconds = 0.0

    def __init__(self, answer: dict[str, Any], picture: Image.Image | None = None) -> None:
        self.answer, self.picture = answer, picture

    def ask(self, **task: Any) -> dict[str, Any]:
        if self.picture is not None:
            self.picture.save(task["picture"])
        elif "image" in task:
            Path(task["file"]).write_bytes(b"coded")
        return self.answer


def one_cell(
    small: Image.Image,
    folder: Path,
    encoded: dict[str, Any],
    decoded: dict[str, Any],
    picture: Image.Image | None = None,
) -> Cell:
    small.save(folder / "original.png")
    photo = Photo("x.png", folder / "original.png", *small.size, "digest", "")
    bench = Bench([BUNDLE], Dataset([photo], []), [PSNR], None, None)
    lane = Lane(BUNDLE)
    lane.encoder = Scripted(encoded)  # type: ignore[assignment]
    lane.decoder = Scripted(decoded, picture or small)  # type: ignore[assignment]
    return measure(bench, lane, bench.cells()[0], photo, folder)


def test_each_kind_of_bug_is_counted(small: Image.Image, tmp_path: Path) -> None:
    good = {"seconds": 0.1, "digest": "same"}
    cell = one_cell(small, tmp_path, good, good)
    assert not cell.failed and cell.metrics == {"psnr": metrics.EXACT_PSNR} and cell.n_bytes == 5
    cells = [
        cell,
        one_cell(small, tmp_path, good, {**good, "digest": "other"}),
        one_cell(small, tmp_path, good, good, small.crop((0, 0, 20, 20))),
        one_cell(small, tmp_path, good, {"error": "FormatError: torn"}),
        one_cell(small, tmp_path, {"error": "ValueError: no"}, good),
    ]
    assert [c.bugs for c in cells] == [[], ["symbols"], ["size"], ["decode"], []]
    assert [c.failed for c in cells] == [False, True, True, True, True]
    assert cells[3].error == "decoder: FormatError: torn"
    assert cells[4].error == "encoder: ValueError: no"
    (point,) = points(cells, [BUNDLE])
    assert (point.n_images, point.n_failed) == (1, 4)
    assert point.bugs == {"symbols": 1, "size": 1, "decode": 1}


def test_a_failed_cell_fails_the_benchmark_and_the_rest_is_reported(
    small: Image.Image,
    tmp_path: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = Worker.ask

    def moody(self: Worker, **task: Any) -> dict[str, Any]:
        if self.candidate.name == "jpeg" and task["quality"] == 17:
            return {"error": "out of order"}
        return ask(self, **task)

    monkeypatch.setattr(Worker, "ask", moody)
    small.save(tmp_path / "x.png")
    common = ("-q", "50", "--peers", "jpeg", "--repetitions", "1", "-j", "2")
    assert run("bench", tmp_path / "x.png", "-o", tmp_path / "out", *common) == 1
    out, err = capsys.readouterr()
    assert "1 failed" in out and "jpeg q 17, x.png: encoder: out of order" in err
    assert "1 of 8 cells failed" in err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 failed" in page and "out of order" in page
    monkeypatch.setattr(Worker, "ask", ask)
    assert run("bench", tmp_path / "x.png", "-o", tmp_path / "out", *common, "--resume") == 0
    assert len(read(tmp_path / "out")) == 8


def test_a_worker_that_dies_is_an_answer() -> None:
    worker = Worker(BUNDLE)
    assert "error" not in worker._start()
    worker._process.kill()  # type: ignore[union-attr]
    assert "the process died" in worker.ask(task="encode")["error"]
    assert "KeyError" in worker.ask(task="encode")["error"]  # a new process, a task without image
    worker.kill()
    assert worker.ask(task="encode")["error"] == "interrupted"
    worker.close()
    assert "unknown bundle" in Worker(Candidate("bundle", "x", (1.0,), "x", {})).ask()["error"]


def test_a_worker_runs_no_code_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("statistics", "json", "bkcodec", "sitecustomize", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    worker = Worker(pillow_peer("jpeg", 6))
    assert "cannot identify" not in str(worker.ask(task="encode", image="missing.png"))
    worker.close()
    assert worker.load_seconds is not None and not (tmp_path / "ran").exists()


def curve(factor: float, values: list[float]) -> list[tuple[float, float]]:
    return [(factor * 0.1 * 2**i, v) for i, v in enumerate(values)]


def test_bd_rates_and_when_there_is_none() -> None:
    base = curve(1, [28, 30, 32, 34, 36])
    half = bd_rate("a", "b", PSNR, base, curve(0.5, [28, 30, 32, 34, 36]))
    assert half.percent == pytest.approx(-50, abs=0.01) and (half.low, half.high) == (28, 36)
    bent_curve = curve(1, [27, 30.5, 33, 34.5, 35.5])
    a, b = (
        interpolate.Akima1DInterpolator([v for _, v in c], [np.log(r) for r, _ in c])
        for c in (base, bent_curve)
    )
    mean = (b.integrate(28, 35.5) - a.integrate(28, 35.5)) / 7.5
    found = bd_rate("a", "b", PSNR, base, bent_curve)
    assert found.percent == pytest.approx(100 * (np.exp(mean) - 1), abs=1e-6)
    apart = bd_rate("a", "b", PSNR, base, curve(1, [35, 37, 39, 41, 43]))
    assert apart.percent is None and "overlap over 12% only" in apart.reason
    assert bd_rate("a", "b", PSNR, base, curve(1, [46, 47, 48, 49])).percent is None
    few = bd_rate("a", "b", PSNR, base, curve(1, [30, 32, 34]))
    assert few.percent is None and "4 points" in few.reason
    bent = bd_rate("a", "b", PSNR, base, curve(1, [30, 29, 33, 35]))
    assert bent.percent is None and "does not rise" in bent.reason
    distance = metrics.Metric("lpips-sq", "LPIPS-SQ", False, metrics.psnr, 4)
    falling = [0.4, 0.3, 0.2, 0.1]
    lower = bd_rate("a", "b", distance, curve(1, falling), curve(2, falling))
    assert lower.percent == pytest.approx(100, abs=0.01) and lower.low == pytest.approx(0.1)


def test_pictures_fit_into_the_page() -> None:
    kodak = [768 * 512] * 24
    quality, shown = plan(kodak, 18, 13)
    assert shown == 24 and quality >= 48
    assert plan(kodak[:2], 6, 7)[0] == 90  # room for the best copies
    assert 5 < plan([12_000_000] * 50, 18, 12)[1] < 20  # their middle only
    assert plan([1_400_000] * 2, 500, 500)[1] == 0


def test_a_metric_that_fails_is_no_fault_of_the_codec(small: Image.Image, tmp_path: Path) -> None:
    def broken(*_: Path) -> float:
        raise RuntimeError("no memory")

    small.save(tmp_path / "original.png")
    photo = Photo("x.png", tmp_path / "original.png", *small.size, "digest", "")
    both = [PSNR, metrics.Metric("other", "Other", True, broken, 2)]
    bench = Bench([BUNDLE], Dataset([photo], []), both, None, None)
    lane, good = Lane(BUNDLE), {"seconds": 0.1, "digest": None}
    lane.encoder = Scripted(good)  # type: ignore[assignment]
    lane.decoder = Scripted(good, small)  # type: ignore[assignment]
    cell = measure(bench, lane, bench.cells()[0], photo, tmp_path)
    assert not cell.failed and cell.trouble == "other: RuntimeError: no memory"
    (point,) = points([cell], [BUNDLE])
    assert point.metrics == {"psnr": metrics.EXACT_PSNR, "other": None} and point.n_failed == 0


def test_a_metric_goes_with_the_rate_of_the_same_pictures() -> None:
    """A picture that is too small for MS-SSIM does not move its curve."""
    large = Cell("lite", 50.0, "a", 1000, 1000, 25_000, {"psnr": 30.0, "ms-ssim": 0.95})
    tiny = Cell("lite", 50.0, "b", 100, 100, 2_500, {"psnr": 40.0, "ms-ssim": None})
    found = points([large, tiny], [BUNDLE])
    assert found[0].bpp == pytest.approx(1.1) and found[0].metrics["psnr"] == 35
    assert curve_of(found, "lite", "ms-ssim") == [(0.2, 0.95)]
    assert curve_of(found, "lite", "psnr") == [(pytest.approx(1.1), 35)]
    similarity = metrics.Metric("ms-ssim", "MS-SSIM", True, metrics.ms_ssim, 4)
    results = compressai_results(found, "lite", [PSNR, similarity])
    assert "psnr-rgb" in results and "ms-ssim-rgb" not in results


def test_bd_rates_between_two_rates() -> None:
    base = [(0.1 * 2**i, 25.0 + i) for i in range(5)]  # straight over the logarithm of the rate
    assert np.allclose(cut(base, 0.1, 1.6), base)
    inner = cut(base, 0.1 * 2**0.5, 0.8)
    assert inner[0] == pytest.approx((0.1 * 2**0.5, 25.5)) and inner[1:] == base[1:4]
    assert cut(base, 2.0, 3.0) == cut(base, 0.01, 0.1) == []
    lower = [(0.5 * rate, value) for rate, value in base]
    lower[0] = (0.05, 21.0)  # far off, but not between these rates
    rate = bd_rate("a", "b", PSNR, *(cut(points, 0.1, 2) for points in (base, lower)))
    assert rate.percent == pytest.approx(-50, abs=0.5)


def test_ms_ssim_is_compared_in_decibels() -> None:
    """Its linear values put most of the range where pictures are worst."""
    qualities = (0.0, 1.0, 2.0, 3.0, 4.0)
    values = {"one": (0.8, 0.88, 0.93, 0.96, 0.98), "two": (0.85, 0.9, 0.94, 0.97, 0.985)}
    cells = [
        Cell(name, q, "a", 100, 100, int(100 * 2**q), {"ms-ssim": value})
        for name, column in values.items()
        for q, value in zip(qualities, column, strict=True)
    ]
    codecs = [Candidate("bundle", name, qualities, name) for name in values]
    similarity = metrics.Metric("ms-ssim", "MS-SSIM", True, metrics.ms_ssim, 4)
    found = bd_rates(points(cells, codecs), list(values), [similarity])[1]
    curves = {
        name: [(0.08 * 2**i, -10 * np.log10(1 - v)) for i, v in enumerate(column)]
        for name, column in values.items()
    }
    expected = bd_rate("two", "one", PSNR, curves["one"], curves["two"])
    assert found.codec == "two" and found.percent == pytest.approx(expected.percent, abs=1e-9)
    assert found.low == pytest.approx(8.239, abs=1e-3) and similarity.scale and not PSNR.scale


def test_a_bundle_with_options(lake: Image.Image) -> None:
    plain, ceiling, odd = bundles(["lite", "lite@max_side=64,tile=0"], [30.0], "cpu")
    assert [plain.name, ceiling.name, odd.name] == [
        "lite",
        "lite:vae-roundtrip",
        "lite@max_side=64,tile=0",
    ]
    assert odd.settings["options"] == {"max_side": 64, "tile": 0} and plain.identity() != (
        odd.identity()
    )
    sizes = [BundleCoder(c).encode(lake.crop((0, 0, 96, 64)), 30)[0] for c in (plain, odd)]
    assert [container_from_bytes(data).width for data in sizes] == [96, 64]
    with pytest.raises(UsageError, match="two codecs are called lite@effort=1"):
        bundles(["lite@effort=1", "lite@effort=1"], [30.0], "cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed=3", "of adapt, tile, keep_thumbnail, max_side, alpha, effort"),
        ("quality=30", "not NAME=VALUE"),
        ("regions=1", "not NAME=VALUE"),
        ("effort", "not NAME=VALUE"),
        ("effort=1,effort=2", "each once"),
        ("effort=much", "'much' is not a value of effort"),
        ("keep_thumbnail=1", "'1' is not a value of keep_thumbnail"),
        ("effort=99", "effort 99: not in"),
    ],
)
def test_options_that_no_encoder_has(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        encoder_options(text)


def test_options_become_what_they_are() -> None:
    values = encoder_options("effort=1, keep_thumbnail=true,timeout=1.5,alpha=drop")
    assert values == {"effort": 1, "keep_thumbnail": True, "timeout": 1.5, "alpha": "drop"}
    assert encoder_options("") == {}


def test_the_tune_of_avif_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, tune in (("avif", "iq"), ("avif-ssim", "ssim")):
        peer = pillow_peer(name, 7)
        assert peer.settings == {"advanced": {"tune": tune}, "speed": 7}
        assert peer.note == f"Pillow, tune {tune}, speed 7"
    monkeypatch.setattr(codecs_module, "_can_tune", lambda settings: False)
    older = pillow_peer("avif", 7)
    assert older.settings == {"speed": 7} and "its own tune" in older.note
    assert "avif" in default_peers() and "avif-ssim" not in default_peers()
    with pytest.raises(UnsupportedError, match="can be tuned"):
        pillow_peer("avif-ssim", 7)


def test_failures_leave_no_bd_rate() -> None:
    qualities = (0.0, 1.0, 2.0, 3.0, 4.0)
    cells = [
        Cell(name, q, "a", 100, 100, int(100 * q), {"psnr": 20 + q}, error=None if q else "no")
        for name in ("lite", "other")
        for q in qualities
    ]
    codecs = [Candidate("bundle", name, qualities, name) for name in ("lite", "other")]
    rates = bd_rates(points(cells, codecs), ["lite", "other"], [PSNR])
    assert [(r.codec, r.anchor) for r in rates] == [("lite", "other"), ("other", "lite")]
    assert all(r.percent is None and "not all pictures" in r.reason for r in rates)


def test_an_output_below_the_photos_is_not_measured(small: Image.Image, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "out" / "samples").mkdir(parents=True)
    for name in ("a.png", "out/samples/b.png"):
        small.save(photos / name)
    assert len(prepare(photos, tmp_path / "1").photos) == 2
    (photos / "out" / "run.json").write_text("{}")
    assert [p.name for p in prepare(photos, tmp_path / "2").photos] == ["a.png"]


def test_names_that_are_no_text(small: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    small.save(os.fsdecode(os.fsencode(tmp_path) + b"/photos/caf\xe9.png"))
    (photo,) = prepare(tmp_path / "photos", tmp_path / "out").photos
    assert photo.name == "caf\\udce9.png" and slug(photo.name).isascii()


@pytest.mark.parametrize(
    "content",
    [
        '{"bpp": [0.1], "psnr-rgb": [Infinity]}',
        "[1]",
        "{}",
        '{"bpp": [NaN]}',
        '{"bpp": [0.1, 0.2], "psnr-rgb": [30]}',
    ],
)
def test_odd_overlays_are_refused_or_harmless(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    try:
        curves = read_curves(path)
    except InputError as error:
        assert "CompressAI's schema" in str(error)
    else:
        assert all(not curve.metrics for curve in curves)


def test_the_published_curves_can_be_read() -> None:
    paths = sorted((ROOT / "docs" / "published").glob("*.json"))
    for path in paths:
        (curve,) = read_curves(path)
        assert curve.metrics["psnr"] == tuple(sorted(curve.metrics["psnr"]))
    assert [path.name for path in paths] == ["cool-chic-5.json"]


def test_names_of_files_stay_apart() -> None:
    names = [*(c * 300 + ".png" for c in "xy"), "a.png", "b/a.png", "b_a.png", "ä.png", "../a.png"]
    slugs = [slug(n) for n in names]
    assert len(set(slugs)) == len(names)
    assert all("/" not in s and s.isascii() and len(s) < 100 for s in slugs)


def test_json_cannot_end_its_script_element() -> None:
    text = as_script({"name": "</script><script>alert(1)"})
    assert "<" not in text and json.loads(text)["name"].startswith("</script>")


@pytest.mark.parametrize(
    "line",
    [
        '{"codec": "a"}',
        '["a"]',
        "[" * 100_000,
        '{"codec": 5, "quality": 1, "image": "a"}',
        '{"codec": "a", "quality": "1", "image": "a"}',
        '{"codec": "a", "quality": NaN, "image": "a"}',
        '{"codec": "a", "quality": 1, "image": "a", "n_bytes": -1}',
        '{"codec": "a", "quality": 1, "image": "a", "n_bytes": 9}',
        '{"codec": "a", "quality": 1, "image": "a", "metrics": [1]}',
        '{"codec": "a", "quality": 1, "image": "a", "metrics": {"psnr": 1e300}}',
        '{"codec": "a", "quality": 1, "image": "a", "bugs": 5}',
        '{"codec": "a", "quality": 1, "image": "a", "unmeasured": {"psnr": []}}',
        '{"codec": "a", "quality": 1, "image": "a", "odd": 1}',
    ],
)
def test_a_damaged_record_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / CELLS).write_text(f'{line}\n{{"codec"\n')
    with pytest.raises(InputError, match="line 1 is damaged"):
        read(tmp_path)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    cell = Cell("a", 5.0, "b.png", 3, 2, 9, {"psnr": 30.5, "x": None}, 0.1, 2, ["size"], "e")
    append(tmp_path, cell)
    (tmp_path / CELLS).write_bytes(b"\xff")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / CELLS).unlink()
    append(tmp_path, cell)
    assert read(tmp_path) == [cell]


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "avif-ssim", "jpeg2000"])
def test_every_peer_spans_the_range(name: str, lake: Image.Image) -> None:
    peer = pillow_peer(name, 8)
    coder = PillowCoder(peer)
    rates = []
    for quality in peer.qualities:
        data, _ = coder.encode(lake, quality)
        assert coder.decode(data, quality).size == lake.size
        rates.append(8 * len(data) / (lake.width * lake.height))
    assert rates == sorted(rates) and rates[0] < 0.16 and rates[-1] > 0.5


def test_the_zoo_is_used_where_its_weights_are(
    small: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With untrained weights under the name that CompressAI would have stored them by."""
    zoo = pytest.importorskip("compressai.zoo.image")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "bmshj2018-factorized"
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.manual_seed(0)
    model = zoo.model_architectures[name](*zoo.cfgs[name][2])
    model.update()
    torch.save(model.state_dict(), cache / zoo.model_urls[name]["mse"][2].split("/")[-1])
    candidate = zoo_peer(f"zoo:{name}", "cpu")
    assert candidate.qualities == (2.0,) and candidate.name == name
    data, _ = ZooCoder(candidate).encode(small, 2.0)
    decoded = ZooCoder(candidate).decode(data, 2.0)  # a decoder of its own
    x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.pad(x, (0, 192 - 130, 0, 128 - 87), mode="replicate")
    model.eval()
    with torch.inference_mode():
        expected = model.decompress(**model.compress(x))["x_hat"][0, :, :87, :130]
    pixels = expected.clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    assert np.array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize(
    ("backbone", "heads"),
    [
        ("squeeze", (64, 128, 256, 384, 384, 512, 512)),
        ("alex", (64, 192, 384, 256, 256)),
        ("vgg", (64, 128, 256, 512, 512)),
    ],
)
def test_lpips_knows_its_backbone(backbone: str, heads: tuple[int, ...], tmp_path: Path) -> None:
    make = {"squeeze": models.squeezenet1_1, "alex": models.alexnet, "vgg": models.vgg16}[backbone]
    torch.manual_seed(0)
    tensors = {f"features.{k}": v for k, v in make(weights=None).features.state_dict().items()}
    for i, channels in enumerate(heads):
        tensors[f"lin{i}.model.1.weight"] = torch.rand(1, channels, 1, 1)
    save_file(tensors, tmp_path / "lpips.safetensors")
    lpips = Lpips(tmp_path / "lpips.safetensors")
    a, b = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    assert lpips.kind == backbone and lpips(a, b) > 0 and lpips(a, a) == 0
    (metric,) = metrics.find_metrics([lpips.label], [tmp_path / "lpips.safetensors"])
    Image.new("RGB", (40, 90)).save(tmp_path / "x.png")
    assert metric.measure(tmp_path / "x.png", tmp_path / "x.png") is None  # too small


def test_programs_of_libjxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that print as libjxl's programs do."""
    for name, text in (("ssimulacra2", "71.25034200"), ("butteraugli_main", "4.5\\n3-norm: 1.25")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nprintf '{text}\\n'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = metrics.find_metrics(["ssimulacra2", "butteraugli"], [])
    assert [m.measure(tmp_path, tmp_path) for m in found] == [71.250342, 1.25]
    (tmp_path / "ssimulacra2").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="broken"):
        found[0].measure(tmp_path, tmp_path)


def test_ssimulacra2_by_its_package(
    lake: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    paths = tmp_path / "a.png", tmp_path / "b.png"
    image = lake.crop((0, 0, 96, 64))
    image.save(paths[0])
    image.point(lambda v: v // 16 * 16).save(paths[1])
    (metric,) = metrics.find_metrics(["ssimulacra2"], [])
    value = metric.measure(*paths)
    assert value == compute_ssimulacra2(*paths) < 90 and metric.identity.startswith("package")
    assert "ssimulacra2" not in [m.name for m in metrics.find_metrics(None, [])]
    monkeypatch.setattr(metrics, "versions", lambda packages: {})
    with pytest.raises(UnsupportedError, match="or the package ssimulacra2"):
        metrics.find_metrics(["ssimulacra2"], [])
