"""What a network is made of: each layer's output, neurons, weights and connections, and the numbers people quote.

All counts come from the network's description; only the quoted numbers, which are others', are written down here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from alexnet import presets
from alexnet.architecture import (
    LRN,
    Activation,
    Conv,
    Dropout,
    Full,
    Layer,
    LayerShape,
    Local,
    MapNorm,
    Network,
    Pool,
    groups,
    infer_shapes,
)

QUOTED_PARAMETERS = 60_000_000  # the paper's abstract
QUOTED_NEURONS = 650_000  # the paper's abstract
QUOTED_CONV1_NEURONS = 253_440  # the caption of the paper's figure 2
QUOTED_CONNECTIONS = 630_000_000  # a talk
QUOTED_UNSHARED = 105_705_600  # a talk: conv1 without weight sharing


@dataclass(frozen=True)
class LayerSummary:
    """One layer: what it does in words, its output shape (None where it is not known), and its counts."""

    name: str
    kind: str
    about: str
    shape: tuple[int, ...] | None
    neurons: int  # outputs of a layer that has weights
    weights: int
    biases: int
    connections: int  # uses of a weight for one image


@dataclass(frozen=True)
class Total:
    """The sums over a network's layers."""

    neurons: int
    weights: int
    biases: int
    parameters: int
    connections: int


@dataclass(frozen=True)
class Quoted:
    """A number people quote, the one counted here, and why they differ."""

    what: str
    quoted: int
    counted: int
    why: str


@dataclass(frozen=True)
class Summary:
    """A network's input (C, H, W), layers and totals; for the paper's network the numbers people quote too."""

    preset: str
    about: str
    input: tuple[int, ...]
    columns: int
    classes: int
    layers: tuple[LayerSummary, ...]
    quoted: tuple[Quoted, ...] = ()

    @property
    def total(self) -> Total:
        """The sums over all layers."""
        neurons, weights, biases, connections = (
            sum(getattr(layer, name) for layer in self.layers)
            for name in ("neurons", "weights", "biases", "connections")
        )
        return Total(neurons, weights, biases, weights + biases, connections)

    def to_json(self) -> dict[str, Any]:
        """What `alexnet summary --json` prints."""
        out = {**dataclasses.asdict(self), "total": dataclasses.asdict(self.total)}
        if not self.quoted:
            del out["quoted"]
        return out


def summary(network: Network) -> Summary:
    """Every layer's output shape and counts. Raises UsageError for a network that does not fit together."""
    if network.library:
        layers = _library_layers(network)
    else:
        layers = [_layer_summary(network, entry) for entry in infer_shapes(network)]
    return Summary(
        preset=network.name,
        about=network.about,
        input=(3, network.image, network.image),
        columns=network.columns,
        classes=network.classes,
        layers=tuple(layers),
        quoted=tuple(quoted(network)) if network == presets.preset("paper", network.classes).network else (),
    )


def quoted(network: Network) -> list[Quoted]:
    """The numbers people quote of the paper's network, each with the one counted from its description."""
    entries = infer_shapes(network)
    conv1 = entries[0]
    parameters = sum(entry.parameters for entry in entries)
    neurons = sum(entry.neurons for entry in entries)
    connections = sum(entry.connections for entry in entries)
    convolutions = sum(entry.connections for entry in entries if isinstance(entry.layer, Conv))
    fan_in = conv1.weights // conv1.shape[0]
    side = "·".join(map(str, (*conv1.shape[1:], conv1.shape[0])))
    by_caption = neurons - conv1.neurons + QUOTED_CONV1_NEURONS
    return [
        Quoted(
            "parameters",
            QUOTED_PARAMETERS,
            parameters,
            f"the same, rounded down: {parameters - entries[-1].parameters:,} and the {entries[-1].parameters:,} of "
            f"{entries[-1].name} for {network.classes:,} classes",
        ),
        Quoted(
            "neurons",
            QUOTED_NEURONS,
            neurons,
            f"neither count gives it exactly: with the caption's conv1 there are {by_caption:,}, with "
            f"{side} there are {neurons:,}, the {math.prod(entries[0].inputs):,} inputs not counted",
        ),
        Quoted(
            "neurons of conv1",
            QUOTED_CONV1_NEURONS,
            conv1.neurons,
            f"the caption of the paper's figure 2; its layer of {side} has {conv1.neurons:,}",
        ),
        Quoted(
            "connections",
            QUOTED_CONNECTIONS,
            connections,
            f"a talk that does not say how it counts; here every use of a weight for one image, "
            f"{convolutions:,} in the convolutions and {connections - convolutions:,} in the fully-connected "
            f"layers; all but conv1's are {connections - conv1.connections:,}",
        ),
        Quoted(
            "parameters of conv1 without weight sharing",
            QUOTED_UNSHARED,
            conv1.neurons * (fan_in + 1),
            f"{conv1.neurons:,} neurons × {fan_in + 1} ({fan_in} weights and a bias each); with sharing "
            f"{conv1.parameters:,} = {conv1.shape[0]} × {fan_in + 1}",
        ),
    ]


