"""Nothing is unpickled or evaluated, and shipped weights are what the manifest says."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from bkcodec import bundle
from bkcodec.errors import UnsupportedError

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "np.load",
    "numpy.load",
    "torch.package",
}
# Stops the program where anything of a pickle is looked up; says so at the end where nothing was.
HOOK = """
import sys
def hook(event, arguments):
    if event.startswith("pickle."):
        sys.stderr.write(f"UNPICKLED {arguments}\\n")
        sys.stderr.flush()
        import os
        os._exit(99)
sys.addaudithook(hook)
from bkcodec import cli
cli.run()
"""


@pytest.mark.parametrize("path", sorted((ROOT / "bkcodec").rglob("*.py")), ids=lambda p: p.name)
def test_no_source_unpickles_or_evaluates(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in MODULES
        elif isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CALLS
            assert not any(
                keyword.arg in ("allow_pickle", "trust_remote_code") for keyword in node.keywords
            )


def hooked(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HOOK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_hook_works(tmp_path: Path) -> None:
    code = HOOK.replace("cli.run()", "import pickle; pickle.loads(pickle.dumps(Exception))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 99 and "UNPICKLED" in done.stderr


def test_no_command_unpickles(tmp_path: Path, lake: Image.Image) -> None:
    photo, file = tmp_path / "photos" / "photo.png", tmp_path / "photo.bkc"
    photo.parent.mkdir()
    lake.crop((200, 100, 530, 430)).save(photo)
    run = (
        "train",
        "--data",
        photo.parent,
        "--val",
        photo.parent,
        "-o",
        tmp_path / "run",
        "--save-steps",
        1,
        "--N",
        8,
        "--M",
        16,
        "--batch-size",
        1,
        "--image-size",
        176,
        "--device",
        "cpu",
    )
    commands: tuple[tuple[object, ...], ...] = (
        ("encode", photo, "-o", file, "--target-size", "4k"),
        ("decode", file, "--steps", 2),
        ("info", file, "--verify"),
        ("models",),
        ("selftest",),
        ("bench", photo, "-o", tmp_path / "bench", "-q", 50, "--peers", "jpeg"),
        (*run, "--max-steps", 1),
        (*run, "--max-steps", 2, "--resume"),
    )
    for arguments in commands:
        done = hooked(*arguments)
        assert done.returncode == 0, done.stderr[-2000:]


def test_a_changed_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundle.weights_folder(), tmp_path / "weights")
    lite = tmp_path / "weights" / "lite.safetensors"
    data = bytearray(lite.read_bytes())
    data[-1000] ^= 1  # a weight, or a table
    lite.write_bytes(data)
    monkeypatch.setattr(bundle, "weights_folder", lambda: tmp_path / "weights")
    bundle.shipped_bundles.cache_clear()
    bundle._load.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match="damaged"):
            bundle.load_bundle(bundle.find_bundle("lite"))
        with pytest.raises(UnsupportedError, match="damaged"):
            bundle.load_bundle(Path(f"{lite.parent}/../weights/lite.safetensors"))
    finally:
        monkeypatch.undo()
        bundle.shipped_bundles.cache_clear()
        bundle._load.cache_clear()


def test_the_manifest_covers_all_weights() -> None:
    manifest = json.loads((ROOT / "weights" / "manifest.json").read_text())["bundles"]
    files = {path.name for path in (ROOT / "weights").glob("*.safetensors")}
    assert {entry["file"] for entry in manifest} == files
