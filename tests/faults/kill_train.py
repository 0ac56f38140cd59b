"""SIGKILL at random moments of training, which then goes on from a whole checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open

from tests.faults.common import contents, finish, kill_at, leftovers, moments, photos, start

# The same program with fewer steps before the first report.
CODE = (
    "from bkcodec import cli\nfrom bkcodec.train import start, trainer\n"
    "start.PRIOR_STEPS, trainer.REPORT_STEPS, start.MEASURED_BATCHES = 20, 1, 1\ncli.run()\n"
)
STEPS = 6
FRESH = ("--N", 8, "--M", 16)


def fault(folder: Path, count: int = 50) -> str:
    source, out = photos(folder / "photos", 3, (400, 340)), folder / "run"
    first, bundle = folder / "first", folder / "first.safetensors"
    originals = contents(source)

    def command(target: Path, *more: object) -> tuple[object, ...]:
        return (
            "train",
            "--data",
            source,
            "--val",
            source,
            "-o",
            target,
            "--device",
            "cpu",
            "--max-steps",
            STEPS,
            "--save-steps",
            1,
            "--batch-size",
            1,
            "--image-size",
            176,
            "--diffusion-steps",
            2,
            *more,
        )

    assert finish(*command(first, *FRESH), code=CODE)[0] == 0
    export = ("train", "--export", first, "--data", source, "-o", bundle)
    assert finish(*export, code=CODE)[0] == 0
    phases = (
        command(out, *FRESH),
        command(out, "--phase", "quantise", "--init-from", first),
        command(out, "--phase", "decoder", "--init-from", bundle),
    )
    killed = resumed = 0
    wholes = []
    for phase in phases:
        wholes.append(finish(*phase, code=CODE)[2])
        shutil.rmtree(out)
    for turn, moment in enumerate(moments(count, 0.9 * min(wholes), 0.3)):
        phase = phases[turn % len(phases)]
        killed += kill_at(start(*phase, code=CODE), moment)
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
        code, err, _ = finish(*phase, *(["--resume"] if checkpoints else []), code=CODE)
        assert code == 0, err
        assert (out / f"checkpoint_{STEPS:07}.safetensors").is_file()
        left = len(leftovers(out))
        shutil.rmtree(out)
    return (
        f"{count} runs in {len(phases)} phases, {killed} killed while running: all checkpoints "
        f"whole, {resumed} resumed to the end, the others had none yet; {left} temporary files left"
    )
