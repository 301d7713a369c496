"""A described network as an ONNX graph of standard nodes, its columns as branches.

Between two layers that see all columns each column is a branch of its own, as in the paper's figure 2: its
convolutions are plain ones and its normalization is the standard LRN node, which every runtime computes.
Grouped convolutions without a normalization between them stay grouped.

Shapes: `N` batch, `C` maps, `H W` rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet import architecture
from alexnet.architecture import LayerShape, Network

if TYPE_CHECKING:
    import onnx

    from alexnet.checkpoint import Arrays

OPSET = 17  # known for years to the runtimes that are used
IR = 8


class Unsupported(Exception):
    """A layer that this graph has no standard node for; the exporter of torch is used instead."""


def graph(network: Network, weights: Arrays, products: bool = False) -> onnx.ModelProto:
    """The network at test time: `images` (N, 3, image, image) float32 → `logits` (N, classes).

    `weights` are by the names that they have in files. With `products` the sums of a normalization across maps are a
    product with a band of ones, in place of the LRN node. Raises Unsupported for a layer without a standard node.
    """
    builder = Builder(network, products, weights)
    for entry in architecture.infer_shapes(network):
        builder.add(entry)
    return builder.model(network.image)


class Builder:
    """Layers one after the other, on every branch there is."""

    def __init__(self, network: Network, products: bool, weights: Arrays) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.array = helper, numpy_helper.from_array
        self.network, self.products = network, products
        self.weights = {name: np.asarray(value, np.float32) for name, value in weights.items()}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.branches = ["images"]  # one value, or one per column
        self.spatial = True
        self.known: set[str] = set()

    def model(self, side: int) -> onnx.ModelProto:
        """What was added, as a model of `images` (N, 3, side, side) with logits (N, classes)."""
        self.nodes[-1].output[0] = "logits"
        from onnx import TensorProto

        helper = self.helper
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, side, side])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", self.network.classes])]
        proto = helper.make_graph(self.nodes, self.network.name, inputs, outputs, self.initializers)
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="alexnet")
        model.ir_version = IR
        return model

    def add(self, entry: LayerShape) -> None:
        """One layer, on every branch there is at this point."""
        layer, network = entry.layer, self.network
        match layer:
            case architecture.Conv():
                self._convolution(layer, entry)
            case architecture.Full():
                self._join()
                if self.spatial:
                    self._each("Flatten", entry.name + "/flat", axis=1)
                    self.spatial = False
                weight = self._constant(f"{layer.name}.weight", self.weights[f"{layer.name}.weight"])
                bias = self._constant(f"{layer.name}.bias", self.weights[f"{layer.name}.bias"])
                self._each("Gemm", entry.name, [weight, bias], transB=1)
            case architecture.Activation():
                self._each("Relu" if network.activation == "relu" else "Tanh", entry.name)
            case architecture.LRN():
                self._normalization(layer, entry)
            case architecture.MapNorm():
                self._within(layer, entry)
            case architecture.Pool():
                windows: dict[str, Any] = {"kernel_shape": [layer.size] * 2, "strides": [layer.stride] * 2}
                kind = "MaxPool" if layer.kind == "max" else "AveragePool"  # which leaves padding out of its average
                self._each(kind, entry.name, **windows, pads=self._ceil(layer, entry))
            case architecture.Dropout():
                pass
            case architecture.Local():
                raise Unsupported(f"{layer.name} is locally connected")

    def _convolution(self, layer: architecture.Conv, entry: LayerShape) -> None:
        groups = architecture.groups(self.network, layer)
        weight, bias = self.weights[f"{layer.name}.weight"], self.weights[f"{layer.name}.bias"]
        if groups == 1:
            self._join()
        # A branch per column where what follows stays in its column, or where the maps come in branches already.
        parts = self.network.columns if self._stays(layer) else len(self.branches)
        if groups > 1 and len(self.branches) == 1 and parts > 1:
            self._split(entry.inputs[0], parts)
        pads = self._ceil(layer, entry)
        branches = self.branches if len(self.branches) > 1 else self.branches * parts
        self.branches = []
        pieces = zip(branches, np.split(weight, parts), np.split(bias, parts), strict=True)
        for i, (value, kernels, biases) in enumerate(pieces):
            end = f".{i}" if parts > 1 else ""
            names = [
                self._constant(f"{layer.name}.weight{end}", kernels),
                self._constant(f"{layer.name}.bias{end}", biases),
            ]
            self.branches.append(
                self._node(
                    "Conv",
                    [value, *names],
                    entry.name + end,
                    kernel_shape=[layer.size] * 2,
                    strides=[layer.stride] * 2,
                    pads=pads,
                    group=groups if parts == 1 else 1,
                )
            )

    def _stays(self, layer: architecture.Conv) -> bool:
        """Whether the next layer that mixes maps stays in its own column."""
        layers = self.network.layers
        mixing = architecture.Conv | architecture.LRN | architecture.Full | architecture.Local
        following = next(later for later in layers[layers.index(layer) + 1 :] if isinstance(later, mixing))
        if isinstance(following, architecture.LRN) and self.products:
            return False
        return architecture.groups(self.network, following) > 1

    def _normalization(self, layer: architecture.LRN, entry: LayerShape) -> None:
        if self.products:
            self._band(layer, entry)
            return
        if layer.size % 2 == 0:
            raise Unsupported(f"{layer.name} sums over {layer.size} maps, an even number")
        if architecture.groups(self.network, layer) == 1:
            self._join()
        elif len(self.branches) == 1:
            self._split(entry.inputs[0], self.network.columns)
        alpha = layer.alpha if layer.divide else layer.alpha * layer.size  # the node divides by the size
        self._each("LRN", entry.name, size=layer.size, alpha=float(alpha), beta=float(layer.beta), bias=float(layer.k))

    def _band(self, layer: architecture.LRN, entry: LayerShape) -> None:
        """The scale as a 1×1 convolution of the squares, whose kernels are a band within each column."""
        self._join()
        maps, columns = entry.inputs[0], architecture.groups(self.network, layer)
        at = np.arange(maps)
        ahead = at[None, :] - at[:, None]  # of the map summed before the map normalized
        inside = (ahead >= -(layer.size // 2)) & (ahead <= (layer.size - 1) // 2)
        inside &= at[None, :] * columns // maps == at[:, None] * columns // maps
        alpha = layer.alpha / layer.size if layer.divide else layer.alpha
        band = (inside * alpha).astype(np.float32)[:, :, None, None]
        value, name = self.branches[0], entry.name
        square = self._node("Mul", [value, value], name + "/square")
        constants = [self._constant(name + "/band", band), self._constant(name + "/k", np.full(maps, layer.k, "f4"))]
        scale = self._node("Conv", [square, *constants], name + "/scale", kernel_shape=[1, 1])
        if layer.beta == 0.75:
            root = self._node("Sqrt", [scale], name + "/root")
            fourth = self._node("Sqrt", [root], name + "/fourth")
            power = self._node("Mul", [root, fourth], name + "/power")
        else:
            power = self._node(
                "Pow", [scale, self._constant(name + "/beta", np.array(layer.beta, "f4"))], name + "/power"
            )
        self.branches = [self._node("Div", [value, power], name)]

    def _within(self, layer: architecture.MapNorm, entry: LayerShape) -> None:
        before, after = layer.size // 2, (layer.size - 1) // 2
        alpha = layer.alpha if layer.divide else layer.alpha * layer.size**2  # the average below divides by size²
        values, self.branches = self.branches, []
        constants = [
            self._constant(f"{layer.name}/{name}", np.array(value, np.float32))
            for name, value in (("alpha", alpha), ("k", layer.k), ("beta", -layer.beta))
        ]
        for i, value in enumerate(values):
            name = f"{entry.name}.{i}" if len(values) > 1 else entry.name
            square = self._node("Mul", [value, value], name + "/square")
            mean = self._node(
                "AveragePool",
                [square],
                name + "/mean",
                kernel_shape=[layer.size] * 2,
                pads=[before, before, after, after],
                count_include_pad=1,
            )
            scaled = self._node("Mul", [mean, constants[0]], name + "/scaled")
            scale = self._node("Add", [scaled, constants[1]], name + "/scale")
            power = self._node("Pow", [scale, constants[2]], name + "/power")
            self.branches.append(self._node("Mul", [value, power], name))

    def _ceil(self, layer: architecture.Conv | architecture.Pool, entry: LayerShape) -> list[int]:
        """Padding of top, left, bottom, right that gives the measured sides: windows past the edge are completed."""
        pad = layer.pad if isinstance(layer, architecture.Conv) else 0
        after = [
            (out - 1) * layer.stride + layer.size - side - pad
            for side, out in zip(entry.inputs[1:], entry.shape[1:], strict=True)
        ]
        return [pad, pad, *(max(0, rest) for rest in after)]

    def _split(self, maps: int, parts: int) -> None:
        names = [f"{self.branches[0]}/column{i}" for i in range(parts)]
        sizes = self._constant(f"{self.branches[0]}/columns", np.array([maps // parts] * parts, np.int64))
        self.nodes.append(self.helper.make_node("Split", [self.branches[0], sizes], names, names[0], axis=1))
        self.branches = names

    def _join(self) -> None:
        if len(self.branches) > 1:
            name = self.branches[0].rpartition(".")[0] + "/columns"
            self.branches = [self._node("Concat", self.branches, name, axis=1)]

    def _each(self, kind: str, name: str, more: list[str] | None = None, **attributes: Any) -> None:
        several = len(self.branches) > 1
        self.branches = [
            self._node(kind, [value, *(more or [])], f"{name}.{i}" if several else name, **attributes)
            for i, value in enumerate(self.branches)
        ]

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def _constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(self.array(np.ascontiguousarray(value), name))
        return name
