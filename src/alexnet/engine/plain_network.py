"""The forward pass of a network in plain NumPy: in float32, as bfloat16 rounds, or in int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, Local, MapNorm, Network, Pool
from alexnet.engine import plain
from alexnet.engine.preparation import Floats, Step
from alexnet.engine.quantization import Quantizer, WholeWeights

View = tuple[int, int, bool]


class PlainNetwork:
    """A network and its preprocessing, computed by `plain`. Safe to use from several threads at once."""

    def __init__(
        self,
        network: Network,
        steps: Sequence[Step],
        mean: Floats | None,
        scale: Floats | None,
        bfloat16: bool,
        quantizers: Mapping[str, Quantizer],
    ) -> None:
        """Round weights to bfloat16 here, maps as they are made; biases and the last outputs stay float32.

        Layers that have a quantizer are computed in int8.
        """
        self.network, self.mean, self.scale, self.bfloat16 = network, mean, scale, bfloat16
        self.quantizers = quantizers
        named = {step.entry.name: step for step in steps}
        self.whole = {
            name: WholeWeights.of(named[name].weight, named[name].bias, quantizer)
            for name, quantizer in quantizers.items()
        }
        self.steps = steps
        if bfloat16:
            self.steps = [dataclasses.replace(step, weight=plain.rounded(step.weight)) for step in steps]

    def forward(
        self, squares: NDArray[np.uint8], views: Sequence[View], wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Taps by name of squares (N, S, S, 3), views one after the other: (views·N, H, W, C) or (views·N, units)."""
        crops = [plain.crop(squares, view, self.network.image, self.mean, self.scale) for view in views]
        x = np.concatenate(crops) if len(crops) > 1 else crops[0]
        if self.bfloat16:
            x = plain.rounded(x)
        taps: dict[str, Floats] = {}
        for step in self.steps:
            last = step is self.steps[-1]
            out = self._apply(step, x)
            x = plain.rounded(out) if self.bfloat16 and not last else out
            if step.entry.name in wanted:
                taps[step.entry.name] = x if last else x.copy()
                if len(taps) == len(wanted):
                    break
        return taps

    def _apply(self, step: Step, x: Floats) -> Floats:
        layer = step.entry.layer
        match layer:
            case Conv():
                sizes: dict[str, Any] = {
                    "stride": layer.stride,
                    "pad": layer.pad,
                    "ceil": layer.ceil,
                    "groups": step.groups,
                }
                if layer.name in self.whole:
                    return plain.whole_convolve(x, self.whole[layer.name], self.quantizers[layer.name], **sizes)
                return plain.convolve(x, step.weight, step.bias, **sizes)
            case Local():
                return plain.local(x, step.weight, step.bias, layer.size, layer.pad)
            case Full():
                x = plain.flatten(x) if x.ndim == 4 else x
                if layer.name in self.whole:
                    return plain.whole_full(x, self.whole[layer.name], self.quantizers[layer.name])
                return plain.full(x, step.weight, step.bias)
            case Activation():
                return plain.relu(x) if self.network.activation == "relu" else plain.tanh(x)
            case LRN() | MapNorm():
                return plain.normalize(x, layer, step.groups)
            case Pool():
                return plain.pool(x, layer.size, layer.stride, layer.ceil, layer.kind)
            case Dropout():
                return x
