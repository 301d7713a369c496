"""Calls of the compiled operations that only prediction needs, on channels-last maps.

Shapes: `N` images, `S` side of a square, `V` of a view, `H W` rows and columns, `C` maps, `O` kernels, `K` kernel side.
Arguments are addresses of contiguous memory; maps are float32 or bfloat16. All raise MemoryError.
"""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.engine.library import Dtype, call, int64s


def crop(
    squares: int,
    shape: tuple[int, int],
    view: tuple[int, int, bool],
    side: int,
    mean: int | None,
    scale: int | None,
    out: int,
    dtype: Dtype,
    threads: int,
) -> None:
    """One view (top, left, mirror) of uint8 squares (N, S, S, 3) → (N, V, V, 3); `shape` is N and S, `side` is V.

    `mean` (S, S, 3) is subtracted, the difference multiplied by `scale` (3,): float32, or None.
    """
    call("crop", int64s((*shape, *view, side)), squares, mean, scale, out, dtype, threads)


class Local:
    """A locally-connected layer of maps (N, H, W, C) by `kernels` O of side K at every place."""

    def __init__(
        self, maps: Sequence[int], kernels: int, size: int, pad: int, sides: tuple[int, int], dtype: Dtype
    ) -> None:
        n, h, w, c = maps
        self.dtype = dtype
        self._sizes = int64s((n, h, w, c, size, pad, *sides, kernels))

    def forward(self, x: int, weight: int, bias: int, out: int, relu: bool, threads: int) -> None:
        """`weight` (places, K, K, C, O) of the maps' type, `bias` (places, O) float32 → (N, places, O)."""
        call("local", self._sizes, self.dtype, x, weight, bias, out, relu, threads)


def flatten(x: int, out: int, element: int, maps: Sequence[int], threads: int) -> None:
    """(N, H, W, C) → (N, C, H, W), elements of 1, 2 or 4 bytes."""
    n, h, w, c = maps
    call("flatten", x, out, element, n, h * w, c, threads)


def relu(x: int, dtype: Dtype, count: int, threads: int) -> None:
    """Rectify `count` numbers in place."""
    call("relu", x, dtype, count, threads)


def tanh(x: int, dtype: Dtype, count: int, threads: int) -> None:
    """The hyperbolic tangents of `count` numbers, in place."""
    call("tanh", x, dtype, count, threads)


def softmax(x: int, rows: int, columns: int, threads: int) -> None:
    """Rows of float32 logits to probabilities, in place."""
    call("softmax", x, rows, columns, threads)
