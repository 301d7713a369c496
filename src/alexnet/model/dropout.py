"""Dropout (§4.2) whose masks are a pure function of seed, epoch, image, layer and unit.

So they do not depend on which images share a batch, on the process, or on how a layer's units or a batch's images are
divided. They are integer arithmetic (`philox`), alike on every device: the key is (seed, layer), the counter is
(unit // 4, image, epoch, seed's upper half), and unit u has word u % 4 of the four.

Shapes: `N` images, `U` units: what is left of an image when it is flattened in the order C, H, W.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.engine.dropout import dropout
from alexnet.engine.philox import WORD, philox
from alexnet.errors import UsageError
from alexnet.model.native import is_available, is_eager

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DropoutKeys:
    """What masks are made of, beside the layer: seed, epoch and (N,) int64, the images' positions in their split.

    For a CUDA graph the epoch is an int64 scalar on the device and is filled anew before each replay, as `positions`.
    """

    seed: int
    epoch: int | Tensor
    positions: Tensor


class KeyedDropout(nn.Module):
    """Zero each value with probability `rate` in training; the others are scaled up by 1/(1−rate).

    With keys (`set_dropout_keys`) the masks are theirs; without, drawn from torch's generator as by `nn.Dropout`.
    `layer` is the layer's name, different for each of a network; `first_unit` the place in it of the first unit held
    here. Raises UsageError for a rate outside 0 ≤ rate < 1.
    """

    def __init__(self, rate: float = 0.5, layer: str = "", first_unit: int = 0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UsageError(f"a dropout rate of {rate} should be at least 0 and below 1")
        self.rate, self.layer, self.first_unit = rate, layer, first_unit
        self._number = layer_number(layer)
        self.keys: DropoutKeys | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → the same shape and dtype. Raises UsageError where there are keys for another number of images."""
        if not self.training or self.rate == 0:
            return x
        if self.keys is None:
            return F.dropout(x, self.rate, training=True)
        if len(self.keys.positions) != len(x):
            raise UsageError(f"dropout has the keys of {len(self.keys.positions)} images and a batch of {len(x)}")
        keep = dropout_mask(self.keys, self._number, self.rate, math.prod(x.shape[1:]), self.first_unit, x.device)
        return x * keep.view(x.shape).to(x.dtype).mul_(1 / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate, as `print(model)` shows it."""
        return f"rate={self.rate}"


def set_dropout_keys(
    model: nn.Module, seed: int, epoch: int | Tensor, positions: Sequence[int] | NDArray[np.int64] | Tensor | None
) -> None:
    """Give every `KeyedDropout` of `model` the keys of the next batch; None for positions takes them away.

    positions: (N,) whole numbers, the images' positions in their split, below 2³². Call before each forward pass, or
    fill what was given, int64 tensors on the model's device, anew.
    """
    keys = None
    if positions is not None:
        keys = DropoutKeys(seed, epoch, torch.as_tensor(positions, dtype=torch.int64).contiguous())
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.keys = keys


def layer_number(name: str) -> int:
    """The 32 bits that stand for a layer in the key of its masks: the CRC-32 of its name."""
    return zlib.crc32(name.encode())


def dropout_mask(
    keys: DropoutKeys, layer: int, rate: float, units: int, first_unit: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """(N, units) bool: which of a layer's units from `first_unit` on are kept for each image.

    `layer` is its `layer_number`.
    """
    threshold = min(round(rate * 2**32), WORD)
    if not is_eager(torch.empty(0, device=device)) or not is_available():
        return plain_mask(keys, layer, threshold, units, first_unit, device)
    keep = torch.empty(len(keys.positions), units, dtype=torch.bool)
    key = (keys.seed & 0xFFFFFFFFFFFFFFFF, int(keys.epoch), layer)
    positions = keys.positions.cpu()
    dropout(
        keep.data_ptr(),
        positions.data_ptr(),
        len(positions),
        units,
        first_unit,
        key,
        threshold,
        torch.get_num_threads(),
    )
    return keep


def plain_mask(
    keys: DropoutKeys, layer: int, threshold: int, units: int, first_unit: int, device: torch.device | str
) -> Tensor:
    """`dropout_mask` in torch operations, for any device; `threshold` of 2³² words are dropped."""
    first, last = first_unit // 4, (first_unit + units + 3) // 4
    blocks = torch.arange(first, last, device=device)  # (B,)
    words = philox(
        (blocks, keys.positions.to(device)[:, None], keys.epoch, keys.seed >> 32 & WORD), (keys.seed & WORD, layer)
    )
    unit = first_unit - 4 * first
    return torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, unit : unit + units] >= threshold
