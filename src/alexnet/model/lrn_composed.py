"""The two normalizations and their gradients as composed torch operations: any device, any floating type.

Used in float64, on devices without a kernel of ours, and where no compiler is found. Shapes: `N` batch, `C` maps,
`H W` rows and columns. `alpha` is already divided where the caller divides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Window = Callable[[Tensor, bool], Tensor]  # sums over the window of each member, or over those whose window it is in


def across_window(size: int, columns: int) -> Window:
    """Sums over `size` neighbouring maps of (N, C, ...), inside each column."""
    before, after = size // 2, (size - 1) // 2

    def window(x: Tensor, reverse: bool) -> Tensor:
        a = x.unflatten(1, (columns, x.shape[1] // columns))
        maps = a.shape[2]
        total = a.clone()
        for d in range(-after if reverse else -before, (before if reverse else after) + 1):
            if d and abs(d) < maps:
                total.narrow(2, max(0, -d), maps - abs(d)).add_(a.narrow(2, max(0, d), maps - abs(d)))
        return total.flatten(1, 2)

    return window


def within_window(size: int) -> Window:
    """Sums over size x size neighbours of (N, C, H, W), inside each map."""
    before, after = size // 2, (size - 1) // 2

    def window(x: Tensor, reverse: bool) -> Tensor:
        first, last = (after, before) if reverse else (before, after)
        return F.avg_pool2d(F.pad(x, [first, last, first, last]), size, stride=1, divisor_override=1)

    return window


def forward(x: Tensor, window: Window, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    """`a / (k + alpha window(a^2))^beta`, `a` the (rectified) input; computed in float32 at least."""
    a = _operand(x, relu)
    return (a * _power(k + alpha * window(a * a, False), beta)).to(x.dtype)


def backward(grad: Tensor, x: Tensor, window: Window, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    """The gradient by `x` of `forward`, itself differentiable."""
    a = _operand(x, relu)
    scale = k + alpha * window(a * a, False)
    u = grad.to(a.dtype) * _power(scale, beta)
    d = u - (2 * alpha * beta) * a * window(u * (a / scale), True)
    return (torch.where(x <= 0, 0.0, d) if relu else d).to(x.dtype)


def _operand(x: Tensor, relu: bool) -> Tensor:
    a = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return a.relu() if relu else a


def _power(scale: Tensor, beta: float) -> Tensor:
    if beta == 0.75:
        root = scale.rsqrt()
        return root * root.sqrt()
    return scale.pow(-beta)
