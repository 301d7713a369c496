"""Convolution on the CPU at the rate at which its cores multiply matrices.

The library's bfloat16 convolution falls far below that rate, above all backwards and on small maps, and its float32
products below what the processor can do. Where the native kernels serve, they do the work, with the ReLU that follows
in the same pass. Elsewhere, in bfloat16, the patches under each kernel are copied out for a few images at a time, so
that they stay in cache, and multiplied. `torch.nn.functional.conv2d` is the reference, and what runs otherwise.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels of one group, `K` kernel side,
`G` groups. Maps are held (N, H, W, G·C): channels-last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.engine import convolution

PIECE = 1 << 20  # bytes of patches at a time; a few of them fit a core's share of the cache


@dataclass(frozen=True)
class Window:
    """Kernel side, stride and zeros around the maps (top, bottom, left, right)."""

    size: int
    stride: int
    pad: tuple[int, int, int, int]

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output."""
        top, bottom, left, right = self.pad
        return (
            (height + top + bottom - self.size) // self.stride + 1,
            (width + left + right - self.size) // self.stride + 1,
        )


def suits(maps: Tensor, weight: Tensor) -> bool:
    """Whether `conv2d` here is the faster one: CPU, eager, bfloat16 arithmetic, or float32 with the native kernels."""
    if maps.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if weight.dtype not in (torch.float32, torch.bfloat16) or torch._C._are_functorch_transforms_active():
        return False
    kind = arithmetic(maps)
    return kind == torch.bfloat16 or (kind == weight.dtype == torch.float32 and kind in convolution.served())


def arithmetic(maps: Tensor) -> torch.dtype:
    """The dtype in which a convolution of `maps` is computed: autocast's where it is on, else their own."""
    if torch.is_autocast_enabled("cpu") and maps.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return torch.get_autocast_dtype("cpu")
    return maps.dtype


def conv2d(maps: Tensor, weight: Tensor, bias: Tensor, window: Window, groups: int, relu: bool = False) -> Tensor:
    """(N, G·C, H, W), (G·O, C, K, K), (G·O,) → (N, G·O, P, Q), channels-last, differentiable; rectified where `relu`.

    The result is of the dtype that `arithmetic` says. Call where `suits` says so.
    """
    kind = arithmetic(maps)
    with torch.autocast("cpu", enabled=False):
        if kind in convolution.served() and maps.numel() and maps.dtype in (torch.float32, torch.bfloat16):
            return _Native.apply(maps, weight, bias, window, groups, relu, kind).permute(0, 3, 1, 2)
        if kind == torch.float32:
            out = _reference(maps, weight, bias, window, groups)
        else:
            x = maps.to(kind)
            out = _Conv.apply(x, weight.to(kind), bias.to(kind), window, groups).permute(0, 3, 1, 2)
        return out.relu_() if relu else out


