"""The forward pass in plain NumPy: one function for each operation, on channels-last maps.

What the compiled operations are tested against, and what computes where there is no compiled library. Maps are float32
whatever the precision; in bfloat16 their values are rounded after every operation.

Shapes: `N` images, `S` side of a square, `V` of a view, `H W` rows and columns in, `P Q` out, `C` maps and `O` kernels
of all `G` groups, `K` kernel side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from alexnet.architecture import LRN, MapNorm, output_side, pooled_side
from alexnet.engine.quantization import Quantizer, WholeWeights

Floats = NDArray[np.float32]
PATCHES = 32 << 20  # bytes of patches that are held at once


def crop(
    squares: NDArray[np.uint8], view: tuple[int, int, bool], side: int, mean: Floats | None, scale: Floats | None
) -> Floats:
    """One view (top, left, mirror) of squares (N, S, S, 3): less the mean image, times `scale` → (N, V, V, 3)."""
    top, left, mirror = view
    place = np.s_[top : top + side, left : left + side]
    out = squares[:, place[0], place[1]].astype(np.float32)
    if mean is not None:
        out -= mean[place]
    if scale is not None:
        out *= scale
    return np.ascontiguousarray(out[:, :, ::-1]) if mirror else out


def convolve(
    x: Floats, weight: Floats, bias: Floats, stride: int = 1, pad: int = 0, ceil: bool = True, groups: int = 1
) -> Floats:
    """(N, H, W, C) by kernels (O, C / G, K, K) → (N, P, Q, O), sized as `output_side` says (paper §3.5).

    Computed in the type of the maps.
    """
    n, h, w, maps = x.shape
    kernels, own, size, _ = weight.shape
    p, q = (output_side(side, size, stride, pad, ceil) for side in (h, w))
    windows = _windows(x, size, stride, pad, p, q).transpose(0, 1, 2, 4, 5, 3)  # (N, P, Q, K, K, C)
    factors = weight.astype(x.dtype, copy=False).reshape(groups, kernels // groups, own, size, size)
    factors = factors.transpose(0, 3, 4, 2, 1).reshape(groups, size * size * own, kernels // groups)
    out = np.empty((n, p, q, kernels), x.dtype)
    row = q * size * size * own * x.itemsize
    rows = max(1, min(p, PATCHES // row))
    images = max(1, PATCHES // (row * rows))
    for first in range(0, n, images):
        for top in range(0, p, rows):
            some = windows[first : first + images, top : top + rows]
            into = out[first : first + images, top : top + rows]
            for g in range(groups):
                patches = some[..., g * own : (g + 1) * own].reshape(-1, size * size * own)
                part = np.s_[..., g * kernels // groups : (g + 1) * kernels // groups]
                into[part] = (patches @ factors[g]).reshape(into[part].shape)
    out += bias
    return out


def whole_convolve(x: Floats, weights: WholeWeights, quantizer: Quantizer, **sizes: Any) -> Floats:
    """`convolve` in int8: whole numbers are multiplied and added up exactly, and brought back to float32."""
    levels = quantizer(x).astype(np.float64) - quantizer.zero  # exact, and zeros around the maps are zeros
    sums: Any = convolve(levels, weights.weight, 0, **sizes)  # type: ignore[arg-type]
    return _brought_back(sums, weights, quantizer)


def whole_full(x: Floats, weights: WholeWeights, quantizer: Quantizer) -> Floats:
    """`full` in int8, as `whole_convolve`."""
    levels = quantizer(x).astype(np.float64) - quantizer.zero
    rows = range(0, len(weights.weight), 256)
    sums = [levels @ weights.weight[row : row + 256].T.astype(np.float64) for row in rows]
    return _brought_back(np.concatenate(sums, 1), weights, quantizer)


def _brought_back(sums: NDArray[np.float64], weights: WholeWeights, quantizer: Quantizer) -> Floats:
    zeros = quantizer.zero * weights.weight.reshape(len(weights.weight), -1).sum(1, dtype=np.int64)
    return (sums + zeros).astype(np.float32) * weights.scale + weights.bias


def local(x: Floats, weight: Floats, bias: Floats, size: int, pad: int) -> Floats:
    """(N, H, W, C) by kernels of each place, weight (P·Q, C·K·K, O) and bias (P·Q, O) → (N, P, Q, O)."""
    n, h, w, _ = x.shape
    p, q = (output_side(side, size, 1, pad) for side in (h, w))
    patches = _windows(x, size, 1, pad, p, q).reshape(n, p * q, -1)
    out = (patches.transpose(1, 0, 2) @ weight).transpose(1, 0, 2) + bias
    return np.ascontiguousarray(out.reshape(n, p, q, -1))


def full(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """(N, inputs) by (units, inputs) → (N, units)."""
    out: Floats = x @ weight.T
    out += bias
    return out


def relu(x: Floats) -> Floats:
    """Rectify in place; what is not a number stays."""
    return np.maximum(x, np.float32(0), out=x)


def tanh(x: Floats) -> Floats:
    """The hyperbolic tangent, in place."""
    return np.tanh(x, out=x)


def normalization_rule(layer: LRN | MapNorm) -> tuple[int, float, float, float]:
    """Size, α (divided where the layer says so), β and k."""
    members = layer.size if isinstance(layer, LRN) else layer.size**2
    return layer.size, layer.alpha / members if layer.divide else layer.alpha, layer.beta, layer.k


def normalize(x: Floats, layer: LRN | MapNorm, columns: int = 1) -> Floats:
    """(N, H, W, C) normalized as a layer says, across the maps of each column or within each map."""
    rule = normalization_rule(layer)
    return lrn(x, *rule, columns) if isinstance(layer, LRN) else map_norm(x, *rule)


def lrn(x: Floats, size: int, alpha: float, beta: float, k: float, columns: int = 1) -> Floats:
    """(N, H, W, C) normalized across `size` neighbouring maps of each column (paper §3.3)."""
    a = x.reshape(*x.shape[:3], columns, -1)
    squares = np.pad(a * a, [(0, 0)] * 4 + [(size // 2, (size - 1) // 2)])
    total = np.asarray(sum(squares[..., j : j + a.shape[-1]] for j in range(size)))
    return x * _power(total, alpha, beta, k).reshape(x.shape)


def map_norm(x: Floats, size: int, alpha: float, beta: float, k: float) -> Floats:
    """(N, H, W, C) normalized within each map over size×size neighbours (2012 source)."""
    _, h, w, _ = x.shape
    sides = (size // 2, (size - 1) // 2)
    total = np.pad(x * x, [(0, 0), sides, sides, (0, 0)])
    total = np.asarray(sum(total[:, j : j + h] for j in range(size)))
    total = np.asarray(sum(total[:, :, j : j + w] for j in range(size)))
    return x * _power(total, alpha, beta, k)


def pool(x: Floats, size: int, stride: int, ceil: bool, kind: str = "max") -> Floats:
    """(N, H, W, C) → (N, P, Q, C): `kind` max or avg of windows cut at the edges (paper §3.4)."""
    n, h, w, maps = x.shape
    p, q = (pooled_side(side, size, stride, ceil) for side in (h, w))
    out = np.full((n, p, q, maps), -np.inf if kind == "max" else 0, np.float32)
    for row in range(size):
        for column in range(size):
            values = x[:, row::stride, column::stride][:, :p, :q]
            into = out[:, : values.shape[1], : values.shape[2]]
            (np.maximum if kind == "max" else np.add)(into, values, out=into)
    if kind == "avg":
        high, wide = (np.minimum(size, side - stride * np.arange(count)) for side, count in ((h, p), (w, q)))
        out /= np.outer(high, wide)[..., None].astype(np.float32)
    return out


def flatten(x: Floats) -> Floats:
    """Maps (N, H, W, C) → (N, C·H·W): map by map, as the weights of fully-connected layers lie."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def softmax(logits: Floats) -> Floats:
    """(N, C) → probabilities, float32."""
    out = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(out / out.sum(1, keepdims=True), np.float32)


def to_bfloat16(x: Floats) -> NDArray[np.uint16]:
    """The bits of float32 numbers rounded to bfloat16, to nearest even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    out = ((u + (np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)
    out[np.isnan(x)] = 0x7FC0
    return out


def from_bfloat16(x: NDArray[np.uint16]) -> Floats:
    """The float32 numbers that bfloat16 bits stand for."""
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(x: Floats) -> Floats:
    """float32 numbers rounded to bfloat16."""
    return from_bfloat16(to_bfloat16(x))


def _windows(x: Floats, size: int, stride: int, pad: int, p: int, q: int) -> Floats:
    """(N, H, W, C) → a view (N, P, Q, C, K, K), zeros outside the maps."""
    sides = [
        (pad, max(0, (count - 1) * stride + size - pad - side)) for count, side in ((p, x.shape[1]), (q, x.shape[2]))
    ]
    if any(map(any, sides)):
        x = np.pad(x, [(0, 0), *sides, (0, 0)])
    return sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride][:, :p, :q]


def _power(total: Floats, alpha: float, beta: float, k: float) -> Floats:
    return np.asarray((np.float32(k) + np.float32(alpha) * total) ** np.float32(-beta), np.float32)
