"""Local response normalization (paper, section 3.3) and its relative within each map (2012 source).

Shapes: `N` batch, `C` maps, `H W` rows and columns. A window of `size` around i runs from i - size // 2 to
i + (size - 1) // 2: the paper's i - n/2 .. i + n/2 for odd n, and exactly `size` members, the extra one before i, for
even n, as in the 2012 source.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import alexnet.model.lrn_operators  # noqa: F401  registers torch.ops.alexnet


def reference_lrn(
    x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int = 1, divide: bool = False
) -> Tensor:
    """The formula of section 3.3 in plain operations: `b_i = a_i / (k + alpha * sum_j a_j^2)^beta`, j across maps.

    `x` is (N, C, ...); the sum stays inside each of the `columns` equal groups of maps. `divide` divides `alpha` by
    `size`. Computes in float32 at least and returns the dtype of `x`.
    """
    _check(x, size, alpha, k, columns)
    a = _wide(x).unflatten(1, (columns, x.shape[1] // columns))  # (N, columns, C / columns, ...)
    maps = a.shape[2]
    rest = [0, 0] * (a.dim() - 3)
    squares = F.pad(a * a, [*rest, size // 2, (size - 1) // 2])
    total = squares.narrow(2, 0, maps)
    for j in range(1, size):
        total = total + squares.narrow(2, j, maps)
    scale = k + (alpha / size if divide else alpha) * total
    return (a * scale.pow(-beta)).flatten(1, 2).to(x.dtype)


def reference_map_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, divide: bool = False) -> Tensor:
    """The same normalization within each map, over its size x size neighbourhood (zeros beyond the border).

    `x` is (N, C, H, W). `divide` divides `alpha` by `size` squared, as the 2012 source does. Computes in float32 at
    least and returns the dtype of `x`.
    """
    _check(x, size, alpha, k)
    a = _wide(x)
    before, after = size // 2, (size - 1) // 2
    squares = F.pad(a * a, [before, after, before, after])
    total = F.avg_pool2d(squares, size, stride=1, divisor_override=1)
    scale = k + (alpha / size**2 if divide else alpha) * total
    return (a * scale.pow(-beta)).to(x.dtype)


def local_response_norm(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int = 1,
    divide: bool = False,
    relu: bool = False,
) -> Tensor:
    """Normalize (N, C, ...) across neighbouring maps, fast; `reference_lrn` has the formula.

    float16 and bfloat16 are computed in float32 inside. `relu` rectifies the input first, in the same pass. The result
    has the layout of `x` (contiguous or channels-last). Under ONNX export it is the standard LRN node where that node
    means the same: one column and an odd size.
    """
    _check(x, size, alpha, k, columns)
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        x = x.relu() if relu else x
        if torch.jit.is_tracing() or columns > 1 or size % 2 == 0 or x.dim() < 3:
            return reference_lrn(x, size, alpha, beta, k, columns, divide)
        attributes = {"size": size, "alpha": float(alpha if divide else alpha * size), "beta": float(beta)}
        return torch.onnx.ops.symbolic(
            "LRN", (x,), {**attributes, "bias": float(k)}, dtype=x.dtype, shape=x.shape, version=13
        )
    return torch.ops.alexnet.lrn(x, size, alpha / size if divide else alpha, beta, k, columns, relu)


def map_response_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, divide: bool = False, relu: bool = False
) -> Tensor:
    """Normalize (N, C, H, W) within each map, fast; `reference_map_norm` has the formula.

    float16 and bfloat16 are computed in float32 inside. `relu` rectifies the input first, in the same pass. The result
    has the layout of `x` (contiguous or channels-last).
    """
    _check(x, size, alpha, k)
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return reference_map_norm(x.relu() if relu else x, size, alpha, beta, k, divide)
    return torch.ops.alexnet.map_norm(x, size, alpha / size**2 if divide else alpha, beta, k, relu)


class LRN(nn.Module):
    """Normalization across neighbouring kernel maps, each column its own (section 3.3); `relu` rectifies first."""

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        columns: int = 1,
        divide: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.columns, self.divide, self.relu = columns, divide, relu

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.columns, self.divide, self.relu)

    def extra_repr(self) -> str:
        return (
            f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"columns={self.columns}, divide={self.divide}, relu={self.relu}"
        )


class MapNorm(nn.Module):
    """Normalization within each map over a size x size neighbourhood (2012 source); `relu` rectifies first."""

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-3,
        beta: float = 0.75,
        k: float = 1.0,
        divide: bool = True,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.divide, self.relu = size, alpha, beta, k, divide, relu

    def forward(self, x: Tensor) -> Tensor:
        return map_response_norm(x, self.size, self.alpha, self.beta, self.k, self.divide, self.relu)

    def extra_repr(self) -> str:
        return (
            f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"divide={self.divide}, relu={self.relu}"
        )


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check(x: Tensor, size: int, alpha: float, k: float, columns: int = 1) -> None:
    if size < 1:
        raise ValueError(f"size is {size}: a normalization window needs at least one member, give 1 or more")
    if not (k > 0 and alpha >= 0):
        raise ValueError(f"k is {k}, alpha is {alpha}: give k above 0 and alpha 0 or more, or zeros divide by zero")
    if columns < 1 or x.shape[1] % columns:
        raise ValueError(f"{x.shape[1]} maps do not split into {columns} columns: give a number that divides the maps")
