"""int8 arithmetic: weights in whole numbers per output channel, activations in whole numbers per tap.

Activations are 0..`LEVELS`, so that the sum of two products with a weight fits 16 bits, which AVX2 adds them up in.
Sums are whole; each is brought back to float32 by its channel's scale. Shapes: `O` kernels or units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, MapNorm, Network, Pool
from alexnet.engine.preparation import Floats
from alexnet.errors import UsageError, quoted

LEVELS = 127
IMAGE = "image"  # among taps, what the first layer takes


@dataclass(frozen=True)
class Quantizer:
    """Numbers as whole ones: times `factor`, plus the level `zero` that stands for 0, rounded, within 0..`levels`."""

    factor: float
    zero: int
    levels: int = LEVELS

    @classmethod
    def of(cls, low: float, high: float, levels: int = LEVELS) -> Quantizer:
        """That of numbers from `low`, at most 0, to `high`, at least 0."""
        factor = levels / max(high - low, 1e-30)
        return cls(factor, round(-low * factor), levels)

    def __call__(self, x: Floats) -> NDArray[np.uint8]:
        """float32 numbers → levels."""
        shifted = x * np.float32(self.factor) + np.float32(self.zero + 0.5)
        return np.asarray(np.clip(shifted, 0, self.levels)).astype(np.uint8)


@dataclass(frozen=True)
class WholeWeights:
    """Weights of a layer in int8 (O, …), what a unit of each sum is worth (O,), and biases less what zeros add (O,)."""

    weight: NDArray[np.int8]
    scale: Floats
    bias: Floats

    @classmethod
    def of(cls, weight: Floats, bias: Floats, quantizer: Quantizer) -> WholeWeights:
        """Round the weights of each kernel or unit to -127..127 of the largest among them."""
        rows = weight.reshape(len(weight), -1)
        most = np.maximum(np.abs(rows).max(1), np.float32(1e-30))
        whole = np.rint(rows * (np.float32(127) / most)[:, None]).astype(np.int8)
        scale = (most.astype(np.float64) / 127 / quantizer.factor).astype(np.float32)
        zeros = scale.astype(np.float64) * quantizer.zero * whole.sum(1, dtype=np.int64)
        return cls(whole.reshape(weight.shape), scale, (bias - zeros).astype(np.float32))


def sources(network: Network) -> dict[str, str]:
    """By the name of each layer that int8 can be had for, the tap that it takes, and `IMAGE` for the image itself.

    What dropout passes on is the tap before it.
    """
    found: dict[str, str] = {}
    tap = IMAGE
    for layer in network.layers:
        if isinstance(layer, Conv | Full):
            found[layer.name] = tap
        if not isinstance(layer, Dropout):
            tap = network.tap(layer)
    return found


def quantizers(network: Network, ranges: Mapping[str, float], image: tuple[float, float]) -> dict[str, Quantizer]:
    """The quantizer of what a layer takes, by the layer's name; a layer whose source has no range has none.

    `ranges` are the largest absolute values of taps, and of `IMAGE`, whose numbers lie within `image`. Raises
    UsageError for a range of another tap than the `sources`, and for one that is not a number above 0.
    """
    found: dict[str, Quantizer] = {}
    taps = sources(network)
    for name, most in ranges.items():
        if name not in taps.values():
            known = ", ".join(taps.values())
            raise UsageError(f"ranges have {quoted(name)}, which no layer of {network.name} takes; they take {known}")
        if not (isinstance(most, float | int) and 0 < most < float("inf")):
            raise UsageError(f"the range of {name}, {quoted(most)}, should be a number above 0")
    positive = False
    for layer in network.layers:
        source = taps.get(layer.name, "")
        if source in ranges:
            most = float(ranges[source])
            limits = (max(-most, image[0]), min(most, image[1])) if source == IMAGE else (-most, most)
            found[layer.name] = Quantizer.of(0.0 if positive else limits[0], limits[1])
        if isinstance(layer, Activation):
            positive = network.activation == "relu"
        elif not isinstance(layer, LRN | MapNorm | Pool | Dropout):
            positive = False
    return found


def view_limits(mean: Floats | None, scale: Floats | None) -> tuple[float, float]:
    """The least and the largest number that a pixel of a view can be, and 0: less the mean, times the scale."""
    means = np.zeros((1, 3), np.float32) if mean is None else mean.reshape(-1, 3)
    edges = np.stack([0 - means, 255 - means]) * (1 if scale is None else scale)
    return min(0.0, float(edges.min())), max(0.0, float(edges.max()))