def _reference(maps: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    top, bottom, left, right = window.pad
    return F.conv2d(F.pad(maps, (left, right, top, bottom)), weight, bias, window.stride, groups=groups)


class _Native(torch.autograd.Function):
    """The native kernels; saves its input and, with a ReLU, its output, both of which their neighbours hold too."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, maps, weight, bias, window, groups, relu, kind
    ) -> Tensor:
        x = maps.permute(0, 2, 3, 1).contiguous()  # (N, H, W, G·C)
        w = weight.permute(0, 2, 3, 1).contiguous()  # (G·O, K, K, C)
        plan = convolution.Convolution(
            x.shape,
            w.shape[0],
            groups,
            window.size,
            window.stride,
            window.pad[::2],
            window.sides(x.shape[1], x.shape[2]),
        )
        out = plan.forward(x, w, bias.float().contiguous(), kind == torch.bfloat16, relu)
        ctx.save_for_backward(maps, weight, bias, out if relu else None)
        ctx.plan, ctx.rule = plan, (window, groups)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, bias, out = ctx.saved_tensors
        plan, (window, groups) = ctx.plan, ctx.rule
        if torch.is_grad_enabled():  # a gradient of a gradient is wanted
            kept = (grad if out is None else torch.where(out > 0, grad, 0)).permute(0, 3, 1, 2)
            own = [t for t, needed in zip((maps, weight, bias), ctx.needs_input_grad, strict=False) if needed]
            again = _reference(maps.to(grad.dtype), weight.to(grad.dtype), bias.to(grad.dtype), window, groups)
            found = iter(torch.autograd.grad(again, own, kept, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None, None, None)
        g = grad.contiguous()  # (N, P, Q, G·O)
        x, w = maps.permute(0, 2, 3, 1).contiguous(), weight.permute(0, 2, 3, 1).contiguous()
        grad_maps = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            if plan.turns:
                grad_maps = plan.maps_gradient(g, out, w)
            else:
                kept = g if out is None else torch.where(out > 0, g, 0)
                grad_maps = _spread(kept, w.to(g.dtype), x.shape, window, groups)
            grad_maps = grad_maps.permute(0, 3, 1, 2).to(maps.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_weight, grad_bias = plan.weight_gradient(x, g, out, w.shape)
            grad_weight, grad_bias = grad_weight.permute(0, 3, 1, 2).to(weight.dtype), grad_bias.to(bias.dtype)
        return grad_maps, grad_weight, grad_bias, None, None, None, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, weight, bias, window, groups):  # type: ignore[no-untyped-def]
        x = maps.permute(0, 2, 3, 1).contiguous()  # (N, H, W, G·C)
        w = weight.permute(0, 2, 3, 1).contiguous()  # (G·O, K, K, C)
        ctx.save_for_backward(x, w)
        ctx.window, ctx.groups = window, groups
        return _correlate(x, w, bias, window, groups)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w = ctx.saved_tensors
        g = grad.to(x.dtype).contiguous()  # (N, P, Q, G·O)
        window, groups = ctx.window, ctx.groups
        grad_maps = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_maps = _spread(g, w, x.shape, window, groups).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(x, g, w.shape, window, groups).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            grad_bias = g.flatten(0, 2).sum(0, dtype=torch.float32).to(g.dtype)
        return grad_maps, grad_weight, grad_bias, None, None


def _correlate(x: Tensor, w: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """x (N, H, W, G·C) with w (G·O, K, K, C) → (N, P, Q, G·O)."""
    rows = w.flatten(1).unflatten(0, (groups, -1))  # (G, O, K·K·C)
    out = x.new_empty(x.shape[0], *window.sides(x.shape[1], x.shape[2]), w.shape[0])
    for first, last, pieces in _pieces(x, window, groups):
        place = out[first:last].flatten(0, 2).unflatten(1, (groups, -1))  # (n·P·Q, G, O)
        for group, patches in enumerate(pieces):
            if bias is None:
                place[:, group] = patches @ rows[group].t()
            else:
                place[:, group] = torch.addmm(bias.unflatten(0, (groups, -1))[group], patches, rows[group].t())
    return out


def _weight_gradient(x: Tensor, g: Tensor, shape: torch.Size, window: Window, groups: int) -> Tensor:
    """x (N, H, W, G·C), g (N, P, Q, G·O) → (G·O, K, K, C) float32, added up in float32 over pieces."""
    total = torch.zeros(groups, shape[0] // groups, shape[1] * shape[2] * shape[3])
    for first, last, pieces in _pieces(x, window, groups):
        part = g[first:last].flatten(0, 2).unflatten(1, (groups, -1))  # (n·P·Q, G, O)
        for group, patches in enumerate(pieces):
            total[group] += part[:, group].t() @ patches
    return total.view(shape)


def _spread(g: Tensor, w: Tensor, shape: torch.Size, window: Window, groups: int) -> Tensor:
    """The gradient with respect to the maps, (N, H, W, G·C): g (N, P, Q, G·O) through the transposed kernels w."""
    top, _, left, _ = window.pad
    _, height, width, _ = shape
    if window.stride == 1 and max(window.pad) < window.size:
        # A correlation of g with the kernels turned by 180°, maps and kernels exchanged.
        turned = w.flip(1, 2).unflatten(0, (groups, -1)).permute(0, 4, 2, 3, 1).flatten(0, 1).contiguous()
        up, leftward = window.size - 1 - top, window.size - 1 - left
        down = height + window.size - 1 - g.shape[1] - up
        rightward = width + window.size - 1 - g.shape[2] - leftward
        return _correlate(g, turned, None, Window(window.size, 1, (up, down, leftward, rightward)), groups)
    maps = F.conv_transpose2d(g.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), stride=window.stride, groups=groups)
    padded = maps.new_zeros(shape[0], shape[3], height + sum(window.pad[:2]), width + sum(window.pad[2:]))
    padded[:, :, : maps.shape[2], : maps.shape[3]] = maps
    return padded[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1)


def _pieces(x: Tensor, window: Window, groups: int):  # type: ignore[no-untyped-def]
    """For a few images at a time: their places, and for each group the patches (n·P·Q, K·K·C) in turn."""
    n, height, width, maps = x.shape
    top, bottom, left, right = window.pad
    size, stride = window.size, window.stride
    p, q = window.sides(height, width)
    each = p * q * size * size * (maps // groups) * x.element_size()
    step = max(1, min(n, PIECE * torch.get_num_threads() // each))
    padded = x.new_zeros(step, height + top + bottom, width + left + right, maps) if any(window.pad) else None
    for first in range(0, n, step):
        last = min(n, first + step)
        source = x[first:last]
        if padded is not None:
            padded[: last - first, top : top + height, left : left + width] = source
            source = padded[: last - first]
        yield first, last, [_patches(part, size, stride, p, q) for part in source.chunk(groups, 3)]


def _patches(x: Tensor, size: int, stride: int, p: int, q: int) -> Tensor:
    """(n, H, W, C) → (n·P·Q, K·K·C), a copy."""
    images, rows, columns, maps = x.stride()
    view = x.as_strided(
        (x.shape[0], p, q, size, size, x.shape[3]),
        (images, rows * stride, columns * stride, rows, columns, maps),
        x.storage_offset(),
    )
    return view.reshape(x.shape[0] * p * q, -1)
