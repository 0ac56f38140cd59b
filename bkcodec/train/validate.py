"""Validation on held-out photos, and sample pictures through the real coder."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_msssim import ms_ssim
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising
from bkcodec.models.lpips import Lpips
from bkcodec.options import position_to_level
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.tables import Tables
from bkcodec.train.data import Photos
from bkcodec.train.objectives.shared import MS_SSIM_TO_MSE, colour_error
from bkcodec.train.options import TrainOptions
from bkcodec.train.prior.freeze import freeze, learned_tables
from bkcodec.train.prior.network import ContextNetwork

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIDE = 320  # of the centre crops that are coded
SAMPLED, SAMPLE_POSITIONS = 4, (0.2, 0.5)
TEXTURE_POSITIONS, TEXTURE_STEPS = (0.1, 0.3), 4
LATENT_POSITIONS = (0.0, 0.5, 1.0)  # of the texture phase in the "sd" space


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the validation photos at one position (0..1).

    Attributes:
        colour: what training adds to the squared error for mean colours, in squared 8-bit levels;
            our own latent space only.
        lpips: LPIPS-SQ where training minimises it.
        y_mse: squared error of standardised y.
    """

    position: float
    bpp: float
    psnr: float
    ms_ssim: float
    lpips: float | None = None
    steps: int = 1
    y_mse: float | None = None
    colour: float | None = None

    def __str__(self) -> str:
        text = (
            f"q {self.position:.2f} steps {self.steps} bpp {self.bpp:.4f} psnr {self.psnr:.2f} "
            f"ms-ssim {self.ms_ssim:.4f}"
        )
        text += "" if self.y_mse is None else f" y-mse {self.y_mse:.4f}"
        return text if self.lpips is None else f"{text} lpips-sq {self.lpips:.4f}"


class Validation:
    """Judges a model in training.

    Args:
        model: with averaged weights.
        prior: likewise.
        options: of the run.
        coder: the integer prior where a phase keeps files; else it is made of ``prior``.
    """

    def __init__(
        self,
        model: BkSdmCompression,
        prior: ContextNetwork,
        options: TrainOptions,
        coder: Tables | ContextPrior | None = None,
    ) -> None:
        self.model, self.prior, self.options, self.coder = model, prior, options, coder
        self.device = prior.spread.device
        self.is_texture = options.phase == "texture"
        self.in_own = not model.space.takes_backbone
        self.lpips: Lpips | None = None
        is_weighed = bool(options.lpips_weight) and self.in_own
        if options.lpips and (self.is_texture or is_weighed):
            self.lpips = Lpips(Path(options.lpips)).to(self.device)

    @torch.no_grad()
    def rows(self, photos: Photos) -> list[Row]:
        """Code the centre 320 x 320 pixels of every photo at each position, one row each."""
        analysed = []
        for image in photos.images:
            x = _centre(image).to(self.device)
            analysed.append((x, *self.model.analyse(x)))
        cases = [(q, 1) for q in POSITIONS]
        if self.is_texture and self.in_own:
            cases = [(q, TEXTURE_STEPS) for q in TEXTURE_POSITIONS]
        elif self.is_texture:
            cases = [(q, n) for q in LATENT_POSITIONS for n in (1, TEXTURE_STEPS)]
        elif self.options.phase == "denoiser":
            cases = [(q, self.options.unroll_steps) for q in POSITIONS]
        return [self._row(analysed, q, n) for q, n in cases]

    def cost(self, rows: list[Row]) -> float:
        """What the best checkpoint has least of.

        Rate + lambda * distortion as training has it (MSE, MS-SSIM, mean colours and LPIPS, or the
        error of latents); LPIPS in the texture phase; the pictures' MSE where a VAE is trained.
        """
        if self.is_texture:
            return float(np.mean([row.lpips or 0.0 for row in rows]))
        if self.options.phase == "vae":
            return float(np.mean([10 ** (-row.psnr / 10) for row in rows]))
        costs = []
        share = self.options.ms_ssim_weight
        for row in rows:
            lam = float(self.options.lambda_at(torch.tensor(row.position)))
            if not self.in_own:
                costs.append((row.bpp + lam * (row.y_mse or 0.0)) / lam**0.5)
                continue
            mse = 255**2 * 10 ** (-row.psnr / 10)
            distortion = (1 - share) * mse + share * MS_SSIM_TO_MSE * (1 - row.ms_ssim)
            distortion += row.colour or 0.0
            distortion += self.options.lpips_weight * MS_SSIM_TO_MSE * (row.lpips or 0.0)
            costs.append((row.bpp + lam * distortion) / (20 * lam**0.5))
        return float(np.mean(costs))

    def _row(self, analysed: list[tuple[Tensor, Tensor, Tensor]], value: float, steps: int) -> Row:
        model, figures = self.model, []
        position = torch.full((1,), value, device=self.device)
        step = model.quantiser.step(position)
        for x, y, z in analysed:
            symbols = (z / step).round()
            bits = self._bits(symbols, step, position)
            y_hat = model.sample(symbols, position, Denoising(steps))
            x_hat = self._picture(y_hat, steps)
            mse = (x_hat - x).square().mean().clamp_min(1e-9)
            figure = [bits / SIDE**2, -10 * mse.log10(), ms_ssim(x_hat, x, data_range=1.0)]
            figure.append((y_hat - y / model.y_std).square().mean())
            if self.in_own:
                figure.append(255**2 * colour_error(x_hat - x, model.stride).mean())
            if self.lpips is not None:
                figure.append(self.lpips(x_hat, x)[0])
            figures.append(torch.stack(figure))
        bpp, psnr, similarity, y_mse, *rest = torch.stack(figures).mean(dim=0).tolist()
        colour = rest.pop(0) if self.in_own else None
        lpips = rest[0] if rest else None
        return Row(value, bpp, psnr, similarity, lpips, steps, y_mse, colour)

    def _bits(self, symbols: Tensor, step: Tensor, position: Tensor) -> Tensor:
        if self.coder is None:
            return self.prior.bits(symbols * step, symbols, step, position).sum()
        coder = self.coder.level(position_to_level(float(position)))
        string, _ = coder.encode(symbols[0].cpu().numpy())
        return torch.tensor(8.0 * len(string), device=self.device)

    def picture(self, symbols: Tensor, position: Tensor, steps: int) -> Tensor:
        """Symbols [1, M, h, w] -> x_hat [1, 3, 16 h, 16 w], in whole 8-bit levels of 0..1."""
        return self._picture(self.model.sample(symbols, position, Denoising(steps)), steps)

    def _picture(self, y_hat: Tensor, steps: int) -> Tensor:
        cell = int(self.model.vae.stride)
        size = (y_hat.shape[2] * cell, y_hat.shape[3] * cell)
        return (
            self.model.reconstruct(y_hat, size, float(steps > 1)).clamp(0, 1) * 255
        ).round() / 255


