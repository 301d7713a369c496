"""Max pooling (paper §3.4): torch's, and on the CPU in channels-last a kernel that keeps two bytes an output.

torch keeps eight bytes an output for the way back, clears the gradient first and adds to it window by window; here
each value is written once. Shapes: `N` images, `C` maps, `H W` rows and columns in, `P Q` out.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.engine.build import library


class MaxPool2d(nn.MaxPool2d):
    """Max pooling without padding; windows start inside the maps and, with `ceil_mode`, are cut at their edges."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        size, stride = self.kernel_size, self.stride
        if suits(maps) and isinstance(size, int) and isinstance(stride, int) and size <= min(*maps.shape[2:], 255):
            # Turned outside the function: what follows may work in place.
            return _Native.apply(maps, size, stride, self.ceil_mode).permute(0, 3, 1, 2)
        return super().forward(maps)


def suits(maps: Tensor) -> bool:
    """Whether the native kernel serves: eager, on the CPU, dense channels-last, float32 or bfloat16."""
    if maps.device.type != "cpu" or maps.dtype not in (torch.float32, torch.bfloat16) or not maps.numel():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and library() is not None


def side(length: int, size: int, stride: int, ceil: bool) -> int:
    """Windows along one side, as torch counts them: the last one starts inside the maps."""
    windows = -(-(length - size) // stride) + 1 if ceil else (length - size) // stride + 1
    return windows - 1 if (windows - 1) * stride >= length else windows


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: int, stride: int, ceil: bool) -> Tensor:
        images, channels, rows, columns = maps.shape
        sides = side(rows, size, stride, ceil), side(columns, size, stride, ceil)
        ctx.shape = (ctypes.c_int64 * 8)(images, rows, columns, channels, size, stride, *sides)
        out = torch.empty(images, *sides, channels, dtype=maps.dtype)
        places = torch.empty(images, *sides, channels, dtype=torch.uint16)
        _done(
            _library().alexnet_pool_forward(
                ctx.shape,
                maps.dtype == torch.bfloat16,
                maps.data_ptr(),
                out.data_ptr(),
                places.data_ptr(),
                torch.get_num_threads(),
            )
        )
        ctx.save_for_backward(maps, places)
        ctx.rule = size, stride, ceil
        return out  # (N, P, Q, C)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        maps, places = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of a gradient is wanted
            size, stride, ceil = ctx.rule
            again = F.max_pool2d(maps, size, stride, ceil_mode=ceil)
            return torch.autograd.grad(again, maps, grad.permute(0, 3, 1, 2), create_graph=True)[0], None, None, None
        g = grad.to(maps.dtype).contiguous()  # (N, P, Q, C)
        out = torch.empty(maps.permute(0, 2, 3, 1).shape, dtype=maps.dtype)
        _done(
            _library().alexnet_pool_backward(
                ctx.shape,
                maps.dtype == torch.bfloat16,
                g.data_ptr(),
                places.data_ptr(),
                out.data_ptr(),
                torch.get_num_threads(),
            )
        )
        return out.permute(0, 3, 1, 2), None, None, None


def _library() -> ctypes.CDLL:
    lib = library()
    assert lib is not None
    return lib


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("pooling ran out of memory in a worker thread")
