"""Calls of the compiled convolution on channels-last maps.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels of one group, `K` kernel side,
`G` groups. Arguments are addresses: maps (N, H, W, G·C) contiguous, weights (G·O, K, K, C) contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.library import Dtype, call, int64s, library
from alexnet.environment import instruction_sets


@cache
def supported_dtypes() -> frozenset[Dtype]:
    """The arithmetics in which the compiled convolution is the faster one on this processor; none without it."""
    if library() is None:
        return frozenset()
    if instruction_sets()[1] == "amx-bf16":  # whose matrix units torch uses
        return frozenset((Dtype.FLOAT32,))
    return frozenset((Dtype.FLOAT32, Dtype.BFLOAT16))


@dataclass(frozen=True)
class ConvGeometry:
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


class Convolution:
    """One convolution of maps (N, H, W, G·C) by `kernels` G·O in `groups` G. Its calls raise MemoryError."""

    def __init__(self, maps: Sequence[int], kernels: int, groups: int, geometry: ConvGeometry, dtype: Dtype) -> None:
        sides = geometry.sides(maps[1], maps[2])
        pad = geometry.pad
        self.out = (maps[0], *sides, kernels)  # (N, P, Q, G·O)
        self.dtype = dtype  # of the products, the output and its gradient
        self.gives_grad_input = geometry.stride == 1 and max(pad[0], pad[2]) < geometry.size
        self._sizes = int64s((*maps, groups, kernels, geometry.size, geometry.stride, pad[0], pad[2], *sides))

    def forward(
        self, x: int, x_dtype: Dtype, weight: int, weight_dtype: Dtype, bias: int, out: int, relu: bool, threads: int
    ) -> None:
        """Write `out` (N, P, Q, G·O), rectified where `relu`; `bias` is float32, `x` and `weight` that or bfloat16."""
        call("conv_forward", self._sizes, self.dtype, x, x_dtype, weight, weight_dtype, bias, out, relu, threads)

    def pack(self, weight: int, weight_dtype: Dtype, threads: int) -> NDArray[np.uint8]:
        """Weights (G·O, C, K, K), in int8 of that type, laid out as `packed` reads them."""
        size = np.zeros(1, np.int64)
        arguments = (self._sizes, self.dtype, weight, weight_dtype)
        call("conv_pack", *arguments, None, size.ctypes.data, threads)
        room = np.empty(size[0] + 64, np.uint8)
        packed = room[-room.ctypes.data % 64 :][: size[0]]  # from the start of a cache line
        call("conv_pack", *arguments, packed.ctypes.data, size.ctypes.data, threads)
        return packed

    def packed(
        self, x: int, x_dtype: Dtype, weight: int, bias: int, out: int, out_dtype: Dtype, relu: bool, threads: int,
        quantizer: tuple[float, float] = (0.0, 0.0), scale: int | None = None,
    ) -> None:  # fmt: skip
        """As `forward`, by packed weights, to `out` of its own dtype.

        In int8 the quantizer, a factor and a zero, makes numbers 0..127 of `x`; `scale` (G·O,) float32 is what a unit
        of each sum is worth, and `bias` lacks what the zero adds.
        """
        call(
            "conv_packed", self._sizes, self.dtype, x, x_dtype, weight, bias, *quantizer, scale, out, out_dtype, relu,
            threads,
        )  # fmt: skip

    def grad_input(self, grad: int, gate: int | None, weight: int, weight_dtype: Dtype, out: int, threads: int) -> None:
        """`grad` (N, P, Q, G·O), counted where `gate` (if given) is above 0 → `out` (N, H, W, G·C).

        Call where `gives_grad_input`.
        """
        call("conv_grad_input", self._sizes, self.dtype, grad, gate, weight, weight_dtype, out, threads)

    def grad_weights(
        self, x: int, x_dtype: Dtype, grad: int, gate: int | None, weight: int, bias: int, threads: int
    ) -> None:
        """Write the gradients by the weights (G·O, K, K, C) and biases (G·O,), both float32."""
        call("conv_grad_weights", self._sizes, self.dtype, x, x_dtype, grad, gate, weight, bias, threads)