def describe_layer(network: Network, layer: Layer) -> str:
    """What a layer does, in a few words: `256 kernels 5×5, pad 2, own column`."""
    match layer:
        case Conv():
            words = [f"{layer.kernels} kernels {layer.size}×{layer.size}"]
            words += [f"stride {layer.stride}"] if layer.stride > 1 else []
            words += [f"pad {layer.pad}"] if layer.pad else []
            if network.columns > 1:
                words.append("own column" if layer.sees == "own" else "all columns")
            return ", ".join(words)
        case Local():
            pad = f", pad {layer.pad}" if layer.pad else ""
            return f"{layer.kernels} kernels {layer.size}×{layer.size} at each position{pad}"
        case Full():
            return "fully connected"
        case Activation():
            return "ReLU" if network.activation == "relu" else network.activation
        case LRN():
            divided = f"/{layer.size}" if layer.divide else ""
            column = ", own column" if groups(network, layer) > 1 else ""
            return f"LRN over {layer.size} maps, α {layer.alpha:g}{divided}, k {layer.k:g}{column}"
        case MapNorm():
            return f"normalization within a map over {layer.size}×{layer.size}"
        case Pool():
            return f"{layer.kind} over {layer.size}×{layer.size}, stride {layer.stride}"
        case Dropout():
            return f"dropout {layer.rate:g}"


def _layer_summary(network: Network, entry: LayerShape) -> LayerSummary:
    return LayerSummary(
        name=entry.name,
        kind=type(entry.layer).__name__,
        about=describe_layer(network, entry.layer),
        shape=entry.shape,
        neurons=entry.neurons,
        weights=entry.weights,
        biases=entry.biases,
        connections=entry.connections,
    )


def _library_layers(network: Network) -> list[LayerSummary]:
    """The modules of another library's network that have parameters or no parts, in the order of its own listing."""
    import torch
    from torch import nn

    from alexnet.model.zoo import build

    with torch.device("meta"):  # shapes and counts need no memory
        model = build(network).eval()
        body = model.get_submodule("body")
        shapes: dict[str, tuple[int, ...]] = {}
        for name, module in body.named_modules():
            module.register_forward_hook(_keep_shape(shapes, name))
        with torch.no_grad():
            model(torch.empty(1, 3, network.image, network.image))
    layers = []
    for name, module in body.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own and next(module.children(), None) is not None:
            continue
        biases = sum(value.numel() for key, value in own.items() if key.endswith("bias"))
        weights = sum(value.numel() for value in own.values()) - biases
        shape = shapes.get(name)
        multiplies = isinstance(module, nn.Conv2d | nn.Linear) and shape is not None
        places = math.prod(shape or ()) // (shape or (1,))[0 if isinstance(module, nn.Conv2d) else -1]
        layers.append(
            LayerSummary(
                name=name or "(whole)",
                kind=type(module).__name__,
                about=type(module).__name__,
                shape=shape,
                neurons=math.prod(shape or ()) if multiplies else 0,
                weights=weights,
                biases=biases,
                connections=weights * places if multiplies else 0,
            )
        )
    return layers


def _keep_shape(shapes: dict[str, tuple[int, ...]], name: str) -> Any:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        if hasattr(output, "shape"):
            shapes[name] = tuple(output.shape[1:])

    return hook
