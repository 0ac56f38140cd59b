"""Evaluation photos and odd files, where they are at hand (they are not part of the project)."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fresh, psnr, shared
from PIL import Image, ImageOps

from bkcodec.codec import Codec
from bkcodec.errors import BkcError, InputError, LimitError
from bkcodec.image.reading import read_picture
from bkcodec.models.lpips import Lpips
from bkcodec.options import Backbone, DecodeOptions, EncodeOptions

pytestmark = [pytest.mark.slow, pytest.mark.shared]


def test_all_kodak_photos_through_fresh_processes(tmp_path: Path) -> None:
    kodak = shared("kodak")
    encoded = fresh("encode", kodak, "-o", f"{tmp_path}/bkc/", "--verify", "--json")
    *rows, last = [json.loads(line) for line in encoded.stdout.splitlines()]
    assert encoded.returncode == 0 and len(rows) == 24 and all(row["verified"] for row in rows)
    assert last["summary"]["done"] == 24
    assert fresh("decode", tmp_path / "bkc", "-o", f"{tmp_path}/png/").returncode == 0
    for path in sorted(kodak.glob("*.png")):
        with Image.open(path) as original, Image.open(tmp_path / "png" / path.name) as decoded:
            assert decoded.size == original.size
            assert psnr(original, decoded) > 21


def test_bytes_grow_with_every_step_of_quality_on_kodak(codec: Codec) -> None:
    for path in sorted(shared("kodak").glob("*.png"))[::4]:
        with Image.open(path) as image:
            z = codec.encoder.analyse(np.asarray(image.convert("RGB")), None)[1]
        sizes = [
            len(codec.bundle.prior.level(level).encode(codec.encoder.quantise(z, level))[0])
            for level in range(0, 201, 2)
        ]
        assert sizes == sorted(set(sizes)), path.name


def odd_files() -> list[Path]:
    files = sorted(p for p in shared("robustness").rglob("*") if p.is_file())
    return [p for p in files if "licences" not in p.parts and p.suffix not in {".gz", ".txt"}]


def test_every_odd_file_round_trips_or_is_refused_clearly(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {"round trip": 0, "refused": 0}
    for number, path in enumerate(odd_files()):
        file, back = tmp_path / f"{number}.bkc", tmp_path / f"{number}.png"
        code = run("encode", path, "-o", file, "-q", "20")
        errors = capsys.readouterr().err.splitlines()
        if code:
            assert code in (InputError.exit_code, LimitError.exit_code), (path, errors)
            assert len(errors) == 1 and errors[0].startswith("bkcodec: error: "), (path, errors)
            assert not file.exists()
            outcomes["refused"] += 1
            continue
        assert run("decode", file, "-o", back) == 0, path
        capsys.readouterr()
        compare(path, back)
        outcomes["round trip"] += 1
    print(outcomes)
    assert outcomes["round trip"] > 200 and outcomes["refused"] > 10


def compare(path: Path, back: Path) -> None:
    """Size, greyscale, alpha, ICC and EXIF are kept, orientation is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as source, Image.open(back) as image:
            source.load()
            upright = ImageOps.exif_transpose(source)
            assert image.size == upright.size, path
            grey = upright.mode in ("1", "L", "LA") or upright.mode.startswith("I")
            if upright.mode in ("RGB", "P"):
                rgb = np.asarray(upright.convert("RGB"))
                grey = bool((rgb == rgb[..., :1]).all())
            if upright.mode != "RGBA":  # of those, colours that nobody sees may be grey
                assert image.mode.startswith("L") == grey, path
            transparent = upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info
            assert transparent or not image.mode.endswith("A"), path
            if image.mode.endswith("A"):
                if upright.mode.startswith("I"):  # Pillow would lose a 16-bit transparent value
                    values = np.asarray(upright).astype(int)
                    alpha = np.where(values == upright.info["transparency"], 0, 255)
                else:
                    alpha = np.asarray(upright.convert("RGBA"))[..., 3]
                # Pillow forgets to scale this file's 4-bit transparent value with its pixels.
                # It cuts 16 bits, which are rounded here.
                difference = np.asarray(image)[..., -1].astype(int) - alpha
                assert abs(difference).max() <= 1 or path.name == "tbbn0g04.png", path
            if source.mode not in ("CMYK", "LAB", "YCbCr") and source.info.get("icc_profile"):
                kept = image.info.get("icc_profile")
                assert kept == source.info["icc_profile"] or image.mode.startswith("L"), path
            orientation = image.getexif().get(0x0112, 1)
            assert orientation == 1, path
            for tag, value in source.getexif().items():
                if tag in (0x010F, 0x0110, 0x0132):  # maker, model, date
                    assert image.getexif()[tag] == value, path


def test_malformed_images_raise_our_errors_only() -> None:
    tried = refused = 0
    with tarfile.open(shared("robustness") / "fuzz_zune.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            tried += 1
            try:
                read_picture(io.BytesIO(file.read()))
            except BkcError as error:
                refused += 1
                assert error.exit_code in (3, 6)
    print(f"{tried} tried, {refused} refused")
    assert tried > 2000 and refused > 1000


def test_the_small_unet_improves_on_the_mean_with_real_latents(tmp_path: Path) -> None:
    """Through TAESD: LPIPS falls and PSNR stays, in files that another process decodes."""
    vae, lpips_file = shared("weights") / "taesd", shared("weights/lpips_squeeze")
    lpips = Lpips(lpips_file / "lpips_squeeze.safetensors")
    codec = Codec("bk-sdm", "cpu", Backbone(vae=str(vae)))
    for name, quality in (("kodim05", 0), ("kodim14", 40), ("kodim23", 100)):
        with Image.open(shared("kodak") / f"{name}.png") as image:
            photo = image.convert("RGB")
        file = tmp_path / f"{name}.bkc"
        file.write_bytes(codec.encode(photo, EncodeOptions(quality=quality)))
        assert fresh("decode", file, "--vae", vae, "--unet", "own").returncode == 0
        with Image.open(file.with_suffix(".png")) as image:
            one = image.convert("RGB")
        mean = codec.decode(file.read_bytes(), DecodeOptions(realism=0.0))
        assert psnr(photo, one) > psnr(photo, mean) - 0.5
        x, *others = (
            torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] / 255 for p in (photo, one, mean)
        )
        with torch.no_grad():
            distances = [float(lpips(other, x)[0]) for other in others]
        assert distances[0] < distances[1], name
