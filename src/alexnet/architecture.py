"""The description of a network: frozen data that one builder turns into a model.

A `Network` is a tuple of layers in the order in which an image meets them. Nothing here needs torch, so tables of
layers, shapes and parameters are instant.

Shapes: `C` kernel maps, `H W` rows and columns of a map.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

Sees = Literal["own", "all"]


@dataclass(frozen=True)
class Conv:
    """A convolution; `sees` says whether a column's kernels see their own column's maps or every column's."""

    name: str
    kernels: int
    size: int
    stride: int = 1
    pad: int = 0
    sees: Sees = "all"
    std: float | None = 0.01  # of the initial weights; None: uniform in ±1/√fan-in
    bias: float = 0.0
    decay: float | None = None  # weight decay of this layer; None: the optimizer's
    ceil: bool = True  # sizes by ceil, zeros past the right and bottom edges, as in the 2012 code


@dataclass(frozen=True)
class Local:
    """A locally-connected layer: the connections of a convolution, but every position has kernels of its own."""

    name: str
    kernels: int
    size: int
    pad: int = 0
    std: float | None = 0.01
    bias: float = 0.0
    decay: float | None = None


@dataclass(frozen=True)
class Full:
    """A fully-connected layer, which always sees both columns."""

    name: str
    units: int | None = None  # None: one a class
    std: float | None = 0.01
    bias: float = 0.0
    decay: float | None = None


@dataclass(frozen=True)
class Activation:
    """The network's nonlinearity (`Network.activation`), element by element."""

    name: str


@dataclass(frozen=True)
class LRN:
    """Local response normalization across neighbouring kernel maps (paper §3.3)."""

    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    divide: bool = False  # α divided by the size, as libraries do; the printed sum is not
    within: Sees = "own"  # whether the sum stays in its column


@dataclass(frozen=True)
class MapNorm:
    """Normalization within each map over a size×size neighbourhood (2012 source, not in the paper)."""

    name: str
    size: int = 5
    alpha: float = 1e-3
    beta: float = 0.75
    k: float = 1.0
    divide: bool = True  # α divided by size²


@dataclass(frozen=True)
class Pool:
    """Max or average pooling over size×size windows, `stride` apart (paper §3.4)."""

    name: str
    size: int = 3
    stride: int = 2
    kind: Literal["max", "avg"] = "max"
    ceil: bool = True


@dataclass(frozen=True)
class Dropout:
    """Zero each value with probability `rate` in training; the others are scaled up by 1/(1−rate) (paper §4.2)."""

    name: str
    rate: float = 0.5


Layer = Conv | Local | Full | Activation | LRN | MapNorm | Pool | Dropout
KINDS: dict[str, type] = {c.__name__: c for c in (Conv, Local, Full, Activation, LRN, MapNorm, Pool, Dropout)}


