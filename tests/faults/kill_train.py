"""SIGKILL at random moments of training, which then goes on from a whole checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open

from tests.faults.common import contents, finish, kill_at, leftovers, moments, photos, start

# The same program with fewer steps before the first report.
CODE = (
    "from bkcodec import cli\nfrom bkcodec.train import loop\n"
    "loop.PRIOR_STEPS, loop.REPORT_STEPS, loop.MEASURED_BATCHES = 20, 1, 1\ncli.run()\n"
)
STEPS = 6


def fault(folder: Path, count: int = 50) -> str:
    source, out = photos(folder / "photos", 3, (400, 340)), folder / "run"
    originals = contents(source)
    command = (
        "train", "--data", source, "--val", source, "-o", out, "--device", "cpu", "--max-steps",
        STEPS, "--save-steps", 1, "--batch-size", 1, "--image-size", 176, "--N", 8, "--M", 16,
        "--diffusion-steps", 2,
    )  # fmt: skip
    whole = finish(*command, code=CODE)[2]
    shutil.rmtree(out)
    whole = min(whole, finish(*command, code=CODE)[2])
    killed = resumed = 0
    for moment in moments(count, 0.9 * whole, 0.3):
        shutil.rmtree(out)
        killed += kill_at(start(*command, code=CODE), moment)
        assert contents(source) == originals
        checkpoints = sorted(out.glob("checkpoint_*.safetensors"))
        for path in [*checkpoints, *out.glob("best.safetensors")]:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    file.get_tensor(name)
        if (out / "run.json").exists():
            json.loads((out / "run.json").read_text())
        if checkpoints:
            resumed += 1
        else:
            shutil.rmtree(out, ignore_errors=True)
        code, err, _ = finish(*command, *(["--resume"] if checkpoints else []), code=CODE)
        assert code == 0, err
        assert (out / f"checkpoint_{STEPS:07}.safetensors").is_file()
    left = len(leftovers(out))
    return (
        f"{count} runs, {killed} killed while running: all checkpoints whole, {resumed} resumed "
        f"to the end, the others had none yet; {left} temporary files left"
    )
