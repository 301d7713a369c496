"""A trained network as a file for other libraries: an ONNX graph, or weights with their description.

Shapes: `N` batch, `S` side of a square picture, `V` side of the view that the network takes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet import __version__
from alexnet.architecture import Network, check_network
from alexnet.checkpoint import (
    MAX_ENTRIES,
    Arrays,
    check_shapes,
    check_weights,
    load_weights,
    read_header,
    read_tensors,
    shapes_of,
)
from alexnet.data.views import centring
from alexnet.errors import CheckpointError, MissingLibrary, UsageError, suggestion
from alexnet.files import write_bytes
from alexnet.formats.onnx_graph import Unsupported, graph
from alexnet.records import check_fields, parse_json

if TYPE_CHECKING:
    import onnx

    from alexnet.model.net import Net

FORMATS = ("onnx", "safetensors")
CENTRED = "float32 (N, 3, {side}, {side}), RGB in 0..255 units, centred as in training"
RAW = "float32 (N, 3, {side}, {side}), RGB 0..255: the central crop of a picture of {size}x{size}"
MEAN_IMAGE = "mean_image"  # the name of the tensor beside the weights
# The types of the facts in a file.
FACTS = {"preset?": str, "classes?": list[str], "words?": list[str], "size?": int, "center?": str, "exif_rotate?": bool}


@dataclass(frozen=True)
class Facts:
    """What a file says beside the weights, so that they can be used.

    `classes` are names in label order, `words` what they mean where that is known. `size` is the side S that a
    picture's central square is brought to, 0 where nothing is known of the preprocessing; `center` and `exif_rotate`
    are those of `config.Data`, and `mean_image` is float32 (S, S, 3) where `center` is "mean-image".
    """

    preset: str = ""
    classes: tuple[str, ...] = ()
    size: int = 0
    center: str = "none"
    exif_rotate: bool = False
    mean_image: np.ndarray | None = None
    words: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary without the mean image."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values[MEAN_IMAGE]
        return {**values, "classes": list(self.classes), "words": list(self.words)}


def export(network: Network, weights: Arrays, format: str, out: str | Path, facts: Facts | None = None) -> Path:
    """Write a network with its weights to the file `out` and return its path.

    `onnx`: any batch size; normalization across maps as the standard LRN node, one per column where columns keep to
    themselves. With facts the graph takes views of raw pixels, 0..255, and centres them itself; without, it takes
    centred ones as the model does. `safetensors`: the weights and the mean image, with the description as JSON in the
    metadata under `alexnet`; `import_model` reads it back. Raises UsageError for another format, MissingLibrary.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r} should be one of {', '.join(FORMATS)}{suggestion(format, FORMATS)}")
    facts = facts or Facts()
    side = network.image
    raw = format == "onnx" and facts.size > 0
    description = json.dumps(
        {
            "version": __version__,
            **facts.to_json(),
            "input": (RAW if raw else CENTRED).format(side=side, size=facts.size),
            "output": "logits (N, classes)",
            "network": network.to_dict(),
        }
    )
    if format == "onnx":
        proto = onnx_model(network, weights)
        if raw:
            centre_inside(proto, *_centring(facts, side))
        proto.metadata_props.add(key="alexnet", value=description)
        content = proto.SerializeToString()
    else:
        from safetensors.numpy import save

        tensors = dict(weights)
        if facts.mean_image is not None:
            tensors[MEAN_IMAGE] = np.ascontiguousarray(facts.mean_image, np.float32)
        content = save(tensors, metadata={"format": "pt", "alexnet": description})
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def import_model(path: str | Path) -> tuple[Network, dict[str, NDArray[Any]], Facts]:
    """The network that `export(…, "safetensors", path)` wrote, its weights and its facts. Raises UsageError."""
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise UsageError(f"{path} is not a file that `alexnet export --format safetensors` wrote: {error}") from None
    try:
        described = parse_json(header.texts.get("alexnet", "{}"), MAX_ENTRIES)
        if not isinstance(described, dict) or not isinstance(described.get("network"), dict):
            raise ValueError("it says nothing of its network; write it with `alexnet export`")
        known = {field.name: described[field.name] for field in dataclasses.fields(Facts) if field.name in described}
        check_fields(known, FACTS, "its description")
        network = Network.from_dict(described["network"])
        check_network(network)
        shapes = shapes_of(network)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: its description cannot be read: {error}") from None
    facts = Facts(**{**known, **{name: tuple(known.get(name, ())) for name in ("classes", "words")}})
    if facts.classes and len(facts.classes) != network.classes:
        raise UsageError(f"{path} names {len(facts.classes)} classes, but its network has {network.classes}")
    if MEAN_IMAGE in header.shapes:
        shapes[MEAN_IMAGE] = (facts.size, facts.size, 3)
    check_shapes(shapes, header.shapes, str(path))
    tensors = read_tensors(path)
    mean = tensors.pop(MEAN_IMAGE, None)
    if mean is not None and not (mean.dtype == np.float32 and ((mean >= 0) & (mean <= 255)).all()):
        raise UsageError(f"{path}: its mean image should be float32 within 0 to 255")
    check_weights(network, tensors, str(path))
    return network, tensors, dataclasses.replace(facts, mean_image=mean)


