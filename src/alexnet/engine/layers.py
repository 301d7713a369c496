"""The layers of a network as calls of compiled kernels, with weights laid out as those read them.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps, `O` kernels, `K` kernel side.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, Local, MapNorm, Network, Pool
from alexnet.engine import forward, normalization
from alexnet.engine.convolution import ConvGeometry, Convolution
from alexnet.engine.library import Dtype
from alexnet.engine.plain import normalization_rule, to_bfloat16
from alexnet.engine.plan import Call, Maps, Operation
from alexnet.engine.pooling import Pooling
from alexnet.engine.preparation import Step


class Layers:
    """The operations of a network's layers, for any number of images."""

    def __init__(self, network: Network, steps: Sequence[Step], dtype: Dtype, threads: int) -> None:
        """Lay out the weights in `dtype`; biases stay float32, and so does what the last layer gives."""
        self.steps, self.dtype, self.threads = steps, dtype, threads
        self.activation = network.activation
        self.weights = [self._laid_out(step) for step in steps]

    def operations(self, layers: range, images: int, wanted: Collection[str]) -> list[Operation]:
        """Those of some layers. A ReLU is part of the layer before it, unless that one's own output is wanted."""
        operations: list[Operation] = []
        for i in layers:
            before = self.steps[i - 1].entry if operations else None
            rectifies = isinstance(self.steps[i].entry.layer, Activation) and self.activation == "relu"
            fuses = before is not None and isinstance(before.layer, Conv | Local | Full) and before.name not in wanted
            if rectifies and fuses:
                operations[-1] = self._operation(i - 1, images, relu=True, name=self.steps[i].entry.name)
            else:
                operations.append(self._operation(i, images, relu=False, name=self.steps[i].entry.name))
        return operations

    def given(self, layer: int, images: int, flat: bool | None = None) -> Maps:
        """What a layer takes: maps, or vectors where it is fully-connected, unless `flat` says otherwise."""
        flat = isinstance(self.steps[layer].entry.layer, Full) if flat is None else flat
        shape = self.steps[layer].entry.inputs
        return self._maps((math.prod(shape),) if flat else shape, images)

    def _maps(self, shape: tuple[int, ...], images: int) -> Maps:
        return Maps((images, *shape[1:], shape[0]), self.dtype)

    def _laid_out(self, step: Step) -> NDArray[np.generic]:
        layer, weight = step.entry.layer, step.weight
        if isinstance(layer, Conv):
            weight = weight.transpose(0, 2, 3, 1)  # (O, K, K, C)
        elif isinstance(layer, Local):  # (places, K·K, C, O)
            weight = weight.reshape(len(weight), step.entry.inputs[0], -1, layer.kernels).transpose(0, 2, 1, 3)
        return to_bfloat16(weight) if self.dtype == Dtype.BFLOAT16 else np.ascontiguousarray(weight)

    def _operation(self, i: int, images: int, relu: bool, name: str) -> Operation:
        layer, shape = self.steps[i].entry.layer, self.steps[i].entry.shape
        given, out = self.given(i, images), self._maps(shape, images)
        match layer:
            case Conv():
                return Operation(name, out, self._convolution(i, layer, given, relu))
            case Local():
                return Operation(name, out, self._local(i, layer, given, relu))
            case Full():
                out = Maps(out.shape, Dtype.FLOAT32) if i == len(self.steps) - 1 else out
                return Operation(name, out, self._full(i, given, out, relu))
            case Pool():
                return Operation(name, out, self._pooling(layer, given))
            case LRN() | MapNorm():
                return Operation(name, out, self._normalization(i, layer, given), in_place=True)
            case Activation():
                work, count = getattr(forward, self.activation), math.prod(out.shape)
                return Operation(name, out, lambda x, _: work(x, self.dtype, count, self.threads), in_place=True)
            case Dropout():
                return Operation(name, out, lambda x, _: None, in_place=True)

    def _convolution(self, i: int, layer: Conv, given: Maps, relu: bool) -> Call:
        (_, height, width, _), stride = given.shape, layer.stride
        down, right = (-(side + 2 * layer.pad - layer.size) % stride if layer.ceil else 0 for side in (height, width))
        geometry = ConvGeometry(layer.size, stride, (layer.pad, layer.pad + down, layer.pad, layer.pad + right))
        made = Convolution(given.shape, layer.kernels, self.steps[i].groups, geometry, self.dtype)
        return self._products(i, made, relu)

    def _full(self, i: int, given: Maps, out: Maps, relu: bool) -> Call:
        n, inputs = given.shape
        geometry = ConvGeometry(1, 1, (0, 0, 0, 0))
        return self._products(i, Convolution((n, 1, 1, inputs), out.shape[1], 1, geometry, out.dtype), relu)

    def _products(self, i: int, made: Convolution, relu: bool) -> Call:
        weight, bias = self.weights[i].ctypes.data, self.steps[i].bias.ctypes.data
        dtype, threads = self.dtype, self.threads
        return lambda x, out: made.forward(x, dtype, weight, dtype, bias, out, relu, threads)

    def _local(self, i: int, layer: Local, given: Maps, relu: bool) -> Call:
        _, rows, columns = self.steps[i].entry.shape
        weight, bias, threads = self.weights[i].ctypes.data, self.steps[i].bias.ctypes.data, self.threads
        made = forward.Local(given.shape, layer.kernels, layer.size, layer.pad, (rows, columns), self.dtype)
        return lambda x, out: made.forward(x, weight, bias, out, relu, threads)

    def _pooling(self, layer: Pool, given: Maps) -> Call:
        made, threads = Pooling(given.shape, layer.size, layer.stride, layer.ceil, self.dtype), self.threads
        if layer.kind == "max":
            return lambda x, out: made.forward(x, out, None, threads)
        return lambda x, out: made.average(x, out, threads)

    def _normalization(self, i: int, layer: LRN | MapNorm, given: Maps) -> Call:
        n, height, width, maps = given.shape
        rule, sizes = normalization_rule(layer), (n, maps, height, width)
        dtype, columns, threads = self.dtype, self.steps[i].groups, self.threads
        if isinstance(layer, LRN):
            return lambda x, out: normalization.lrn(x, None, out, dtype, sizes, True, rule, columns, threads)
        return lambda x, out: normalization.map_norm(x, None, out, dtype, sizes, True, rule, threads)
