"""Convolution as matrix products over cache-sized pieces of a batch, for the CPU.

The library's bfloat16 convolution falls far below the rate at which the same cores multiply matrices, above all
backwards and on small maps. Here the patches under each kernel are copied out for a few images at a time, so that they
stay in cache, and multiplied. `torch.nn.functional.conv2d` is the reference.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels of one group, `K` kernel side,
`G` groups. Maps are held (N, H, W, G·C): channels-last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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
        return ((height + top + bottom - self.size) // self.stride + 1,
                (width + left + right - self.size) // self.stride + 1)


def suits(maps: Tensor) -> bool:
    """Whether `conv2d` here is the faster one: CPU, eager, bfloat16 arithmetic."""
    return (maps.device.type == "cpu" and not torch.compiler.is_compiling()
            and (maps.dtype == torch.bfloat16 or
                 (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16)))


def conv2d(maps: Tensor, weight: Tensor, bias: Tensor, window: Window, groups: int) -> Tensor:
    """(N, G·C, H, W), (G·O, C, K, K), (G·O,) → (N, G·O, P, Q) in bfloat16, channels-last, differentiable."""
    kind = torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        out = _Conv.apply(maps.to(kind), weight.to(kind), bias.to(kind), window, groups)  # (N, P, Q, G·O)
        return out.permute(0, 3, 1, 2)


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
    if window.stride == 1:
        # A correlation of g with the kernels turned by 180°, maps and kernels exchanged.
        turned = w.flip(1, 2).unflatten(0, (groups, -1)).permute(0, 4, 2, 3, 1).flatten(0, 1).contiguous()
        up, leftward = window.size - 1 - top, window.size - 1 - left
        down = height + window.size - 1 - g.shape[1] - up
        rightward = width + window.size - 1 - g.shape[2] - leftward
        return _correlate(g, turned, None, Window(window.size, 1, (up, down, leftward, rightward)), groups)
    maps = F.conv_transpose2d(
        g.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), stride=window.stride, groups=groups)
    padded = maps.new_zeros(shape[0], shape[3], height + sum(window.pad[:2]), width + sum(window.pad[2:]))
    padded[:, :, :maps.shape[2], :maps.shape[3]] = maps
    return padded[:, :, top:top + height, left:left + width].permute(0, 2, 3, 1)


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
            padded[:last - first, top:top + height, left:left + width] = source
            source = padded[:last - first]
        yield first, last, [_patches(part, size, stride, p, q) for part in source.chunk(groups, 3)]


def _patches(x: Tensor, size: int, stride: int, p: int, q: int) -> Tensor:
    """(n, H, W, C) → (n·P·Q, K·K·C), a copy."""
    images, rows, columns, maps = x.stride()
    view = x.as_strided((x.shape[0], p, q, size, size, x.shape[3]),
                        (images, rows * stride, columns * stride, rows, columns, maps), x.storage_offset())
    return view.reshape(x.shape[0] * p * q, -1)
