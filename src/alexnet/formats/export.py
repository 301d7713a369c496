"""A trained network as a file for other libraries: an ONNX graph, or weights with their description.

Both describe what the network takes: `images` float32 (N, 3, image, image), centred RGB in 0..255 units, and returns:
logits (N, classes). Shapes: `N` batch.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from alexnet import __version__
from alexnet.architecture import Network
from alexnet.checkpoint import load_weights
from alexnet.errors import UsageError
from alexnet.formats.onnx_graph import Unsupported, graph
from alexnet.model.alexnet import AlexNet
from alexnet.model.zoo import Net, build
from alexnet.run import Run

if TYPE_CHECKING:
    import onnx

FORMATS = ("onnx", "safetensors")
TAKES = "float32 (N, 3, {side}, {side}), RGB in 0..255 units, centred as in training"
Exportable = str | Path | Run | Net


class ExportError(UsageError):
    """An export that was asked for wrongly or cannot be made; the message says how to mend it."""


def export(run_or_model: Exportable, format: str, out: str | Path, checkpoint: str | None = None) -> Path:
    """Write a run's network (or a model) to the file `out` and return its path.

    `onnx`: any batch size; normalization across maps as the standard LRN node, one a column where columns keep to
    themselves. `safetensors`: the weights, with the network's description as JSON in the metadata under `alexnet`;
    `import_model` reads it back. Raises ExportError for another format or a missing library.
    """
    if format not in FORMATS:
        raise ExportError(f"format {format!r} should be one of {', '.join(FORMATS)}")
    model, facts = _opened(run_or_model, checkpoint)
    description = json.dumps(
        {
            "version": __version__,
            **facts,
            "input": TAKES.format(side=model.network.image),
            "output": "logits (N, classes)",
            "network": model.network.to_dict(),
        }
    )
    if format == "onnx":
        made = onnx_model(model)
        made.metadata_props.add(key="alexnet", value=description)
        content = made.SerializeToString()
    else:
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        content = save(weights, metadata={"format": "pt", "alexnet": description})
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    os.replace(beside, path)
    return path


def import_model(path: str | Path) -> Net:
    """The model that `export(…, "safetensors", path)` wrote, in evaluation mode. Raises ExportError."""
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("alexnet", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
    if "network" not in description:
        raise ExportError(f"{path} says nothing of its network; write it with `alexnet.formats.export`")
    model = build(Network.from_dict(description["network"]), seed=None)
    load_weights(model, weights, str(path))
    return model.eval()


def onnx_model(model: Net, products: bool = False) -> onnx.ModelProto:
    """The network as an ONNX graph, from its description, or by torch's exporter where that has no node for a layer.

    `products` writes normalization across maps as a matrix product and square roots instead of the LRN node, which
    ONNX Runtime computes faster.
    """
    if not find_spec("onnx"):
        raise ExportError("ONNX needs the package onnx; pip install 'alexnet[export]'")
    if isinstance(model, AlexNet):
        try:
            return graph(model.network, model.state_dict(), products)
        except Unsupported:
            pass
    return traced_model(model)


def traced_model(model: Net) -> onnx.ModelProto:
    """The network as torch's own exporter writes it, whatever its layers. Raises ExportError without onnxscript."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError("this network needs the package onnxscript; pip install 'alexnet[export]'") from None
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


def _opened(given: Exportable, checkpoint: str | None) -> tuple[Net, dict[str, Any]]:
    if isinstance(given, Net):
        return given, {}
    from alexnet.inference.predictor import load

    classifier = load(given.path if isinstance(given, Run) else given, checkpoint, "cpu")
    config = classifier.config
    return classifier.model, {
        "preset": config.preset,
        "classes": list(classifier.classes),
        "center": config.data.center,
    }
