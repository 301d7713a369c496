"""Calls of the native convolution on channels-last maps.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels of one group, `K` kernel side,
`G` groups. Maps are (N, H, W, G·C) contiguous, weights (G·O, K, K, C) contiguous.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from alexnet.engine.build import library

HALF = torch.bfloat16


@cache
def served() -> frozenset[torch.dtype]:
    """The arithmetics in which the native convolution is the faster one on this processor; none without the library."""
    lib = library()
    kinds = lib.alexnet_products() if lib is not None else 0
    return frozenset(kind for bit, kind in ((1, torch.float32), (2, HALF)) if kinds & bit)


class Convolution:
    """One convolution's sizes: `x` (N, H, W, G·C), `kernels` G·O, the window, and (P, Q)."""

    def __init__(
        self,
        x: torch.Size,
        kernels: int,
        groups: int,
        size: int,
        stride: int,
        pad: tuple[int, int],
        sides: tuple[int, int],
    ) -> None:
        self.out = (x[0], *sides, kernels)
        self.x = x
        self._shape = (ctypes.c_int64 * 12)(*x, groups, kernels, size, stride, *pad, *sides)
        self.turns = stride == 1 and max(pad) < size  # whether `maps_gradient` can serve

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, half: bool, relu: bool) -> Tensor:
        """→ (N, P, Q, G·O), rectified where `relu`; `bias` is float32, `x` and `weight` float32 or bfloat16."""
        out = torch.empty(self.out, dtype=HALF if half else torch.float32)
        _done(
            _library().alexnet_conv_forward(
                self._shape,
                half,
                x.data_ptr(),
                x.dtype == HALF,
                weight.data_ptr(),
                weight.dtype == HALF,
                bias.data_ptr(),
                out.data_ptr(),
                relu,
                torch.get_num_threads(),
            )
        )
        return out

    def maps_gradient(self, grad: Tensor, gate: Tensor | None, weight: Tensor) -> Tensor:
        """`grad` (N, P, Q, G·O), counted where `gate` (if given) is above 0 → (N, H, W, G·C); stride 1."""
        out = torch.empty(self.x, dtype=grad.dtype)
        _done(
            _library().alexnet_conv_maps(
                self._shape,
                grad.dtype == HALF,
                grad.data_ptr(),
                _pointer(gate),
                weight.data_ptr(),
                weight.dtype == HALF,
                out.data_ptr(),
                torch.get_num_threads(),
            )
        )
        return out

    def weight_gradient(
        self, x: Tensor, grad: Tensor, gate: Tensor | None, weight: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """→ (G·O, K, K, C) and (G·O,), both float32; `x` is float32 or bfloat16, `gate` as in `maps_gradient`."""
        weights, bias = torch.empty(weight), torch.empty(weight[0])
        _done(
            _library().alexnet_conv_weights(
                self._shape,
                grad.dtype == HALF,
                x.data_ptr(),
                x.dtype == HALF,
                grad.data_ptr(),
                _pointer(gate),
                weights.data_ptr(),
                bias.data_ptr(),
                torch.get_num_threads(),
            )
        )
        return weights, bias


def _library() -> ctypes.CDLL:
    lib = library()
    assert lib is not None
    return lib


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("a convolution ran out of memory; try a smaller --train.batch_size")
