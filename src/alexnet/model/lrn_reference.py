"""The two normalizations and their gradients in plain torch operations: any device, any floating type.

They are what the engine and Triton are tested against, and what runs where neither serves: in float64, without a
compiler, on other devices. All compute in float32 at least and return the dtype of `x`.

Shapes: `N` batch, `C` maps, `H W` rows and columns. A window of `size` around i runs from i - size // 2 to
i + (size - 1) // 2: the paper's i - n/2 .. i + n/2 for odd n, and exactly `size` members, the extra one before i, for
even n, as in the 2012 source. Where a gradient is collected the windows are reversed: those that i is in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reference_lrn(x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int = 1) -> Tensor:
    """The formula of §3.3, `b_i = a_i / (k + α Σ_j a_j²)^β`, j across neighbouring maps of the same column.

    `x` is (N, C, H, W), its maps in `columns` equal groups.
    """
    a = _wide(x)
    return (a * (k + alpha * _lrn_sums(a * a, size, columns)).pow(-beta)).to(x.dtype)


def reference_lrn_backward(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int
) -> Tensor:
    """The gradient of `reference_lrn` with respect to `x`."""
    a = _wide(x)
    scale = k + alpha * _lrn_sums(a * a, size, columns)
    u = grad.to(a.dtype) * scale.pow(-beta)
    return (u - (2 * alpha * beta) * a * _lrn_sums(u * (a / scale), size, columns, reverse=True)).to(x.dtype)


def reference_map_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The same within each map of `x` (N, C, H, W), j in a size×size neighbourhood (zeros beyond the border)."""
    a = _wide(x)
    return (a * (k + alpha * _map_norm_sums(a * a, size)).pow(-beta)).to(x.dtype)


def reference_map_norm_backward(grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The gradient of `reference_map_norm` with respect to `x`."""
    a = _wide(x)
    scale = k + alpha * _map_norm_sums(a * a, size)
    u = grad.to(a.dtype) * scale.pow(-beta)
    return (u - (2 * alpha * beta) * a * _map_norm_sums(u * (a / scale), size, reverse=True)).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _sides(size: int, reverse: bool) -> tuple[int, int]:
    before, after = size // 2, (size - 1) // 2
    return (after, before) if reverse else (before, after)


def _lrn_sums(x: Tensor, size: int, columns: int, reverse: bool = False) -> Tensor:
    """Sums over `size` neighbouring maps of (N, C, H, W), inside each column."""
    a = x.unflatten(1, (columns, x.shape[1] // columns))  # (N, columns, C / columns, H, W)
    padded = F.pad(a, (0, 0, 0, 0, *_sides(size, reverse)))
    total = padded.narrow(2, 0, a.shape[2])
    for j in range(1, size):
        total = total + padded.narrow(2, j, a.shape[2])
    return total.flatten(1, 2)


def _map_norm_sums(x: Tensor, size: int, reverse: bool = False) -> Tensor:
    """Sums over size×size neighbours of (N, C, H, W), inside each map."""
    if not x.numel():
        return x
    return F.avg_pool2d(F.pad(x, _sides(size, reverse) * 2), size, stride=1, divisor_override=1)
