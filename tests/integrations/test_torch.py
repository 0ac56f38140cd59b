from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import bkcodec
from bkcodec.integrations.torch import BkcFolder, BkcShards

OPTIONS = bkcodec.EncodeOptions(quality=20)

# Decodes here, then in two workers that are forked or spawned; prints what came, and whether it
# is the same.
WORKERS = """
import sys
import torch
from torch.utils.data import DataLoader
from bkcodec.integrations.torch import BkcFolder, BkcShards

def main(method, folder):
    for latents in (False, True) if method == "fork" else (True,):
        here = BkcFolder(folder, latents=latents)
        expected = [here[i] for i in range(len(here))]
        settings = {"num_workers": 2, "batch_size": None, "timeout": 60}
        settings["multiprocessing_context"] = method
        loaded = list(DataLoader(here, **settings))
        print(len(loaded), all(map(torch.equal, loaded, expected)))
        shards = BkcShards([f"{folder}/{i}.tar" for i in range(3)], latents=latents)
        samples = {s["__key__"]: s for s in DataLoader(shards, **settings)}
        print(*sorted(samples), all(torch.equal(samples[f"p{i}"]["bkc"], expected[i])
            and samples[f"p{i}"]["cls"] == b"%d" % i for i in range(4)))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def folder(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of the same size, of which one is in a subfolder, and three shards of them."""
    place = tmp_path_factory.mktemp("bkc")
    (place / "z").mkdir()
    codec = bkcodec.Codec("lite", "cpu")
    for i, name in enumerate(("a", "b", "c", "z/d")):
        data = codec.encode(lake.crop((40 * i, 0, 40 * i + 64, 48)), OPTIONS)
        (place / f"{name}.bkc").write_bytes(data)
        with tarfile.open(place / f"{i % 3}.tar", "a") as tar:
            for extension, content in (("bkc", data), ("cls", b"%d" % i)):
                member = tarfile.TarInfo(f"p{i}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return place


def test_a_folder(folder: Path) -> None:
    dataset = BkcFolder(folder)
    assert [p.name for p in dataset.paths] == ["a.bkc", "b.bkc", "c.bkc", "d.bkc"]
    item = dataset[1]
    assert item.dtype == torch.uint8 and item.is_contiguous()
    expected = np.asarray(bkcodec.decode(folder / "b.bkc"))
    assert np.array_equal(item.permute(1, 2, 0), expected)
    (batch,) = DataLoader(dataset, batch_size=4)
    assert batch.shape == (4, 3, 48, 64)
    wide = BkcFolder(folder, transform=lambda image: image.resize((8, 4)).size)
    assert wide[0] == (8, 4)
    with pytest.raises(bkcodec.InputError, match="no .bkc files"):
        BkcFolder(folder / "nowhere")
    with pytest.raises(IndexError):
        dataset[4]


def test_latents(folder: Path) -> None:
    item = BkcFolder(folder, latents=True)[0]
    assert item.dtype == torch.float32 and item.shape == (224, 3, 4)
    assert np.array_equal(item, bkcodec.decode_latents(folder / "a.bkc"))
    options = bkcodec.DecodeOptions(steps=2, seed=1)
    other = BkcFolder(folder, options, latents=True, transform=torch.mean)[0]
    assert other.shape == () and other != item.mean()


def test_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [folder / f"{i}.tar" for i in range(3)]
    samples = list(BkcShards(paths))
    assert [s["__key__"] for s in samples] == ["p0", "p3", "p1", "p2"]
    assert samples[1]["cls"] == b"3" and samples[1]["bkc"].shape == (3, 48, 64)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        seen.append([s["__key__"] for s in BkcShards(paths)])
    assert seen == [["p0", "p3", "p2"], ["p1"]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(method: str, folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WORKERS, "utf-8")
    command = [sys.executable, str(script), method, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    times = 2 if method == "fork" else 1  # new processes take long to start
    assert done.stdout.splitlines() == ["4 True", "p0 p1 p2 p3 True"] * times
