"""The layers of a network as calls of compiled kernels, with weights laid out as those read them.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps, `O` kernels, `K` kernel side.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, Local, MapNorm, Network, Pool
from alexnet.engine import forward, normalization
from alexnet.engine.convolution import ConvGeometry, Convolution
from alexnet.engine.full import Full as FullProducts
from alexnet.engine.library import Dtype
from alexnet.engine.plain import normalization_rule, to_bfloat16
from alexnet.engine.plan import Call, Maps, Operation
from alexnet.engine.pooling import Pooling
from alexnet.engine.preparation import Step
from alexnet.engine.quantization import Quantizer, WholeWeights


@dataclass(frozen=True)
class Weights:
    """A layer's weights as its kernel reads them, its biases, and in int8 what a unit of each sum is worth."""

    laid_out: NDArray[np.generic]
    dtype: Dtype  # of the products
    bias: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    quantizer: tuple[float, float] = (0.0, 0.0)  # of what the layer takes

    @property
    def scale_address(self) -> int | None:
        """Where `scale` lies."""
        return None if self.scale is None else self.scale.ctypes.data


class Layers:
    """The operations of a network's layers, for any number of images."""

    def __init__(
        self, network: Network, steps: Sequence[Step], dtype: Dtype, threads: int, quantizers: Mapping[str, Quantizer]
    ) -> None:
        """Lay out the weights in `dtype`, and in int8 where a layer has a quantizer.

        Biases stay float32, and so does what the last layer gives.
        """
        self.steps, self.dtype, self.threads = steps, dtype, threads
        self.activation = network.activation
        self.weights = [self._laid_out(step, quantizers.get(step.entry.name)) for step in steps]

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

    def _laid_out(self, step: Step, quantizer: Quantizer | None) -> Weights:
        layer, weight, bias, dtype = step.entry.layer, step.weight, step.bias, self.dtype
        scale, levels = None, (0.0, 0.0)
        laid_out: NDArray[np.generic]
        if quantizer is not None:
            whole = WholeWeights.of(weight, bias, quantizer)
            laid_out, bias, scale, dtype = whole.weight, whole.bias, whole.scale, Dtype.INT8
            levels = (quantizer.factor, float(quantizer.zero))
        elif isinstance(layer, Local):  # (places, K·K, C, O)
            local = weight.reshape(len(weight), step.entry.inputs[0], -1, layer.kernels).transpose(0, 2, 1, 3)
            laid_out = to_bfloat16(local) if dtype == Dtype.BFLOAT16 else np.ascontiguousarray(local)
        elif isinstance(layer, Full) and dtype == Dtype.BFLOAT16:
            laid_out = to_bfloat16(weight)
        else:
            laid_out = weight
        if isinstance(layer, Conv):
            stored = Dtype.FLOAT32 if quantizer is None else Dtype.INT8
            made = self._convolution_of(step, layer, self._maps(step.entry.inputs, 1), dtype)
            laid_out = made.pack(laid_out.ctypes.data, stored, self.threads)
        return Weights(laid_out, dtype, bias, scale, levels)

    def _operation(self, i: int, images: int, relu: bool, name: str) -> Operation:
        layer, shape = self.steps[i].entry.layer, self.steps[i].entry.shape
        given, out = self.given(i, images), self._maps(shape, images)
        match layer:
            case Conv():
                return Operation(name, out, self._convolution(i, layer, given, out, relu))
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

    def _convolution_of(self, step: Step, layer: Conv, given: Maps, dtype: Dtype) -> Convolution:
        (_, height, width, _), stride = given.shape, layer.stride
        down, right = (-(side + 2 * layer.pad - layer.size) % stride if layer.ceil else 0 for side in (height, width))
        geometry = ConvGeometry(layer.size, stride, (layer.pad, layer.pad + down, layer.pad, layer.pad + right))
        return Convolution(given.shape, layer.kernels, step.groups, geometry, dtype)

    def _convolution(self, i: int, layer: Conv, given: Maps, out: Maps, relu: bool) -> Call:
        w, threads = self.weights[i], self.threads
        made = self._convolution_of(self.steps[i], layer, given, w.dtype)
        weight, bias, scale = w.laid_out.ctypes.data, w.bias.ctypes.data, w.scale_address
        kinds = given.dtype, out.dtype
        return lambda x, to: made.packed(x, kinds[0], weight, bias, to, kinds[1], relu, threads, w.quantizer, scale)

    def _full(self, i: int, given: Maps, out: Maps, relu: bool) -> Call:
        w, threads = self.weights[i], self.threads
        made = FullProducts(given.shape[0], given.shape[1], out.shape[1], w.dtype)
        weight, bias, scale = w.laid_out.ctypes.data, w.bias.ctypes.data, w.scale_address
        kinds = given.dtype, w.dtype, out.dtype
        return lambda x, to: made.forward(
            x, kinds[0], weight, kinds[1], bias, to, kinds[2], threads, relu, w.quantizer, scale
        )

    def _local(self, i: int, layer: Local, given: Maps, relu: bool) -> Call:
        _, rows, columns = self.steps[i].entry.shape
        weight, bias, threads = self.weights[i].laid_out.ctypes.data, self.steps[i].bias.ctypes.data, self.threads
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
