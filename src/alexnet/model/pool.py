"""Pooling (§3.4): torch's, and on the CPU in channels-last the engine's, which keeps two bytes per maximum.

For the backward pass torch keeps eight, clears the gradient first and adds to it window by window; here each value is
written once. Shapes: `N` images, `C` maps, `H W` rows and columns in, `P Q` out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alexnet.engine.pooling import Pooling
from alexnet.model.native import DTYPES, is_available, is_eager


class MaxPool2d(nn.MaxPool2d):
    """Max pooling without padding; windows start inside the maps and, with `ceil_mode`, are cut at their edges."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        return _pooled(self, maps, average=False) if _fits(self, maps) else super().forward(maps)


class AvgPool2d(nn.AvgPool2d):
    """As `MaxPool2d`, with the average of what is inside each window."""

    def __init__(self, size: int, stride: int, ceil_mode: bool = False) -> None:
        super().__init__(size, stride, ceil_mode=ceil_mode, count_include_pad=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        return _pooled(self, maps, average=True) if _fits(self, maps) else super().forward(maps)


def supports(maps: Tensor) -> bool:
    """Whether the engine takes these: eager, on the CPU, dense channels-last, float32 or bfloat16."""
    if not is_eager(maps) or maps.dtype not in (torch.float32, torch.bfloat16) or not maps.numel():
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and is_available()


def _fits(layer: nn.MaxPool2d | nn.AvgPool2d, maps: Tensor) -> bool:
    size, stride = layer.kernel_size, layer.stride
    square = isinstance(size, int) and isinstance(stride, int) and size <= min(*maps.shape[2:], 255)
    return square and supports(maps)


def _pooled(layer: nn.MaxPool2d | nn.AvgPool2d, maps: Tensor, average: bool) -> Tensor:
    out: Tensor = _Pool.apply(maps, layer.kernel_size, layer.stride, layer.ceil_mode, average)
    return out


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: int, stride: int, ceil: bool, average: bool) -> Tensor:
        x = maps.permute(0, 2, 3, 1)  # (N, H, W, C)
        ctx.plan = Pooling(x.shape, size, stride, ceil, DTYPES[x.dtype])
        ctx.shape = x.shape
        n, p, q, c = ctx.plan.out
        # Not a permuted view: what follows may work in place, which costs copies in a view.
        out = torch.empty((n, c, p, q), dtype=x.dtype, memory_format=torch.channels_last)
        if average:
            ctx.plan.average(x.data_ptr(), out.data_ptr(), torch.get_num_threads())
            return out
        places = torch.empty(ctx.plan.out, dtype=torch.uint16)
        ctx.plan.forward(x.data_ptr(), out.data_ptr(), places.data_ptr(), torch.get_num_threads())
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        places = ctx.saved_tensors[0].data_ptr() if ctx.saved_tensors else None
        g = grad.permute(0, 2, 3, 1).contiguous()  # (N, P, Q, C)
        out = torch.empty(ctx.shape, dtype=g.dtype)
        ctx.plan.backward(g.data_ptr(), places, out.data_ptr(), torch.get_num_threads())
        return out.permute(0, 3, 1, 2), None, None, None, None
