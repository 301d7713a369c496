"""Masks of dropout in Triton, for CUDA tensors: the words of `engine.philox`, four units to an element.

Run in Triton's interpreter and compiled for GPUs, but never run on one; `dropout` compares it with torch's operations
on the device before it is used. Every number that changes from step to step is read from memory, so that a CUDA graph
draws new masks.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a build of torch without Triton: plain operations serve
    triton = None

BLOCK = 256

if triton is not None:

    @triton.jit
    def _mask(keep_ptr, positions_ptr, epoch_ptr, total, blocks, units, first_unit, key, high, threshold,
              BLOCK: tl.constexpr):  # fmt: skip
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < total
        image, block = at // blocks, first_unit // 4 + at % blocks
        zeros = at * 0
        position = tl.load(positions_ptr + image, mask=inside, other=0).to(tl.uint32)
        epoch = (zeros + tl.load(epoch_ptr)).to(tl.uint32)
        words = tl.philox(key, block.to(tl.uint32), position, epoch, (zeros + high).to(tl.uint32), 10)
        for j in tl.static_range(4):
            unit = 4 * block + j - first_unit
            mask = inside & (unit >= 0) & (unit < units)
            tl.store(keep_ptr + image * units + unit, words[j].to(tl.int64) >= threshold, mask=mask)


def mask(
    positions: Tensor, epoch: Tensor, seed: int, layer: int, threshold: int, units: int, first_unit: int
) -> Tensor:
    """(N, units) bool; positions (N,) and epoch, a scalar, int64 on the device. Raises ModuleNotFoundError."""
    if triton is None:
        raise ModuleNotFoundError("Triton is not installed")
    keep = torch.empty(len(positions), units, dtype=torch.bool, device=positions.device)
    blocks = (first_unit + units + 3) // 4 - first_unit // 4
    total = len(positions) * blocks
    if total:
        with torch.cuda.device(positions.device if positions.is_cuda else -1):
            _mask[(triton.cdiv(total, BLOCK),)](
                keep, positions, epoch, total, blocks, units, first_unit,
                seed & 0xFFFFFFFF | layer << 32, seed >> 32 & 0xFFFFFFFF, threshold, BLOCK=BLOCK,
            )  # fmt: skip
    return keep
