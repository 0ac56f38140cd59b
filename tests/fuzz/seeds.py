"""First files of the corpus, made of the golden vectors: python -m tests.fuzz.seeds."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save, save_file

from bkcodec.container import container_from_bytes
from bkcodec.image.writing import FORMATS
from bkcodec.options import LEVELS
from bkcodec.prior.levelmap import write_map
from tests.fuzz.targets import EDIT, METADATA

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = Path(__file__).with_name("corpus")
LARGEST = 4096  # bytes of a seed
MAP = write_map(np.array([[0, 3], [-2, 0]], np.int16))


def bundles() -> dict[str, bytes]:
    """Two tiny bundles, one with each prior."""
    header = {"version": 1, "name": "tiny", "stride": 16, "model": {}, "parts": {}}
    arrays = {"net.quantiser.log_step": np.zeros((10, 2), np.float32)} | grid("tables", LEVELS, 1)
    text = {"bkcodec": json.dumps(header)}
    return {"factorized": save(arrays, text), "context": save(arrays | context(), text)}


def integers() -> dict[str, np.ndarray]:
    """The arrays of tiny integer networks that the target of that name edits."""
    sys.path.insert(0, str(ROOT / "tests"))
    from small_networks import model_on_grids

    from bkcodec.models.config import ModelConfig
    from bkcodec.train.integers import integer_arrays

    depths = {"encoder_depths": (1, 1), "decoder_depths": (1, 1)}
    times = {"train_timesteps": 20, "t_coarsest": 12, "t_finest": 2}
    with Image.open(ROOT / "tests" / "samples" / "lake.png") as lake:
        model = model_on_grids(lake, ModelConfig(N=4, M=4, **depths, **times))
    return {k: np.ascontiguousarray(v) for k, v in integer_arrays(model).items()}


def grid(name: str, rows: int, columns: int, symbols: int = 2) -> dict[str, np.ndarray]:
    """Tables of a few equally likely symbols."""
    weights = np.full(symbols, 2**16 // symbols, np.uint16)
    weights[0] += 2**16 % symbols
    return {
        f"{name}.lengths": np.full((rows, columns), symbols, np.uint16),
        f"{name}.low": np.zeros((rows, columns), np.int16),
        f"{name}.weights": np.tile(weights, rows * columns),
    }


def context() -> dict[str, np.ndarray]:
    """A context prior of two channels and one hidden unit."""
    ones = np.ones((LEVELS, 2), np.int32)
    arrays = {
        "groups": np.ones(2, np.int16),
        "phases": np.array([1, 2], np.int16),
        "order": np.arange(2, dtype=np.int16),
        "coded": ones.astype(np.uint8),
        "gain": 4096 * ones,
        "mean_gain": 4096 * ones,
        "magnitude": np.minimum(np.arange(256), 127).astype(np.uint8),
        "fine": np.ones(1, np.int16),
        "1.shared": np.ones((18, 1), np.int8),
    }
    for p in range(2):
        for i, (inputs, outputs) in enumerate([(18 * p, 1), (1, 1), (1, 2)], 1):
            arrays |= {
                f"1.{p}.{i}.weight": np.ones((inputs, outputs), np.int8),
                f"1.{p}.{i}.bias": np.zeros((LEVELS, outputs), np.int32),
                f"1.{p}.{i}.shift": np.ones(outputs, np.int8),
            }
    arrays |= grid("rows", 2, 16) | grid("excess", 1, 1, 18)
    return {f"prior.{name}": array for name, array in arrays.items()}


def seeds() -> dict[str, dict[str, bytes]]:
    """Target -> name -> content."""
    vectors = {p.stem: p.read_bytes() for p in (ROOT / "formats" / "vectors").glob("*.bkc")}
    small = {name: data for name, data in vectors.items() if len(data) <= LARGEST}
    whole = {name: data[:-4] for name, data in small.items()}  # the harness adds the CRC
    strings, blocks = {}, {}
    for name, data in small.items():
        c = container_from_bytes(data)
        which = int(c.stride == 32)
        strings[name] = bytes([which, c.level, 0, 0]) + c.z[:64]
        strings[f"{name}-map"] = bytes([which | 2, c.level, 7, 6, len(MAP)]) + MAP + c.z[:64]
        if c.metadata.icc and c.metadata.exif and c.metadata.xmp:
            plain = [c.metadata.icc, c.metadata.exif, c.metadata.xmp]
            packed = [b"\1" + zlib.compress(block) for block in plain]
            for i in range(len(FORMATS)):
                for raw, parts in enumerate([plain, packed]):
                    head = METADATA.pack(i, raw, len(parts[0]), len(parts[1]))
                    blocks[f"{name}-{i}-{raw}"] = head + b"".join(parts)
    return {
        "container": whole,
        "entropy": strings,
        "metadata": blocks,
        "pillow": whole,
        "bundle": bundles(),
        "integers": {
            "nothing": b"",
            "weight": EDIT.pack(40, 0, 3, 64),
            "shift": EDIT.pack(40, 3, 0, 2) + EDIT.pack(41, 0, 0, 127),
            "shape": EDIT.pack(7, 5, 1, 0) + EDIT.pack(9, 6, 0, 1),
            "type": EDIT.pack(3, 4, 0, 7) + EDIT.pack(90, 7, 0, 0),
        },
        "info": whole,
    }


def main() -> None:
    save_file(integers(), Path(__file__).with_name("integers.safetensors"))
    for target, files in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
