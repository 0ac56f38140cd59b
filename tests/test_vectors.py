"""Golden files: every decoder, ours and an independent one, gives the recorded symbols."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference_decoder
from conftest import ROOT
from diffusers_models import save_tiny_vae

import bkcodec
from bkcodec.bundle import load_bundle, shipped_bundles
from bkcodec.errors import BkcError

VECTORS = sorted((ROOT / "formats" / "vectors").glob("*.bkc"))
NODE_MODULES = ROOT / ".cache" / "ksc" / "node_modules"


PIXELS = "pixels_sha256"  # of the colours, row by row


def recorded(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.with_suffix(".json").read_text("utf-8")))


@pytest.fixture(scope="session")
def kaitai(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """formats/bkc.ksy compiled by the Kaitai Struct compiler."""
    folder = tmp_path_factory.mktemp("kaitai")
    node = Path(sys.executable).with_name("node")
    script, ksy = ROOT / "tests" / "compile_ksy.js", ROOT / "formats" / "bkc.ksy"
    subprocess.run([node, script, NODE_MODULES, ksy, folder], check=True)
    spec = importlib.util.spec_from_file_location("bkc_ksy", folder / "bkc.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 9 and sum(PIXELS in recorded(path) for path in VECTORS) >= 9


def test_released_vectors_stay_as_they_are() -> None:
    """Bytes, and what they decode to; the tests below compare both with what decoders find."""
    folder = VECTORS[0].parent
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.[bj]*")}
    assert found == {name: digest for digest, name in lines}


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_our_reader(path: Path) -> None:
    values = bkcodec.info(path.read_bytes(), verify=True)
    expected = {k: v for k, v in recorded(path).items() if k != PIXELS}
    assert {k: values[k] for k in expected} == expected


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_an_independent_reader(path: Path, kaitai: ModuleType) -> None:
    expected = recorded(path)
    with kaitai.Bkc.from_file(str(path)) as parsed:
        fields = (
            parsed.width.value,
            parsed.height.value,
            parsed.level / 2,
            parsed.fingerprint.hex(),
        )
        assert fields == tuple(expected[k] for k in ("width", "height", "quality", "fingerprint"))
        lengths = {section.kind.name: section.len_payload.value for section in parsed.sections}
        assert lengths["z"] == expected["z_bytes"]
        names = {name for name in ("alpha", "icc", "exif", "xmp") if expected[f"{name}_bytes"]}
        assert names == set(lengths) & {"alpha", "icc", "exif", "xmp"}


@pytest.fixture(scope="session")
def bundles() -> dict[bytes, dict[str, Any]]:
    """As the reference decoder reads them."""
    read = {b.fingerprint: reference_decoder.read_bundle(b.path) for b in shipped_bundles()}
    return {bytes.fromhex(mark): arrays for mark, arrays in read.items()}


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_a_decoder_written_from_the_specification(
    path: Path, bundles: dict[bytes, dict[str, Any]]
) -> None:
    found = reference_decoder.symbols_sha256(path.read_bytes(), bundles)
    assert found == recorded(path)["symbols_sha256"]


@pytest.mark.parametrize(
    "path", [p for p in VECTORS if PIXELS in recorded(p)], ids=lambda p: p.stem
)
def test_pixels_are_the_same_everywhere(path: Path, bundles: dict[bytes, dict[str, Any]]) -> None:
    data, expected = path.read_bytes(), recorded(path)
    image = bkcodec.decode(data)
    colours = image.convert(image.mode.removesuffix("A"))
    assert hashlib.sha256(colours.tobytes()).hexdigest() == expected[PIXELS]
    if image.width < 768:  # the other decoder takes its time
        assert reference_decoder.pixels_sha256(data, bundles) == expected[PIXELS]


def test_that_decoder_has_nothing_of_ours() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import reference_decoder\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"bkcodec", "constriction", "torch", "safetensors"} & set(done.stdout.split())


def same_verdict(data: bytes, bundles: dict[bytes, dict[str, Any]]) -> bool:
    """Both decoders refuse a file or find the same symbols; whether they found some."""
    try:
        ours = bkcodec.info(data, verify=True)["symbols_sha256"]
    except BkcError:
        ours = None
    try:
        theirs = reference_decoder.symbols_sha256(data, bundles)
    except ValueError:
        theirs = None
    assert ours == theirs
    return ours is not None


@pytest.mark.parametrize("name", ["pixel-q50", "strip-q80", "noise-q100"])
def test_both_decoders_refuse_the_same_files(
    name: str, bundles: dict[bytes, dict[str, Any]]
) -> None:
    data = (ROOT / "formats" / "vectors" / f"{name}.bkc").read_bytes()
    rng, accepted = random.Random(name), 0
    for _ in range(60):
        broken = bytearray(data)
        broken[rng.randrange(14, len(data) - 4)] ^= 1 << rng.randrange(8)
        broken[-4:] = struct.pack("<I", zlib.crc32(bytes(broken[:-4])))
        accepted += same_verdict(bytes(broken), bundles)
    assert accepted < 60


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_pictures_have_the_right_size(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BKCODEC_BK_SDM", str(save_tiny_vae(tmp_path / "vae")))
    expected, image = recorded(path), bkcodec.decode(path.read_bytes())
    assert image.size == (expected["width"], expected["height"])
    assert image.mode == ("L" if expected["greyscale"] else "RGB") + "A" * bool(
        expected["alpha_bytes"]
    )


def test_the_manifest_is_true() -> None:
    for bundle in shipped_bundles():
        data = bundle.path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == bundle.sha256
        assert load_bundle(bundle.path).fingerprint.hex() == bundle.fingerprint
        assert len(data) < 21e6
        assert bundle.path.with_suffix(".provenance.json").is_file()


@pytest.mark.parametrize("name", ["pixel-q50", "metadata-q45.5", "grey-alpha-q50"])
def test_truncation_everywhere_and_2000_flips(name: str) -> None:
    data = (ROOT / "formats" / "vectors" / f"{name}.bkc").read_bytes()
    for n in range(len(data)):
        with pytest.raises(BkcError):
            bkcodec.decode(data[:n])
    rng = random.Random(name)
    for _ in range(2000):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        with pytest.raises(BkcError):
            bkcodec.decode(bytes(broken))


@pytest.mark.parametrize("name", ["strip-q80", "metadata-q45.5", "grey-alpha-q50"])
def test_2000_flips_behind_a_repaired_checksum(name: str) -> None:
    """What the CRC would catch, without it: an error or symbols, never anything else."""
    data = (ROOT / "formats" / "vectors" / f"{name}.bkc").read_bytes()
    rng = random.Random(name)
    decoded = 0
    for _ in range(2000):
        broken = bytearray(data)
        broken[rng.randrange(len(data) - 4)] ^= 1 << rng.randrange(8)
        broken[-4:] = struct.pack("<I", zlib.crc32(bytes(broken[:-4])))
        try:
            bkcodec.info(bytes(broken), verify=True)
            decoded += 1
        except BkcError:
            pass
    assert decoded < 2000  # the coder notices on its own most of what the CRC would catch
