"""What an interpreter is made of: the layers of an architecture, each with its weights, checked.

Shapes: `C` maps in, `O` kernels, `K` kernel side, `L` places of a locally-connected layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Conv, Full, LayerShape, Local, Network, groups, infer_shapes
from alexnet.errors import CheckpointError, quoted

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One layer: its sizes, into how many groups it divides its maps, its weights and biases (empty without any)."""

    entry: LayerShape
    groups: int
    weight: Floats
    bias: Floats


def weight_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a network by name, as `conv1.weight`, in the order of its layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in infer_shapes(network):
        layer = entry.layer
        weight: tuple[int, ...]
        if isinstance(layer, Conv):
            weight = (layer.kernels, entry.inputs[0] // groups(network, layer), layer.size, layer.size)
        elif isinstance(layer, Local):
            weight = (math.prod(entry.shape[1:]), entry.inputs[0] * layer.size**2, layer.kernels)
        elif isinstance(layer, Full):
            weight = (entry.shape[0], math.prod(entry.inputs))
        else:
            continue
        bias = (weight[0], layer.kernels) if isinstance(layer, Local) else weight[:1]
        shapes |= {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}
    return shapes


def prepare(network: Network, weights: Mapping[str, NDArray[np.floating]]) -> list[Step]:
    """The steps of a network's forward pass, in order.

    Weights are not copied where they are contiguous float32. Raises CheckpointError naming the first weight that is
    missing, unknown, of another shape or not of floating numbers.
    """
    shapes = weight_shapes(network)
    for name in (*shapes, *weights):
        if name not in weights:
            raise CheckpointError(f"the weights have no {name}, which the network {network.name} has")
        if name not in shapes:
            raise CheckpointError(f"the weights have {quoted(name)}, which the network {network.name} does not have")
        has = weights[name]
        if has.shape != shapes[name] or not np.issubdtype(has.dtype, np.floating):
            raise CheckpointError(f"{name} is {has.dtype} {has.shape}, but should be float32 {shapes[name]}")
    none = np.empty(0, np.float32)
    steps = []
    for entry in infer_shapes(network):
        names = (f"{entry.layer.name}.{kind}" for kind in ("weight", "bias"))
        own = [np.ascontiguousarray(weights[name], np.float32) if name in shapes else none for name in names]
        steps.append(Step(entry, groups(network, entry.layer), *own))
    return steps
