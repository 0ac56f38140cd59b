"""The same bytes and pixels whatever the threads, batches, processes and instruction sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.options import EncodeOptions

# Codes details of the sample photo at four qualities, prints a digest of all bytes and pixels.
CODE = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[2]))
from PIL import Image
from bkcodec import Codec, EncodeOptions
lake, codec, digest = Image.open(sys.argv[1]).convert("RGB"), Codec("lite", "cpu"), hashlib.sha256()
for i in range(3):
    part = lake.crop((90 * i, 60 * i, 90 * i + 301, 60 * i + 211))
    for quality in (0, 35, 70, 100):
        data = codec.encode(part, EncodeOptions(quality=quality))
        digest.update(data + codec.decode(data).tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""
LEAST = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
}


def digest(threads: int = 1, **environment: str) -> tuple[str, str]:
    photo = ROOT / "tests" / "samples" / "lake.png"
    command = [sys.executable, "-c", CODE, str(photo), str(threads)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    found, hexadecimal = done.stdout.split()
    return found, hexadecimal


def test_processes_threads_and_instruction_sets_agree() -> None:
    one = digest()
    assert digest() == one
    threads, found = digest(3, OPENBLAS_NUM_THREADS="3")
    assert threads == "3" and found == one[1]
    assert digest(**LEAST)[1] == one[1]
    assert digest(3, OMP_NUM_THREADS="3")[1] == one[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="no emulator (qemu-user)")
@pytest.mark.parametrize("processor", ["Haswell", "Nehalem"])
def test_old_processors_agree(processor: str, lake: Image.Image, tmp_path: Path) -> None:
    """AVX2 without VNNI, and SSE4.2: other kernels of ONNX Runtime for the same integers."""
    code = """
import hashlib, sys
from PIL import Image
from bkcodec import Codec, EncodeOptions
codec, photo, digest = Codec("lite", "cpu"), Image.open(sys.argv[1]), hashlib.sha256()
for quality in (0, 50, 100):
    data = codec.encode(photo, EncodeOptions(quality=quality))
    digest.update(data + codec.decode(data).tobytes())
print(digest.hexdigest())
"""
    lake.crop((200, 180, 330, 267)).save(tmp_path / "photo.png")
    command = [sys.executable, "-c", code, str(tmp_path / "photo.png")]
    emulated = ["qemu-x86_64", "-cpu", processor, *command]
    here, there = (
        subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for words in (command, emulated)
    )
    assert here == there


def test_batches_agree(codec: Codec, lake: Image.Image) -> None:
    parts = [lake.crop((70 * i, 40 * i, 70 * i + 160, 40 * i + 144)) for i in range(5)]
    x = torch.from_numpy(np.stack([np.asarray(part) for part in parts]))
    x = x.permute(0, 3, 1, 2).float() / 255
    for quality in (0.0, 0.5, 1.0):
        together = codec.model.compress(x, quality)["strings"][0]  # type: ignore[index]
        shape = (9, 10)
        pictures = codec.model.decompress([together], shape, quality)["x_hat"]
        assert ((pictures - x) ** 2).mean() < 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees(codec: Codec, lake: Image.Image) -> None:
    gpu = Codec("lite", "cuda")
    for quality in (0, 50, 100):
        data = codec.encode(lake, EncodeOptions(quality=quality))
        assert gpu.encode(lake, EncodeOptions(quality=quality)) == data
        assert np.array_equal(*(np.asarray(c.decode(data)) for c in (codec, gpu)))
