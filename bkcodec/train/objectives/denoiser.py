"""Fitting the codec to a pretrained U-Net: a LoRA on it, its context, and h_s's correction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.errors import UnsupportedError, install
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising
from bkcodec.models.sd.parts import LORA_DOWN, LORA_UP, SdUNet
from bkcodec.train.objectives.shared import Stats, latents, uniform
from bkcodec.train.options import TrainOptions

COSINE_WEIGHT = 0.1
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]  # layers of the U-Net that get a LoRA
ADAPTER = "default"  # peft's name


class DenoiserObjective(nn.Module):
    """Squared error and cosine of y_hat, through exactly the steps that a decoder takes.

    Trained are the context that stands in for a text, the correction that h_s adds, and with
    ``adapter`` "lora" low-rank additions to the attention layers (Hu et al. 2021,
    arXiv:2106.09685). The U-Net's own weights and all that files depend on are frozen; so are mean
    and scale, on which the bundle's own U-Net relies.
    """

    def __init__(self, model: BkSdmCompression, options: TrainOptions) -> None:
        super().__init__()
        if model.backbone is None:
            raise ValueError("the denoiser phase needs a pretrained U-Net")
        self.model, self.options = model, options
        model.requires_grad_(False)
        if options.adapter == "lora":
            add_lora(model.backbone, options.lora_rank)
        model.backbone.context.requires_grad_(True)
        model.h_s.get_submodule("correction").requires_grad_(True)

    def forward(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """Latents [B, 4, h, w], or photos -> the loss (a scalar) and figures to report."""
        model, steps = self.model, self.options.unroll_steps
        y = latents(model, batch)
        position = uniform((1,), generator, y).expand(len(y))
        symbols = (model.h_a(y) / model.quantiser.step(position)).round()
        belief = model.believe(symbols, position)
        if steps == 1:
            y_hat = model.denoiser.once(belief, position)
        else:
            seed = int(torch.randint(0, 2**31, (1,), generator=generator))
            start = model.denoiser.start(position)
            y_hat = model.denoiser.chain(belief, start, Denoising(steps, seed=seed))
        mse = (y_hat - y).square().mean()
        cosine = F.cosine_similarity(y_hat, y, dim=1).mean()
        loss = mse + COSINE_WEIGHT * (1 - cosine)
        before = (belief.mean - y).square().mean()
        return loss, {"loss": loss, "mse": mse, "mean_mse": before, "cosine": cosine}


def add_lora(backbone: SdUNet, rank: int) -> None:
    """Put trainable low-rank layers beside the attention layers; they start without effect.

    Raises:
        UnsupportedError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UnsupportedError(
            f"a LoRA needs the extra packages ({error}): {install('lora')}"
        ) from error
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    inject_adapter_in_model(config, backbone.unet, adapter_name=ADAPTER)


def lora_arrays(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From peft's names in a run's state to a bundle's: ``lora.MODULE.down`` and ``.up``."""
    arrays = {}
    for key, value in state.items():
        if not key.startswith("backbone.unet.") or ".lora_" not in key:
            continue
        module, which = key.removeprefix("backbone.unet.").split(".lora_")
        arrays[f"lora.{module}.{LORA_DOWN if which.startswith('A') else LORA_UP}"] = value
    return arrays