@dataclass(frozen=True)
class Network:
    """A whole network: what it takes, its columns and its layers.

    `image` is the side of the square input in pixels; `layers` is empty for a network built by another library
    (`name` is then `torchvision:NAME`).
    """

    name: str
    image: int = 224
    classes: int = 1000
    columns: int = 2
    activation: Literal["relu", "tanh"] = "relu"
    layers: tuple[Layer, ...] = ()
    about: str = ""

    @property
    def library(self) -> str | None:
        """The library that builds this network, or None when its layers are described here."""
        return self.name.partition(":")[0] if ":" in self.name else None

    def tap(self, layer: Layer) -> str:
        """The name under which a layer's output is found: `relu1` is `tanh1` in a tanh net."""
        return layer.name.replace("relu", self.activation) if isinstance(layer, Activation) else layer.name

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; each layer says what it is (`"layer": "Conv"`)."""
        out = dataclasses.asdict(dataclasses.replace(self, layers=()))
        out["layers"] = [{"layer": type(layer).__name__, **dataclasses.asdict(layer)} for layer in self.layers]
        return out

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Network:
        """Read back what `to_dict` wrote. Raises ValueError for a kind, field or type that is not known."""
        layers: list[Layer] = []
        for entry in data["layers"]:
            fields = dict(entry)
            kind = fields.pop("layer", None)
            if kind not in KINDS:
                raise ValueError(f"layer {fields.get('name')!r} is of kind {kind!r}; known kinds: {', '.join(KINDS)}")
            try:
                layers.append(_typed(KINDS[kind](**fields)))
            except TypeError as error:
                raise ValueError(f"layer {fields.get('name')!r}: {error}") from None
        try:
            return _typed(cls(**{**data, "layers": tuple(layers)}))
        except TypeError as error:
            raise ValueError(f"network {data.get('name')!r}: {error}") from None


def _typed(part: Any) -> Any:
    """The layer or network, if every field has the type it is declared with. Raises TypeError naming the first not."""
    for name, hint in typing.get_type_hints(type(part)).items():
        value = getattr(part, name)
        if typing.get_origin(hint) is tuple:
            continue  # the layers, each checked for itself
        choices = typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            good, wanted = value in choices, " or ".join(map(repr, choices))
        else:
            kinds = tuple(kind for kind in choices or (hint,) if kind is not type(None))
            whole = float in kinds and type(value) is int
            good = type(value) in kinds or whole or (value is None and len(choices) > 1)
            wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(
                kinds[0].__name__, "a text"
            )
        if not good:
            raise TypeError(f"{name} {value!r} should be {wanted}")
    return part


@dataclass(frozen=True)
class LayerShape:
    """One layer with its sizes: output shape, neurons, parameters and connections for one image."""

    layer: Layer
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]  # (C, H, W) of a map, (units,) of a vector
    weights: int  # multiplicative parameters
    biases: int
    connections: int  # weight uses for one image: what a multiplication is spent on

    @property
    def parameters(self) -> int:
        """Weights and biases together."""
        return self.weights + self.biases

    @property
    def neurons(self) -> int:
        """Output values of a layer that has weights; other layers count none, as in the paper."""
        return math.prod(self.shape) if self.weights else 0


def output_side(side: int, size: int, stride: int, pad: int = 0, ceil: bool = True) -> int:
    """Rows (or columns) of the output of a convolution or pooling over `side` rows.

    The 2012 code sizes by `1 + ceil((2·pad + side − size) / stride)`; with `ceil` false the division is floored.
    Raises ValueError where the kernel is larger than its padded input.
    """
    room = side + 2 * pad - size
    if room < 0:
        raise ValueError(f"a {size}×{size} window does not fit an input of side {side} with padding {pad}")
    return 1 + (-(-room // stride) if ceil else room // stride)


def pooled_side(side: int, size: int, stride: int, ceil: bool = True) -> int:
    """As `output_side` for pooling, where no window starts past the edge however large the stride."""
    return min(output_side(side, size, stride, 0, ceil), -(-side // stride))


def infer_shapes(network: Network) -> list[LayerShape]:
    """Every layer with its output shape and counts, in order. Raises ValueError naming the layer that does not fit."""
    shape: tuple[int, ...] = (3, network.image, network.image)
    out = []
    for layer in network.layers:
        try:
            found = _infer(network, layer, shape)
        except ValueError as error:
            raise ValueError(f"{network.name}, layer {layer.name}: {error}") from None
        out.append(found)
        shape = found.shape
    return out


def _infer(network: Network, layer: Layer, shape: tuple[int, ...]) -> LayerShape:
    weights = biases = connections = 0
    out = shape
    if isinstance(layer, Full):
        fan_in = math.prod(shape)
        units = layer.units or network.classes
        out = (units,)
        weights, biases, connections = fan_in * units, units, fan_in * units
    elif isinstance(layer, Conv | Local | Pool):
        if len(shape) != 3:
            raise ValueError("needs maps, but a fully-connected layer comes before it")
        maps, height, width = shape
        stride = 1 if isinstance(layer, Local) else layer.stride
        pad = 0 if isinstance(layer, Pool) else layer.pad
        ceil = True if isinstance(layer, Local) else layer.ceil
        sides = [output_side(side, layer.size, stride, pad, ceil) for side in (height, width)]
        if isinstance(layer, Pool):
            out = (maps, *(pooled_side(side, layer.size, stride, ceil) for side in (height, width)))
        else:
            columns = groups(network, layer)
            if maps % columns or layer.kernels % columns:
                raise ValueError(f"{maps} maps and {layer.kernels} kernels do not divide into {columns} columns")
            kernel = layer.size**2 * maps // columns
            out = (layer.kernels, *sides)
            places = math.prod(sides)
            connections = kernel * layer.kernels * places
            weights = connections if isinstance(layer, Local) else kernel * layer.kernels
            biases = layer.kernels * places if isinstance(layer, Local) else layer.kernels
    return LayerShape(layer, network.tap(layer), shape, out, weights, biases, connections)


def groups(network: Network, layer: Layer) -> int:
    """Into how many groups a layer divides its maps: the columns where it stays in its own, else 1."""
    own = (isinstance(layer, Conv) and layer.sees == "own") or (isinstance(layer, LRN) and layer.within == "own")
    return network.columns if own else 1


def parameters(network: Network) -> int:
    """Weights and biases of the whole network."""
    return sum(m.parameters for m in infer_shapes(network))


def hidden_layer(network: Network) -> str:
    """The name of the last hidden layer's output: the paper's 4096 activations, used for search (§6.1)."""
    vectors = [network.tap(layer) for layer in network.layers if not isinstance(layer, Dropout)]
    return vectors[-2]
