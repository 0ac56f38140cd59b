"""The same symbols and bytes whatever the threads, batches, processes and instruction sets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.options import EncodeOptions

# Encodes details of the sample photo at four qualities, prints a digest of all bytes.
CODE = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[2]))
from PIL import Image
from bkcodec import Codec, EncodeOptions
lake, codec, digest = Image.open(sys.argv[1]).convert("RGB"), Codec("lite", "cpu"), hashlib.sha256()
for i in range(3):
    part = lake.crop((90 * i, 60 * i, 90 * i + 301, 60 * i + 211))
    for quality in (0, 35, 70, 100):
        digest.update(codec.encode(part, EncodeOptions(quality=quality)))
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


def test_batches_agree(codec: Codec, lake: Image.Image) -> None:
    parts = [lake.crop((70 * i, 40 * i, 70 * i + 160, 40 * i + 144)) for i in range(5)]
    x = torch.from_numpy(np.stack([np.asarray(part) for part in parts]))
    x = x.permute(0, 3, 1, 2).double() / 255
    for quality in (0.0, 0.5, 1.0):
        together = codec.model.compress(x, quality)["strings"][0]  # type: ignore[index]
        alone = [codec.model.compress(one[None], quality)["strings"][0][0] for one in x]  # type: ignore[index]
        assert together == alone
        options = EncodeOptions(quality=100 * quality)
        assert all(
            string in codec.encode(part, options) for string, part in zip(alone, parts, strict=True)
        )


def test_z_does_not_wobble(codec: Codec, lake: Image.Image) -> None:
    """Not a bit of float32, where float32 networks would differ in the fifth digit."""
    pixels = np.asarray(lake)
    kept = torch.get_num_threads()
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        _, z = codec.encoder.analyse(pixels, None)
        found.append(hashlib.sha256(z.tobytes()).hexdigest())
    torch.set_num_threads(kept)
    assert len(set(found)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees(codec: Codec, lake: Image.Image) -> None:
    gpu = Codec("lite", "cuda")
    for quality in (0, 50, 100):
        data = codec.encode(lake, EncodeOptions(quality=quality))
        assert gpu.encode(lake, EncodeOptions(quality=quality)) == data
        one, other = (np.asarray(c.decode(data), np.int16) for c in (codec, gpu))
        assert np.abs(one - other).max() <= 1
