"""The layers of a network as calls of compiled kernels, with weights laid out as those read them.

Shapes: `N` images, `H W` rows and columns in, `P Q` out, `C` maps, `O` kernels, `K` kernel side.
"""

from __future__ import annotations

import dataclasses
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

Pad = tuple[int, int, int, int]  # rows and columns of zeros at the top, bottom, left and right


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

    def operations(
        self, layers: range, given: Maps, wanted: Collection[str] = (), pad: Pad | None = None
    ) -> list[Operation]:
        """Those of some layers for what the first takes. `pad` replaces the zeros around the maps of a convolution.

        A ReLU is part of the layer before it, unless that one's own output is wanted.
        """
        operations: list[Operation] = []
        before = given
        for i in layers:
            entry, relu = self.steps[i].entry, False
            if operations and isinstance(entry.layer, Activation) and self.activation == "relu":
                last = self.steps[i - 1].entry
                relu = isinstance(last.layer, Conv | Local | Full) and last.name not in wanted
            if relu:
                operations[-1] = dataclasses.replace(self._operation(i - 1, before, relu, pad), name=entry.name)
            else:
                before = operations[-1].out if operations else given
                operations.append(self._operation(i, before, relu, pad))
        return operations

    def given(self, layer: int, images: int, flat: bool | None = None) -> Maps:
        """What a layer takes: maps, or vectors where it is fully-connected, unless `flat` says otherwise."""
        flat = isinstance(self.steps[layer].entry.layer, Full) if flat is None else flat
        shape = self.steps[layer].entry.inputs
        return Maps((images, math.prod(shape)) if flat else (images, *shape[1:], shape[0]), self.dtype)

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
            shape = step.entry.inputs
            made = self._convolution_of(step, layer, (1, *shape[1:], shape[0]), dtype)
            laid_out = made.pack(laid_out.ctypes.data, stored, self.threads)
        return Weights(laid_out, dtype, bias, scale, levels)

    def _operation(self, i: int, given: Maps, relu: bool, pad: Pad | None) -> Operation:
        step, threads = self.steps[i], self.threads
        name, layer, images = step.entry.name, step.entry.layer, given.shape[0]
        match layer:
            case Conv():
                return self._convolution(i, layer, given, relu, pad)
            case Local():
                out = Maps((images, *step.entry.shape[1:], layer.kernels), self.dtype)
                return Operation(name, out, self._local(i, layer, given, relu))
            case Full():
                last = i == len(self.steps) - 1
                out = Maps((images, step.entry.shape[0]), Dtype.FLOAT32 if last else self.dtype)
                return Operation(name, out, self._full(i, given, out, relu))
            case Pool():
                return self._pooling(name, layer, given)
            case LRN() | MapNorm():
                return Operation(name, given, self._normalization(i, layer, given), in_place=True)
            case Activation():
                work, count = getattr(forward, self.activation), math.prod(given.shape)
                return Operation(name, given, lambda x, _: work(x, self.dtype, count, threads), in_place=True)
            case Dropout():
                return Operation(name, given, lambda x, _: None, in_place=True)

    def _convolution_of(
        self, step: Step, layer: Conv, maps: tuple[int, ...], dtype: Dtype, pad: Pad | None = None
    ) -> Convolution:
        if pad is None:
            room = [side + 2 * layer.pad - layer.size for side in maps[1:3]]
            down, right = (-side % layer.stride if layer.ceil else 0 for side in room)
            pad = (layer.pad, layer.pad + down, layer.pad, layer.pad + right)
        geometry = ConvGeometry(layer.size, layer.stride, pad)
        return Convolution(maps, layer.kernels, step.groups, geometry, dtype)

    def _convolution(self, i: int, layer: Conv, given: Maps, relu: bool, pad: Pad | None) -> Operation:
        w, threads = self.weights[i], self.threads
        made = self._convolution_of(self.steps[i], layer, given.shape, w.dtype, pad)
        weight, bias, scale = w.laid_out.ctypes.data, w.bias.ctypes.data, w.scale_address
        out, kinds = Maps(made.out, self.dtype), (given.dtype, self.dtype)
        return Operation(
            self.steps[i].entry.name,
            out,
            lambda x, to: made.packed(x, kinds[0], weight, bias, to, kinds[1], relu, threads, w.quantizer, scale),
        )

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

    def _pooling(self, name: str, layer: Pool, given: Maps) -> Operation:
        made, threads = Pooling(given.shape, layer.size, layer.stride, layer.ceil, self.dtype), self.threads
        out = Maps(made.out, self.dtype)
        if layer.kind == "max":
            return Operation(name, out, lambda x, to: made.forward(x, to, None, threads))
        return Operation(name, out, lambda x, to: made.average(x, to, threads))

    def _normalization(self, i: int, layer: LRN | MapNorm, given: Maps) -> Call:
        n, height, width, maps = given.shape
        rule, sizes = normalization_rule(layer), (n, maps, height, width)
        dtype, columns, threads = self.dtype, self.steps[i].groups, self.threads
        if isinstance(layer, LRN):
            return lambda x, out: normalization.lrn(x, None, out, dtype, sizes, True, rule, columns, threads)
        return lambda x, out: normalization.map_norm(x, None, out, dtype, sizes, True, rule, threads)
