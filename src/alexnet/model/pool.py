"""Max pooling (§3.4): torch's, and on the CPU in channels-last the engine's, which keeps two bytes per output.

torch keeps eight bytes per output for the backward pass, clears the gradient first and adds to it window by window;
here each value is written once. Shapes: `N` images, `C` maps, `H W` rows and columns in, `P Q` out.
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
        size, stride = self.kernel_size, self.stride
        if supports(maps) and isinstance(size, int) and isinstance(stride, int) and size <= min(*maps.shape[2:], 255):
            # Permuted outside the function: what follows may work in place.
            return _MaxPool.apply(maps, size, stride, self.ceil_mode).permute(0, 3, 1, 2)
        return super().forward(maps)


def supports(maps: Tensor) -> bool:
    """Whether the engine takes these: eager, on the CPU, dense channels-last, float32 or bfloat16."""
    if not is_eager(maps) or maps.dtype not in (torch.float32, torch.bfloat16) or not maps.numel():
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and is_available()


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: int, stride: int, ceil: bool) -> Tensor:
        x = maps.permute(0, 2, 3, 1)  # (N, H, W, C)
        ctx.plan = Pooling(x.shape, size, stride, ceil, DTYPES[x.dtype])
        ctx.shape = x.shape
        out = torch.empty(ctx.plan.out, dtype=x.dtype)
        places = torch.empty(ctx.plan.out, dtype=torch.uint16)
        ctx.plan.forward(x.data_ptr(), out.data_ptr(), places.data_ptr(), torch.get_num_threads())
        ctx.save_for_backward(places)
        return out  # (N, P, Q, C)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        (places,) = ctx.saved_tensors
        g = grad.contiguous()  # (N, P, Q, C)
        out = torch.empty(ctx.shape, dtype=g.dtype)
        ctx.plan.backward(g.data_ptr(), places.data_ptr(), out.data_ptr(), torch.get_num_threads())
        return out.permute(0, 3, 1, 2), None, None, None
