"""PyTorch as a backend, for GPUs: the same integers in float32 and, in projections, float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bkcodec.engine.program import (
    Add,
    Concat,
    Conv,
    CropLike,
    Film,
    Op,
    PadEven,
    Program,
    Project,
    Scale,
    Shuffle,
    Unshuffle,
)
from bkcodec.engine.reference import conditions_at

Map = NDArray[np.float32]


class TorchNetwork:
    """Runs a program in PyTorch.

    Args:
        program: the network.
        device: where.
    """

    def __init__(self, program: Program, device: torch.device) -> None:
        self.program, self.device = program, device
        # Projections need float64.
        self._doubles = torch.device("cpu") if device.type == "mps" else device
        self._constants = [self._of(step.op) for step in program.steps]

    @torch.inference_mode()
    def run(self, maps: Mapping[str, NDArray[np.generic]]) -> list[Map]:
        """Maps [C, h, w] by name -> the outputs."""
        values = {i: self._tensor(maps[name]) for i, name in enumerate(self.program.inputs)}
        for step, constants in zip(self.program.steps, self._constants, strict=True):
            x = [values[value] for value in step.inputs]
            values[step.output] = self._apply(step.op, constants, x, maps)
        return [values[value][0].cpu().numpy() for value in self.program.outputs]

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None].to(self.device)

    def _of(self, op: Op) -> list[Tensor]:
        """An operation's arrays, where they are needed."""
        arrays: list[NDArray[np.generic]] = []
        if isinstance(op, Conv):
            arrays = [op.weight.astype(np.float32), op.bias.astype(np.float32)]
        elif isinstance(op, Project):
            weights = (op.weight, op.bias[:, None])
            return [torch.from_numpy(np.ascontiguousarray(x)).to(self._doubles) for x in weights]
        elif isinstance(op, Scale):
            arrays = [op.factor[:, None, None]]
        return [torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in arrays]

    def _apply(
        self,
        op: Op,
        constants: list[Tensor],
        x: list[Tensor],
        maps: Mapping[str, NDArray[np.generic]],
    ) -> Tensor:
        match op:
            case Conv():
                weight, bias = constants
                return _convolve(op, weight, bias, x[0])
            case Project():
                weight, bias = constants
                flat = weight @ x[0].to(self._doubles).double().flatten(2) + bias
                return flat.reshape(1, -1, *x[0].shape[2:]).float().to(self.device)
            case Scale():
                return (x[0] * constants[0]).round().clamp(op.low, op.high)
            case Film():
                gain, bias = (
                    self._tensor(conditions_at(maps[f"{op.name}.{k}"], op.finer))
                    for k in ("gain", "bias")
                )
                return x[0] * gain + bias
            case Add():
                return x[0] + x[1]
            case Concat():
                return torch.cat(x, dim=1)
            case Shuffle(r):
                return F.pixel_shuffle(x[0], r)
            case Unshuffle(r):
                return F.pixel_unshuffle(x[0], r)
            case PadEven():
                return F.pad(x[0], (0, x[0].shape[3] % 2, 0, x[0].shape[2] % 2))
            case CropLike():
                return x[0][..., : x[1].shape[2], : x[1].shape[3]]


def _convolve(op: Conv, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A matrix product for each place of the window: convolutions of libraries may not be exact."""
    side, stride = op.weight.shape[2], op.stride
    border = side // 2 if stride == 1 else 0
    x = F.pad(x, (border, border, border, border))
    height, width = ((n - side) // stride + 1 for n in x.shape[2:])
    total = bias[:, None].expand(-1, height * width)
    for row in range(side):
        for column in range(side):
            part = x[
                :,
                :,
                row : row + stride * (height - 1) + 1 : stride,
                column : column + stride * (width - 1) + 1 : stride,
            ]
            total = total + weight[:, :, row, column] @ part.flatten(2)
    return total.reshape(1, -1, height, width)
