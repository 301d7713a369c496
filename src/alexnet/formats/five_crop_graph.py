"""Five crops of a square as one graph that computes the first layer once (paper §4.1).

The crops start at multiples of the first convolution's stride, so that their outputs are windows of one convolution
over the whole square; so is whatever works position by position behind it. Only the last row and column of a crop,
where zeros complete the window, are its own. Shapes: `M` squares, `S` their side, `C` side of a crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alexnet import architecture
from alexnet.architecture import LayerShape, Network
from alexnet.formats.onnx_graph import Builder

if TYPE_CHECKING:
    import onnx
    from torch import Tensor


def shares(network: Network, square: int) -> bool:
    """Whether the four corners and the centre of a square of that side share the first layer's windows."""
    first = network.layers[0] if network.layers else None
    if not isinstance(first, architecture.Conv) or first.pad:
        return False
    return all(offset % first.stride == 0 for offset in _offsets(network, square)) and square <= 2 * network.image


def views_graph(network: Network, weights: dict[str, Tensor], square: int) -> onnx.ModelProto:
    """Squares `images` (M, 3, S, S), centred → `logits` (5·M, classes): all squares' first crop, then the second, …

    The crops are the four corners and the centre. Raises Unsupported as `graph` does; `shares` says where it applies.
    """
    assert shares(network, square)
    builder = _Shared(network, False, weights)
    measured = architecture.infer_shapes(network)
    pointwise = 1
    while isinstance(measured[pointwise].layer, architecture.Activation | architecture.LRN):
        pointwise += 1
    builder.crops(measured[:pointwise], square)
    for entry in measured[pointwise:]:
        builder.add(entry)
    return builder.model(square, "V")


def _offsets(network: Network, square: int) -> tuple[int, int]:
    edge = square - network.image
    return edge, edge // 2


class _Shared(Builder):
    def crops(self, layers: list[LayerShape], square: int) -> None:
        """The first layers of all five crops, one after the other along the batch."""
        first = layers[0].layer
        assert isinstance(first, architecture.Conv)
        edge, centre = _offsets(self.network, square)
        stride, side, out = first.stride, self.network.image, layers[0].shape[1]
        inside = 1 + (side - first.size) // stride  # windows of a row that need no zeros
        over, rest = self._ceil(first, layers[0])[2], side - inside * stride
        shared = self._part(layers, "images", "/square", (over, over))
        crops: list[list[str]] = []
        for row, column in ((0, 0), (0, edge), (edge, 0), (edge, edge), (centre, centre)):
            tag = f"/{row}-{column}"
            rows, columns = (out if offset == edge else inside for offset in (row, column))
            values = [self._slice(value, tag, (row // stride, column // stride), (rows, columns)) for value in shared]
            if columns < out:
                strip = self._slice("images", tag + "r", (row, column + inside * stride), (side, rest))
                own = self._part(layers, strip, tag + "r", (over if rows == out else 0, over))
                values = [self._node("Concat", [a, b], f"{a}/right", axis=3) for a, b in zip(values, own, strict=True)]
            if rows < out:
                strip = self._slice("images", tag + "b", (row + inside * stride, column), (rest, side))
                own = self._part(layers, strip, tag + "b", (over, over))
                values = [self._node("Concat", [a, b], f"{a}/bottom", axis=2) for a, b in zip(values, own, strict=True)]
            crops.append(values)
        name = layers[-1].name
        several = len(shared) > 1
        self.branches = [
            self._node("Concat", list(values), f"{name}/crops.{i}" if several else f"{name}/crops", axis=0)
            for i, values in enumerate(zip(*crops, strict=True))
        ]

    def _part(self, layers: list[LayerShape], source: str, tag: str, over: tuple[int, int]) -> list[str]:
        """The layers on a part of the squares, with zeros below and to the right."""
        self.branches, self.tag = [source], tag
        first = layers[0].layer
        assert isinstance(first, architecture.Conv)
        self._convolution(first, layers[0], [0, 0, *over])
        for entry in layers[1:]:
            self.add(entry)
        values, self.tag = self.branches, ""
        return values

    def _slice(self, value: str, tag: str, start: tuple[int, int], size: tuple[int, int]) -> str:
        ends = [a + n for a, n in zip(start, size, strict=True)]
        bounds = [
            self._constant(f"{value}{tag}/{name}", np.array(numbers, np.int64))
            for name, numbers in (("start", start), ("end", ends), ("axes", (2, 3)))
        ]
        return self._node("Slice", [value, *bounds], f"{value}{tag}/part")
