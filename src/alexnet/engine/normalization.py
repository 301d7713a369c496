"""Calls of local response normalization and normalization within each map.

Shapes: `N` batch, `C` maps, `H W` rows and columns. `x`, `grad` and `out` are addresses of tensors of one dtype and one
dense layout: (N, C, H, W) contiguous, or channels-last. With `grad` (else None), the gradient is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.engine.library import Dtype, call


def lrn(
    x: int,
    grad: int | None,
    out: int,
    dtype: Dtype,
    shape: Sequence[int],
    channels_last: bool,
    rule: tuple[int, float, float, float],
    columns: int,
    threads: int,
) -> None:
    """Normalize across neighbouring maps of each column; `rule` is size, α, β, k. Raises MemoryError."""
    n, c, h, w = shape
    call("lrn", x, grad, out, dtype, n, c, h * w, channels_last, columns, *rule, threads)


def map_norm(
    x: int,
    grad: int | None,
    out: int,
    dtype: Dtype,
    shape: Sequence[int],
    channels_last: bool,
    rule: tuple[int, float, float, float],
    threads: int,
) -> None:
    """Normalize within each map; `rule` is size, α, β, k. Raises MemoryError."""
    call("map_norm", x, grad, out, dtype, *shape, channels_last, *rule, threads)
