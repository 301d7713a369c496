"""The description of a network: frozen data that one builder turns into a model.

A `Network` is a tuple of layers in the order in which an image meets them. Nothing here needs torch, so tables of
layers, shapes and parameters are instant.

Shapes: `C` kernel maps, `H W` rows and columns of a map.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.errors import UsageError, quoted, suggestion
from alexnet.setting import REQUIRED, Field, checked, fields_of, setting

Sees = Literal["own", "all"]

_KERNELS = "kernels, one for each output map"
_UP = "rounds sizes up, with zeros past the right and bottom edges, as the 2012 code did; else down"
_STD = "σ of the normal initial weights; none: uniform in ±1/√fan-in"
_BIAS = "initial value of the biases"
_DECAY = "weight decay of this layer; none: the optimizer's"


@dataclass(frozen=True)
class Conv:
    """A convolution (paper §3.5)."""

    name: str
    kernels: int = setting(REQUIRED, _KERNELS, minimum=1)
    size: int = setting(REQUIRED, "side of a kernel", minimum=1)
    stride: int = setting(1, "pixels between neighbouring windows", minimum=1)
    pad: int = setting(0, "rows and columns of zeros at each edge", minimum=0)
    sees: Sees = setting("all", "own: kernels see the maps of their own column; all: of all columns")
    std: float | None = setting(0.01, _STD, minimum=0)
    bias: float = setting(0.0, _BIAS)
    decay: float | None = setting(None, _DECAY, minimum=0)
    ceil: bool = setting(True, _UP)


@dataclass(frozen=True)
class Local:
    """A locally-connected layer: a convolution in which every position has kernels of its own."""

    name: str
    kernels: int = setting(REQUIRED, _KERNELS, minimum=1)
    size: int = setting(REQUIRED, "side of a kernel", minimum=1)
    pad: int = setting(0, "rows and columns of zeros at each edge", minimum=0)
    std: float | None = setting(0.01, _STD, minimum=0)
    bias: float = setting(0.0, _BIAS)
    decay: float | None = setting(None, _DECAY, minimum=0)


@dataclass(frozen=True)
class Full:
    """A fully-connected layer, which always sees all columns."""

    name: str
    units: int | None = setting(None, "outputs; none: one per class", minimum=1)
    std: float | None = setting(0.01, _STD, minimum=0)
    bias: float = setting(0.0, _BIAS)
    decay: float | None = setting(None, _DECAY, minimum=0)


@dataclass(frozen=True)
class Activation:
    """The network's nonlinearity (`network.activation`), element by element (paper §3.1)."""

    name: str


@dataclass(frozen=True)
class LRN:
    """Local response normalization across neighbouring kernel maps (paper §3.3)."""

    name: str
    size: int = setting(5, "n, the neighbouring maps that are summed over", minimum=1)
    alpha: float = setting(1e-4, "α, the weight of the sum of squares", minimum=0)
    beta: float = setting(0.75, "β, the exponent")
    k: float = setting(2.0, "k, what is added to the sum", above=0)
    divide: bool = setting(False, "divides α by the size, as libraries do; the printed formula does not")
    within: Sees = setting("own", "own: the sum stays in its column; all: it crosses columns")


@dataclass(frozen=True)
class MapNorm:
    """Normalization within each map over a size×size neighbourhood (2012 source, not in the paper)."""

    name: str
    size: int = setting(5, "side of the neighbourhood", minimum=1)
    alpha: float = setting(1e-3, "α, the weight of the sum of squares", minimum=0)
    beta: float = setting(0.75, "β, the exponent")
    k: float = setting(1.0, "k, what is added to the sum", above=0)
    divide: bool = setting(True, "divides α by size²")


@dataclass(frozen=True)
class Pool:
    """Pooling over size×size windows (paper §3.4)."""

    name: str
    size: int = setting(3, "side of a window", minimum=1)
    stride: int = setting(2, "pixels between neighbouring windows", minimum=1)
    kind: Literal["max", "avg"] = setting("max", "the maximum or the average of a window")
    ceil: bool = setting(True, _UP)


@dataclass(frozen=True)
class Dropout:
    """Dropout in training; what is kept is scaled up by 1/(1−rate) (paper §4.2)."""

    name: str
    rate: float = setting(0.5, "probability with which a value is set to zero", minimum=0, below=1)


Layer = Conv | Local | Full | Activation | LRN | MapNorm | Pool | Dropout
KINDS: dict[str, type] = {c.__name__: c for c in (Conv, Local, Full, Activation, LRN, MapNorm, Pool, Dropout)}


@dataclass(frozen=True)
class Network:
    """A whole network: what it takes, its columns and its layers.

    `layers` is empty for a network built by another library (`name` is then `torchvision:NAME`).
    """

    name: str
    image: int = setting(224, "side of the square input, pixels", minimum=1)
    classes: int = setting(1000, "classes; training takes the number that its images have", minimum=2)
    columns: int = setting(
        2, "columns, which layers that see their own keep apart (paper §3.2, there on two GPUs)", minimum=1
    )
    activation: Literal["relu", "tanh"] = setting("relu", "the nonlinearity of all activation layers")
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
    def from_dict(cls, data: Mapping[str, Any]) -> Network:
        """Read back what `to_dict` wrote. Raises UsageError for a kind, field or value that is wrong, naming it."""
        values = dict(data)
        own = {"name": values.pop("name", ""), "about": values.pop("about", "")}
        layers = values.pop("layers", ())
        if not all(isinstance(text, str) for text in own.values()):
            raise UsageError("network.name and network.about should be texts")
        if not isinstance(layers, list | tuple) or not all(isinstance(entry, Mapping) for entry in layers):
            raise UsageError("network.layers should be a list of layers, each an object in braces")
        return checked(cls, "network", values, layers=tuple(map(layer_from_dict, layers)), **own)

    def fields(self) -> list[Field]:
        """Every setting of the network, then of its layers, as `network.conv1.kernels`."""
        layers = [field for layer in self.layers for field in fields_of(layer, f"network.{layer.name}")]
        return [*fields_of(self, "network"), *layers]

    def replace_layer(self, name: str, *layers: Layer) -> Network:
        """The network with other layers, or none, in the place of one."""
        at = [layer.name for layer in self.layers].index(name)
        return dataclasses.replace(self, layers=(*self.layers[:at], *layers, *self.layers[at + 1 :]))


