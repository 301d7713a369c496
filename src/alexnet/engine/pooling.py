"""Calls of the compiled pooling on channels-last maps.

Shapes: `N` images, `C` maps, `H W` rows and columns in, `P Q` out. Arguments are addresses of contiguous memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.architecture import pooled_side
from alexnet.engine.library import Dtype, call, int64s


class Pooling:
    """Pooling of maps (N, H, W, C) over size×size windows, `stride` apart; its calls raise MemoryError."""

    def __init__(self, maps: Sequence[int], size: int, stride: int, ceil: bool, dtype: Dtype) -> None:
        n, h, w, c = maps
        sides = pooled_side(h, size, stride, ceil), pooled_side(w, size, stride, ceil)
        self.out = (n, *sides, c)  # (N, P, Q, C)
        self.dtype = dtype
        self._sizes = int64s((n, h, w, c, size, stride, *sides))

    def forward(self, x: int, out: int, places: int | None, threads: int) -> None:
        """Write the maxima and, unless None, as uint16 their places within their windows, both (N, P, Q, C)."""
        call("pool_forward", self._sizes, self.dtype, x, out, places, threads)

    def average(self, x: int, out: int, threads: int) -> None:
        """Write the averages of what is inside the windows, (N, P, Q, C)."""
        call("pool_average", self._sizes, self.dtype, x, out, threads)

    def backward(self, grad: int, places: int | None, out: int, threads: int) -> None:
        """`grad` (N, P, Q, C) → `out` (N, H, W, C): what the windows over each position send to it.

        They are those of averages where `places` is None.
        """
        call("pool_backward", self._sizes, self.dtype, grad, places, out, threads)
