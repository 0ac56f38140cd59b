"""A pickle in place of a bundle or a backbone runs no code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

from tests.attacks.common import ROOT, bkcodec, refused

PHOTO = ROOT / "tests" / "samples" / "grey4-transparent.png"


class Payload:
    """Unpickling one makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def attack(folder: Path) -> str:
    mark = folder / "owned"
    code = pickle.dumps(Payload(mark))
    pickle.loads(pickle.dumps(Payload(folder / "works")))  # the payload itself does work
    assert (folder / "works").exists()
    (folder / "bundle.safetensors").write_bytes(code)
    with zipfile.ZipFile(folder / "bundle.pt", "w") as archive:  # as torch.save writes
        archive.writestr("bundle/data.pkl", code)
    vae = folder / "backbone" / "vae"
    vae.mkdir(parents=True)
    (vae / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    (vae / "diffusion_pytorch_model.bin").write_bytes(code)
    for name in ("bundle.safetensors", "bundle.pt"):
        refused(bkcodec("encode", PHOTO, "-o", "x.bkc", "-m", name, cwd=folder), 5)
    refused(
        bkcodec("encode", PHOTO, "-o", "x.bkc", "-m", "bk-sdm", "--bk-sdm", "backbone", cwd=folder),
        5,
    )
    assert not mark.exists() and not (folder / "x.bkc").exists()
    return "exit 5 each time; nothing ran"
