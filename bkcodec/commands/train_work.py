"""What ``bkcodec train`` does once its options are read: a run, a rehearsal, or an export."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bkcodec.commands.train_request import (
    Request,
    fresh_sizes,
    grown_sizes,
    train_options,
)
from bkcodec.commands.train_resume import kept
from bkcodec.errors import InputError, UsageError, extra
from bkcodec.train.phases import PHASES

if TYPE_CHECKING:
    from bkcodec.train.clock import Clock


def carry_out(request: Request, clock: Clock) -> None:
    """Train, rehearse or export; PyTorch is loaded here.

    Raises:
        UsageError: options that do not go with where the run starts.
        InputError: a folder that is not there, or a run in the way.
        UnsupportedError: a package that is missing.
    """
    with extra("train", "training"):
        from bkcodec.train import export, run, start
    folders = [folder for folder, _ in request.data]
    for folder in folders if request.val is None else [*folders, request.val]:
        if not folder.is_dir():
            raise InputError(f"{folder}: not a folder")
    if request.run is not None:
        note = request.data_note.read_text("utf-8") if request.data_note else None
        parts = export.parts_of(request.run, request.bk_sdm, request.vae)
        export.export_run(
            request.run, request.data, request.output, request.name, note, request.prior, parts
        )
        return
    config, init, origin = fresh_sizes(request), None, {}
    if request.init_from is not None:
        init = start.load_init(request.init_from)
        start.check_start(init, request.phase)
        config, origin = init.config, {"init_from": init.record}
    parts = start.load_parts(config, request.bk_sdm, request.vae, request.pretrained_unet)
    phase = PHASES[request.phase]
    if config.space == "sd" and not phase.in_sd_space:
        raise UsageError(f"--phase {phase.name} is not for pretrained latents")
    options = train_options(request, config, None if init is None else init.context)
    if phase.trains_all:
        config = grown_sizes(config, request, init is not None)
    assert request.val is not None  # as was checked
    where = (options, config, request.data, request.val, request.output)
    if request.dry_run:
        run.rehearse(*where, device=request.device, init=init, parts=parts)
        return
    record: dict[str, Any] = {
        "data": [f"{folder.name}={weight:g}" for folder, weight in request.data],
        "val": request.val.name,
        "command": "bkcodec " + " ".join(sys.argv[1:]),
        "request": kept(request),
        **origin,
    }
    if parts.backbone is not None:
        record["unet"] = parts.backbone.mark()
    run.start(
        *where,
        record,
        resume=request.resume,
        device=request.device,
        init=init,
        parts=parts,
        clock=clock,
    )