@torch.no_grad()
def write_samples(
    judge: Validation, photos: Photos, path: Path, room: float = math.inf
) -> NDArray[np.uint8]:
    """A sheet of reconstructions from real strings; returns its pixels.

    One row per photo: the original, then for each position one step and ``sample_steps`` steps. The
    strings are those of the integer coder, decoded again before they are shown. ``room``: seconds
    that this may take; rows that would take longer are left out, but for the first.
    """
    coder = judge.coder
    if coder is None:
        coder = freeze(judge.model, judge.prior, learned_tables(judge.model, judge.prior))
    lines: list[Tensor] = []
    began = time.monotonic()
    for image in photos.images[:SAMPLED]:
        taken = time.monotonic() - began
        if lines and taken * (1 + 1 / len(lines)) > room:
            break
        x = _centre(image).to(judge.device)
        z = judge.model.analyse(x)[1][0]
        pictures = [x]
        for value in SAMPLE_POSITIONS:
            level = position_to_level(value)
            position = torch.full((1,), value, device=judge.device)
            rounded = (z / judge.model.quantiser.step(position)[0]).round().cpu().numpy()
            string, _ = coder.level(level).encode(rounded)
            decoded = torch.from_numpy(coder.level(level).decode(string, *z.shape[1:]))
            symbols = decoded[None].float().to(judge.device)
            pictures += [
                judge.picture(symbols, position, n) for n in (1, judge.options.sample_steps)
            ]
        lines.append(torch.cat([p[0] for p in pictures], dim=2))
    sheet = torch.cat(lines, dim=1).permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    return sheet


def _centre(image: Tensor) -> Tensor:
    """uint8 [3, H, W] -> the middle [1, 3, 320, 320] in 0..1."""
    top, left = ((side - SIDE) // 2 for side in image.shape[1:])
    return image[None, :, top : top + SIDE, left : left + SIDE].float() / 255
