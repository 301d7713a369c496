"""Local response normalization (§3.3) and its relative within each map (2012 source).

Shapes: `N` batch, `C` maps, `H W` rows and columns. `lrn_reference` holds the formulas and what a window is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import alexnet.model.lrn_operators  # noqa: F401  registers torch.ops.alexnet
from alexnet.errors import UsageError
from alexnet.model.lrn_reference import reference_lrn, reference_map_norm
from alexnet.model.native import is_transformed


def lrn(x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int = 1, divide: bool = False) -> Tensor:
    """Normalize (N, C, H, W) across neighbouring maps of each of `columns` equal groups; `reference_lrn`, but fast.

    `divide` divides `alpha` by `size`. float16 and bfloat16 are computed in float32 inside; the result has the dtype
    and layout of `x` (contiguous or channels-last). Differentiable once. Under ONNX export it is the standard LRN node
    where that node means the same: one column and an odd size. Raises UsageError for an impossible rule or shape.
    """
    _check(x, size, alpha, k, columns)
    if torch.onnx.is_in_onnx_export() and columns == 1 and size % 2 and not torch.jit.is_tracing():
        attributes = {"size": size, "alpha": float(alpha if divide else alpha * size), "beta": float(beta)}
        return torch.onnx.ops.symbolic(
            "LRN", (x,), {**attributes, "bias": float(k)}, dtype=x.dtype, shape=x.shape, version=13
        )
    rule = (size, alpha / size if divide else alpha, beta, k, columns)
    if _needs_plain_operations():
        return reference_lrn(x, *rule)
    return torch.ops.alexnet.lrn(x, *rule)


def map_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, divide: bool = False) -> Tensor:
    """Normalize (N, C, H, W) within each map over size×size neighbours; `reference_map_norm`, but fast.

    `divide` divides `alpha` by `size` squared, as the 2012 source does. Dtype, layout and errors as `lrn`.
    """
    _check(x, size, alpha, k)
    rule = (size, alpha / size**2 if divide else alpha, beta, k)
    if _needs_plain_operations():
        return reference_map_norm(x, *rule)
    return torch.ops.alexnet.map_norm(x, *rule)


class LRN(nn.Module):
    """Normalization across neighbouring kernel maps, each column its own (§3.3)."""

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        columns: int = 1,
        divide: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.columns, self.divide = columns, divide

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, dtype and layout."""
        return lrn(x, self.size, self.alpha, self.beta, self.k, self.columns, self.divide)

    def extra_repr(self) -> str:
        """The rule, as `print(model)` shows it."""
        return (
            f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"columns={self.columns}, divide={self.divide}"
        )


class MapNorm(nn.Module):
    """Normalization within each map over a size×size neighbourhood (2012 source)."""

    def __init__(
        self, size: int = 5, alpha: float = 1e-3, beta: float = 0.75, k: float = 1.0, divide: bool = True
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.divide = size, alpha, beta, k, divide

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, dtype and layout."""
        return map_norm(x, self.size, self.alpha, self.beta, self.k, self.divide)

    def extra_repr(self) -> str:
        """The rule, as `print(model)` shows it."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, divide={self.divide}"


def _needs_plain_operations() -> bool:
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or is_transformed()


def _check(x: Tensor, size: int, alpha: float, k: float, columns: int = 1) -> None:
    if x.dim() != 4:
        raise UsageError(f"maps of shape {tuple(x.shape)} should be (N, C, H, W)")
    if size < 1:
        raise UsageError(f"size is {size}: a normalization window needs at least one member, give 1 or more")
    if not (k > 0 and alpha >= 0):
        raise UsageError(f"k is {k}, alpha is {alpha}: give k above 0 and alpha 0 or more, or zeros divide by zero")
    if columns < 1 or x.shape[1] % columns:
        raise UsageError(f"{x.shape[1]} maps do not split into {columns} columns: give a number that divides the maps")
