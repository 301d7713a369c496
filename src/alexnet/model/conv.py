"""Convolution on the CPU as fast as its cores multiply matrices.

The engine computes it where it is the faster one, with the ReLU that follows in the same pass. Elsewhere torch does,
but bfloat16 by float32 products where the processor has none of bfloat16 (`native.emulates_bfloat16`).

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels of one group, `K` kernel side,
`G` groups. Maps are held (N, H, W, G·C): channels-last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from alexnet.engine import convolution
from alexnet.engine.convolution import ConvGeometry
from alexnet.model.native import DTYPES, arithmetic, emulates_bfloat16, is_eager


class Conv2d(nn.Conv2d):
    """A convolution; with `ceil` zeros past the right and bottom edges complete its last window (2012 source)."""

    def __init__(self, maps: int, kernels: int, size: int, stride: int, pad: int, groups: int, ceil: bool) -> None:
        super().__init__(maps, kernels, size, stride, pad, groups=groups)
        self.size, self.step, self.pad, self.ceil = size, stride, pad, ceil

    def forward(self, maps: Tensor, relu: bool = False) -> Tensor:
        """(N, C, H, W) → (N, kernels, 1+ceil((2·pad+H−size)/stride), …), rectified where `relu`."""
        down, right = ((-(side + 2 * self.pad - self.size) % self.step if self.ceil else 0) for side in maps.shape[2:])
        if supports(maps, self.weight):
            geometry = ConvGeometry(self.size, self.step, (self.pad, self.pad + down, self.pad, self.pad + right))
            return conv2d(maps, self.weight, self.get_parameter("bias"), geometry, self.groups, relu)
        if down or right:
            maps = F.pad(maps, (0, right, 0, down))
        out = super().forward(maps)
        return F.relu(out, inplace=True) if relu else out


def supported_dtypes() -> frozenset[torch.dtype]:
    """The arithmetics in which the engine computes convolutions on this processor; none without the engine."""
    return frozenset(kind for kind, dtype in DTYPES.items() if dtype in convolution.supported_dtypes())


def supports(maps: Tensor, weight: Tensor) -> bool:
    """Whether `conv2d` here is the faster one for these: eager, on the CPU, float32 or bfloat16.

    bfloat16 where the engine computes it or the processor cannot; float32 where the engine computes it.
    """
    kinds = (torch.float32, torch.bfloat16)
    if not is_eager(maps) or not maps.numel() or maps.dtype not in kinds or weight.dtype not in kinds:
        return False
    kind = arithmetic(maps)
    if kind == torch.float32 and weight.dtype != kind:
        return False
    return kind in supported_dtypes() or emulates_bfloat16(maps)


def conv2d(
    maps: Tensor, weight: Tensor, bias: Tensor, geometry: ConvGeometry, groups: int, relu: bool = False
) -> Tensor:
    """(N, G·C, H, W), (G·O, C, K, K), (G·O,) → (N, G·O, P, Q), channels-last, differentiable once; rectified if `relu`.

    The result is of the dtype that `arithmetic` says. Call where `supports` says so.
    """
    kind = arithmetic(maps)
    with torch.autocast("cpu", enabled=False):
        if kind in supported_dtypes():
            return _Convolution.apply(maps, weight, bias, geometry, groups, relu, kind).permute(0, 3, 1, 2)
        # Rounded as bfloat16 factors are, multiplied and added up in float32, rounded once: bfloat16 arithmetic.
        x, w, b = (t.to(kind).float() for t in (maps, weight, bias))
        top, bottom, left, right = geometry.pad
        out = F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, geometry.stride, groups=groups)
        return (out.relu_() if relu else out).to(kind)


class _Convolution(torch.autograd.Function):
    """The engine's; saves its input and, with a ReLU, its output, both of which its neighbours hold too."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, maps, weight, bias, geometry, groups, relu, kind
    ) -> Tensor:
        x, w = _channels_last(maps), _channels_last(weight)  # (N, H, W, G·C), (G·O, K, K, C)
        b = bias.float().contiguous()
        plan = convolution.Convolution(x.shape, w.shape[0], groups, geometry, DTYPES[kind])
        out = torch.empty(plan.out, dtype=kind)
        plan.forward(
            x.data_ptr(), DTYPES[x.dtype], w.data_ptr(), DTYPES[w.dtype], b.data_ptr(), out.data_ptr(),
            relu, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(maps, weight, out if relu else None)
        ctx.plan, ctx.geometry, ctx.groups, ctx.bias_dtype = plan, geometry, groups, bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, out = ctx.saved_tensors
        x, w, g = _channels_last(maps), _channels_last(weight), grad.contiguous()  # g (N, P, Q, G·O)
        grad_maps = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_maps = _grad_input(ctx, g, out, x, w).permute(0, 3, 1, 2).to(maps.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_weight, grad_bias = torch.empty(w.shape), torch.empty(w.shape[0])
            ctx.plan.grad_weights(
                x.data_ptr(), DTYPES[x.dtype], g.data_ptr(), _address(out),
                grad_weight.data_ptr(), grad_bias.data_ptr(), torch.get_num_threads(),
            )  # fmt: skip
            grad_weight = grad_weight.permute(0, 3, 1, 2).to(weight.dtype)
            grad_bias = grad_bias.to(ctx.bias_dtype)
        return grad_maps, grad_weight, grad_bias, None, None, None, None


def _grad_input(ctx: Any, g: Tensor, gate: Tensor | None, x: Tensor, w: Tensor) -> Tensor:
    """The gradient with respect to the maps, (N, H, W, G·C): g (N, P, Q, G·O), counted where `gate` is above 0."""
    plan, geometry = ctx.plan, ctx.geometry
    if plan.gives_grad_input:
        out = torch.empty(x.shape, dtype=g.dtype)
        plan.grad_input(
            g.data_ptr(), _address(gate), w.data_ptr(), DTYPES[w.dtype], out.data_ptr(), torch.get_num_threads()
        )
        return out
    if gate is not None:
        g = torch.where(gate > 0, g, 0)
    n, h, width, maps = x.shape
    top, bottom, left, right = geometry.pad
    padded = conv2d_input(
        (n, maps, h + top + bottom, width + left + right),
        w.permute(0, 3, 1, 2).to(g.dtype),
        g.permute(0, 3, 1, 2),
        geometry.stride,
        groups=ctx.groups,
    )
    return padded[:, :, top : top + h, left : left + width].permute(0, 2, 3, 1)


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
