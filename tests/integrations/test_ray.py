"""On a Ray of two workers, which starts once for this file."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import bkcodec
from bkcodec.files import TEMPORARY_PREFIX
from bkcodec.integrations.tars import Order, encode_shard

ray = pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("ray.data", reason="ray[data] is not installed", exc_type=ImportError)

from bkcodec.integrations.ray import (  # noqa: E402
    Decoder,
    Encoder,
    decode_batches,
    encode_batches,
    ray_encode,
)

N_PHOTOS, N_SHARDS = 200, 4
OPTIONS = bkcodec.EncodeOptions(quality=20)

pytestmark = [
    pytest.mark.slow,  # starting a Ray takes many seconds
    # Ray Data sets its own settings that it calls deprecated.
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray.data.context"),
    # Ray Data leaves its own log files open; they are noticed when garbage happens to be collected.
    pytest.mark.filterwarnings("ignore:.*/logs/ray-data/:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    root = str(Path(bkcodec.__file__).parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": path}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos that differ."""
    place = tmp_path_factory.mktemp("photos")
    for i in range(N_PHOTOS):
        left, top = 37 * i % 600, 23 * i % 380
        lake.crop((left, top, left + 128, top + 96)).save(place / f"{i:03d}.png")
    return place


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def pool(size: int) -> Any:
    return ray.data.ActorPoolStrategy(size=size)


def test_columns_of_bytes_and_of_arrays(folder: Path) -> None:
    paths = [str(folder / f"{i:03d}.png") for i in range(6)]
    expected = {path: bkcodec.encode(path, OPTIONS) for path in paths}
    files = ray.data.read_binary_files(paths, include_paths=True)
    arrays = ray.data.read_images(paths, include_paths=True)
    for dataset, column in ((files, "bytes"), (arrays, "image")):
        settings = {"column": column, "options": OPTIONS}
        encoded = dataset.map_batches(encode_batches, fn_kwargs=settings, batch_size=4)
        assert {row["path"]: row[column] for row in encoded.take_all()} == expected
        actors = {"fn_constructor_kwargs": settings, "compute": pool(2), "num_cpus": 0.5}
        encoded = dataset.map_batches(Encoder, batch_size=2, **actors).materialize()
        assert {row["path"]: row[column] for row in encoded.take_all()} == expected
    back = encoded.map_batches(decode_batches, batch_size=4)
    for row in back.take_all():
        assert np.array_equal(row["image"], np.asarray(bkcodec.decode(expected[row["path"]])))
    options = bkcodec.DecodeOptions(steps=2, seed=3)
    settings = {"column": "image", "options": options}
    back = encoded.map_batches(Decoder, fn_constructor_kwargs=settings, compute=pool(1))
    for row in back.take_all():
        image = bkcodec.decode(expected[row["path"]], options)
        assert np.array_equal(row["image"], np.asarray(image))


def test_batches_of_pictures_of_several_sizes(small: Image.Image) -> None:
    photos = np.empty(2, object)
    photos[:] = [np.asarray(small), np.asarray(small)[:40, :, 0]]
    batch = encode_batches({"image": photos, "label": np.arange(2)}, options=OPTIONS)
    assert batch["image"].dtype == object and list(batch["label"]) == [0, 1]
    back = decode_batches(batch)["image"]
    assert [image.shape for image in back] == [(87, 130, 3), (40, 130, 3)]
    assert decode_batches({"image": batch["image"][:1]})["image"].shape == (1, 87, 130, 3)


def killed_worker(shards: Path) -> int:
    """Kill one process that is at work, once some shards are there; its number."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        n_there = sum(p.suffix == ".tar" for p in shards.iterdir()) if shards.is_dir() else 0
        workers = [p for p in psutil.Process().children(True) if p.name().startswith("ray::Map")]
        if workers and 0 < n_there < N_SHARDS - 1:
            workers[0].send_signal(signal.SIGKILL)
            return workers[0].pid
        time.sleep(0.02)
    return 0


def test_a_killed_worker_changes_nothing(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"options": OPTIONS, "photos_per_shard": N_PHOTOS // N_SHARDS}
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    rows = ray_encode(str(folder), str(calm), **settings)
    assert [row["converted"] for row in rows] == [N_PHOTOS // N_SHARDS] * N_SHARDS
    pids: list[int] = []
    killer = threading.Thread(target=lambda: pids.append(killed_worker(disturbed)))
    killer.start()
    rows = ray_encode(str(folder), str(disturbed), **settings)
    killer.join()
    assert pids[0] and not psutil.pid_exists(pids[0])
    assert [row["error"] for row in rows] == [""] * N_SHARDS
    assert bytes_of(disturbed) == bytes_of(calm)
    assert not list(disturbed.glob(f"{TEMPORARY_PREFIX}*"))
    alone = tmp_path / "alone.tar"  # what no Ray made
    part = tuple((p.name, str(p)) for p in sorted(folder.iterdir())[: N_PHOTOS // N_SHARDS])
    encode_shard(Order(str(alone), photos=part), OPTIONS)
    assert alone.read_bytes() == (calm / "photos-000000.tar").read_bytes()
    with tarfile.open(alone) as tar:
        member = tar.extractfile("007.bkc")
        assert member is not None
        assert member.read() == bkcodec.encode(folder / "007.png", OPTIONS)


def test_tars_and_what_is_broken(folder: Path, tmp_path: Path, run: Callable[..., int]) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "good.tar", "w") as tar:
        tar.add(folder / "000.png", "000.png")
        member = tarfile.TarInfo("001.png")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"photo"))
    (tmp_path / "in" / "bad.tar").write_bytes(b"no tar")
    out = tmp_path / "out"
    bad, good = ray_encode([str(tmp_path / "in")], str(out), OPTIONS, num_cpus=0.5)
    assert (
        "not a tar file" in bad["error"] or "cut" in bad["error"] and not (out / "bad.tar").exists()
    )
    assert (good["members"], good["converted"], good["error"]) == (2, 1, "")
    assert [line.split(":")[0] for line in good["failures"]] == ["001.png"]
    rows = ray_encode([str(tmp_path / "in")], str(out), OPTIONS)
    assert [row["skipped"] for row in rows] == [False, True]
    assert (
        run("encode", tmp_path / "in" / "good.tar", "-q", 20, "-o", tmp_path / "command.tar") == 1
    )
    assert (tmp_path / "command.tar").read_bytes() == (out / "good.tar").read_bytes()