def layer_from_dict(data: Mapping[str, Any]) -> Layer:
    """A layer from its JSON: `{"layer": "Conv", "name": "conv1", …}`. Raises UsageError."""
    fields = dict(data)
    kind, name = fields.pop("layer", None), fields.pop("name", None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"network.layers: a layer's name {quoted(name)} should be a text")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(
            f"network.{name}.layer {quoted(kind)} should be {', '.join(KINDS)}{suggestion(str(kind), KINDS)}"
        )
    return checked(KINDS[kind], f"network.{name}", fields, name=name)


def check_network(network: Network) -> None:
    """Raise UsageError for a network that cannot be built, naming the layer: names, sizes, columns, last outputs."""
    if network.library:
        return
    names = [layer.name for layer in network.layers]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"network.{name} is there twice; layers need names of their own")
        if name in (f.name for f in dataclasses.fields(Network)) or not name.isidentifier():
            raise UsageError(f"network.{name}: a layer's name should be of letters, digits and _, and not a setting's")
    shapes = infer_shapes(network)
    if not shapes or shapes[-1].shape != (network.classes,):
        raise UsageError(
            f"the network {network.name} should end with a fully-connected layer of one unit per class "
            f"({network.classes})" + (f", not with {shapes[-1].name}" if shapes else ", but has no layers")
        )


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
    Raises UsageError where the kernel is larger than its padded input.
    """
    room = side + 2 * pad - size
    if room < 0:
        raise UsageError(f"a {size}×{size} window does not fit an input of side {side} with padding {pad}")
    return 1 + (-(-room // stride) if ceil else room // stride)


def pooled_side(side: int, size: int, stride: int, ceil: bool = True) -> int:
    """As `output_side` for pooling, where every window starts inside the maps, as torch counts them."""
    return min(output_side(side, size, stride, 0, ceil), -(-side // stride))


def infer_shapes(network: Network) -> list[LayerShape]:
    """Every layer with its output shape and counts, in order. Raises UsageError naming the layer that does not fit."""
    shape: tuple[int, ...] = (3, network.image, network.image)
    shapes = []
    for layer in network.layers:
        try:
            shapes.append(_infer(network, layer, shape))
        except UsageError as error:
            raise UsageError(f"{network.name}, layer {layer.name}: {error}") from None
        shape = shapes[-1].shape
    return shapes


def _infer(network: Network, layer: Layer, shape: tuple[int, ...]) -> LayerShape:
    weights = biases = connections = 0
    out = shape
    if isinstance(layer, Full):
        fan_in = math.prod(shape)
        units = layer.units or network.classes
        out = (units,)
        weights, biases, connections = fan_in * units, units, fan_in * units
    elif not isinstance(layer, Activation | Dropout):
        if len(shape) != 3:
            raise UsageError("needs maps, but a fully-connected layer comes before it")
        maps, height, width = shape
        columns = groups(network, layer)
        if maps % columns:
            raise UsageError(f"{maps} maps do not divide into {columns} columns")
        if isinstance(layer, Pool):
            out = (maps, *(pooled_side(side, layer.size, layer.stride, layer.ceil) for side in (height, width)))
        elif isinstance(layer, Conv | Local):
            if layer.kernels % columns:
                raise UsageError(f"{layer.kernels} kernels do not divide into {columns} columns")
            stride, ceil = (layer.stride, layer.ceil) if isinstance(layer, Conv) else (1, True)
            sides = [output_side(side, layer.size, stride, layer.pad, ceil) for side in (height, width)]
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


def weight_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shapes of a described network's weights and biases, by the names that they have in files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in infer_shapes(network):
        layer, name = entry.layer, entry.layer.name
        if isinstance(layer, Local):
            places = math.prod(entry.shape[1:])
            shapes[f"{name}.weight"] = (places, entry.weights // places // layer.kernels, layer.kernels)
            shapes[f"{name}.bias"] = (places, layer.kernels)
        elif isinstance(layer, Conv | Full):
            kernel: tuple[int, ...] = (math.prod(entry.inputs),)
            if isinstance(layer, Conv):
                kernel = (entry.inputs[0] // groups(network, layer), layer.size, layer.size)
            shapes[f"{name}.weight"] = (entry.shape[0], *kernel)
            shapes[f"{name}.bias"] = entry.shape[:1]
    return shapes


def parameters(network: Network) -> int:
    """Weights and biases of the whole network."""
    return sum(entry.parameters for entry in infer_shapes(network))


def shape_text(shape: Sequence[int] | None) -> str:
    """A shape as people write it: 96×55×55, or a dash where it is not known."""
    return "×".join(map(str, shape)) if shape else "–"


def hidden_layer(network: Network) -> str:
    """The tap of the last hidden layer: the paper's 4096 activations, used for search (§6.1)."""
    if network.library:
        return "hidden"
    vectors = [network.tap(layer) for layer in network.layers if not isinstance(layer, Dropout)]
    return vectors[-2]
