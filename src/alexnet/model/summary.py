"""What a network is made of: each layer's output, neurons, weights and connections, and the figures people quote.

All counts come from the network's description; only the quoted figures, which are others', are written down here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

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
from alexnet.text_table import paragraph, table, times

QUOTED_PARAMETERS = 60_000_000  # the paper's abstract
QUOTED_NEURONS = 650_000  # the paper's abstract
QUOTED_CONV1_NEURONS = 253_440  # the caption of the paper's figure 2
QUOTED_CONNECTIONS = 630_000_000  # a talk
QUOTED_UNSHARED = 105_705_600  # a talk: conv1 without weight sharing


@dataclass(frozen=True)
class Quoted:
    """A figure people quote beside the one counted here, and why they differ."""

    what: str
    quoted: int
    counted: int
    why: str


def summary(network: Network) -> dict[str, Any]:
    """Every layer's name, output shape and counts, and their totals; for `paper` the quoted figures too.

    Returns `{"preset", "input", "columns", "classes", "layers": [{"name", "kind", "about", "shape", "neurons",
    "weights", "biases", "connections"}], "total": {"neurons", "weights", "biases", "parameters", "connections"},
    "quoted": [...]}`. Neurons are the outputs of layers with weights; connections are uses of a weight for one image.
    """
    layers = (
        _library_layers(network) if network.library else [_entry(network, entry) for entry in infer_shapes(network)]
    )
    total = {key: sum(layer[key] for layer in layers) for key in ("neurons", "weights", "biases", "connections")}
    total["parameters"] = total["weights"] + total["biases"]
    out: dict[str, Any] = {
        "preset": network.name,
        "input": [3, network.image, network.image],
        "columns": network.columns,
        "classes": network.classes,
        "layers": layers,
        "total": total,
    }
    if network.name == "paper":
        out["quoted"] = [dataclasses.asdict(figure) for figure in quoted(network)]
    return out


def quoted(network: Network) -> list[Quoted]:
    """The figures people quote of the paper's network, each with ours counted from the description."""
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


def render_summary(network: Network) -> str:
    """The summary as a text table, with the quoted figures below it where there are any."""
    data = summary(network)
    columns = "1 column" if network.columns == 1 else f"{network.columns} columns"
    title = f"{network.name}: {times(data['input'])} in, {columns}, {network.classes:,} classes"
    if network.about:
        title += f" ({network.about})"
    rows = [["input", "", times(data["input"]), "", "", "", ""]]
    rows += [[layer["name"], layer["about"], times(layer["shape"]), *_counts(layer)] for layer in data["layers"]]
    rows.append(["total", "", "", *_counts(data["total"])])
    head = ["layer", "", "output", "neurons", "weights", "biases", "connections"]
    parts = [
        title,
        table(head, rows, right=(2, 3, 4, 5, 6), foot=True),
        f"{data['total']['parameters']:,} parameters: {data['total']['weights']:,} weights and "
        f"{data['total']['biases']:,} biases",
    ]
    if network.name == "paper":
        parts.append("Figures people quote")
        figures = quoted(network)
        rows = [[figure.what, f"{figure.quoted:,}", f"{figure.counted:,}"] for figure in figures]
        parts.append(table(["", "quoted", "counted here"], rows, right=(1, 2)))
        parts.append("\n".join(paragraph(f"· {figure.what}: {figure.why}.", "  ") for figure in figures))
    return "\n\n".join(parts)


def describe_layer(network: Network, layer: Layer) -> str:
    """What a layer does, in a few words: `256 kernels 5×5, pad 2, own column`."""
    match layer:
        case Conv():
            words = [f"{layer.kernels} kernels {layer.size}×{layer.size}"]
            words += [f"stride {layer.stride}"] if layer.stride > 1 else []
            words += [f"pad {layer.pad}"] if layer.pad else []
            if network.columns > 1:
                words.append("own column" if layer.sees == "own" else "both columns")
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


def _entry(network: Network, entry: LayerShape) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": type(entry.layer).__name__,
        "about": describe_layer(network, entry.layer),
        "shape": list(entry.shape),
        "neurons": entry.neurons,
        "weights": entry.weights,
        "biases": entry.biases,
        "connections": entry.connections,
    }


def _counts(entry: dict[str, Any]) -> list[str]:
    return [f"{entry[key]:,}" if entry[key] else "" for key in ("neurons", "weights", "biases", "connections")]


def _library_layers(network: Network) -> list[dict[str, Any]]:
    """The modules of another library's network that have parameters or no parts, in the order of its own listing."""
    import torch
    from torch import nn

    from alexnet.model.zoo import build

    with torch.device("meta"):  # shapes and counts need no memory
        model = build(network).eval()
        body = model.get_submodule("body")
        shapes: dict[str, list[int]] = {}
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
            {
                "name": name or "(whole)",
                "kind": type(module).__name__,
                "about": type(module).__name__,
                "shape": shape,
                "neurons": math.prod(shape or ()) if multiplies else 0,
                "weights": weights,
                "biases": biases,
                "connections": weights * places if multiplies else 0,
            }
        )
    return layers


def _keep_shape(shapes: dict[str, list[int]], name: str) -> Any:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        if hasattr(output, "shape"):
            shapes[name] = list(output.shape[1:])

    return hook