def onnx_model(network: Network, weights: Arrays, products: bool = False) -> onnx.ModelProto:
    """A network as an ONNX graph, from its description, or by torch's exporter where that has no node for a layer.

    `products` writes normalization across maps as a matrix product and square roots instead of the LRN node, which
    ONNX Runtime computes faster. Raises MissingLibrary.
    """
    if not find_spec("onnx"):
        raise MissingLibrary("ONNX needs the package onnx; pip install 'alexnet[export]'")
    if not network.library:
        try:
            return graph(network, weights, products)
        except Unsupported:
            pass
    from alexnet.model.zoo import build

    model = build(network, None)
    load_weights(model, weights, network.name)
    return traced_model(model)


def traced_model(model: Net) -> onnx.ModelProto:
    """The network as torch's own exporter writes it, whatever its layers. Raises MissingLibrary without onnxscript."""
    if not find_spec("onnxscript"):
        raise MissingLibrary("this network needs the package onnxscript; pip install 'alexnet[export]'")
    import torch

    training = model.training
    side = model.network.image
    device = next(model.parameters()).device
    images = torch.zeros(2, 3, side, side, device=device)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model.eval(),
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
    finally:
        log.setLevel(level)
        model.train(training)
    assert program is not None
    return program.model_proto


def centre_inside(proto: onnx.ModelProto, mean: np.ndarray, scale: np.ndarray) -> None:
    """Let a graph take raw pixels: it subtracts `mean`, (3, V, V) or (3, 1, 1), and multiplies by `scale` itself."""
    from onnx import helper, numpy_helper

    inner = proto.graph
    for node in inner.node:
        for i, name in enumerate(node.input):
            if name == "images":
                node.input[i] = "images/centred"
    constants = {"images/mean": mean, "images/scale": scale}
    inner.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    inner.node.insert(
        0, helper.make_node("Mul", ["images/moved", "images/scale"], ["images/centred"], "images/scaling")
    )
    inner.node.insert(0, helper.make_node("Sub", ["images", "images/mean"], ["images/moved"], "images/centring"))


def _centring(facts: Facts, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract from the central view, and what to multiply by: float32, maps first."""
    mean, scale = centring(facts.center, facts.size, facts.mean_image)
    factors = np.ones((3, 1, 1), np.float32) if scale is None else scale.reshape(3, 1, 1)
    if mean is None:
        return 0 * factors, factors
    first = (facts.size - side) // 2
    view = mean[first : first + side, first : first + side]
    return np.ascontiguousarray(view.transpose(2, 0, 1)), factors
