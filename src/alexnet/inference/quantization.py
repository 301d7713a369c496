"""Post-training quantization to int8 by NNCF, calibrated on a run's training images, for OpenVINO.

The quantized network is kept in the run directory under a name that says which weights it was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.errors import UsageError
from alexnet.formats.export import onnx_model
from alexnet.inference.predictor import Classifier
from alexnet.model.zoo import Net

CALIBRATION = 256  # training images, spread evenly over the split
RECIPE = "nncf mixed, last layer and pools whole"  # part of the kept file's name: change it with what `quantize` does


class QuantizationError(UsageError):
    """A network that cannot be quantized here; the message says what to install."""


def quantized(classifier: Classifier, images: int = CALIBRATION) -> Any:
    """The OpenVINO model of a run in int8, read from the run directory or made and kept there."""
    import openvino

    weights = hashlib.sha256(f"{RECIPE} {images}".encode())
    for name, value in sorted(classifier.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().numpy().tobytes())
    path = classifier.run.path / "int8" / f"{weights.hexdigest()[:16]}.xml"
    core = openvino.Core()
    if path.exists() and path.with_suffix(".bin").exists():
        return core.read_model(path)
    model = quantize(classifier.model, calibration_views(classifier, images))
    with contextlib.suppress(OSError):  # a run that cannot be written to is quantized each time
        _keep(model, path)
    return model


def quantize(model: Net, views: np.ndarray, last: bool = False, also: tuple[str, ...] = ()) -> Any:
    """An OpenVINO model with int8 weights and activations, but for the layer that gives the logits.

    Maps are rounded to int8 after pooling, not before: a quarter of the values then, and rounded once either way.
    views: float32 (N, 3, C, C), as the network takes them, on which ranges are measured. `last` quantizes the last
    layer too; layers named in `also` stay as they are. Raises QuantizationError where a library is not installed.
    """
    if not all(find_spec(package) for package in ("nncf", "openvino", "onnx")):
        raise QuantizationError("int8 needs nncf, openvino and onnx; pip install 'alexnet[openvino]'")
    os.environ.setdefault("NNCF_CI", "1")  # it would otherwise report its use over the network
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    read = openvino.Core().read_model(onnx_model(model).SerializeToString())
    operations = read.get_ordered_ops()
    names = [op.get_friendly_name() for op in operations]
    ignored = [name for name in names if name.split(".")[0].split("/")[0] in also]
    ignored += [op.get_friendly_name() for op in operations if op.get_type_name() == "MaxPool"]
    if not last:
        ignored += [op.get_friendly_name() for op in operations if op.get_type_name() == "MatMul"][-1:]
    dataset = nncf.Dataset([views[i : i + 1] for i in range(len(views))])
    with _silent():
        return nncf.quantize(
            read,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(views),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def calibration_views(classifier: Classifier, images: int = CALIBRATION) -> np.ndarray:
    """Centre views of training images, float32 (N, 3, C, C). Raises DataError where the run's data are gone."""
    from alexnet.data.run_data import open_run_data
    from alexnet.errors import UnreadableImage

    config = classifier.config
    train = open_run_data(config).train
    views = []
    for i in np.linspace(0, len(train) - 1, min(images, len(train))).astype(int):
        with contextlib.suppress(UnreadableImage):
            pixels = torch.from_numpy(train.resize_crop(int(i), config.data.size))
            views.append(classifier.augmentation.test(pixels[None]).cpu())
    return np.ascontiguousarray(torch.cat(views).numpy())


def _keep(model: Any, path: Path) -> None:
    """Write the pair of files beside and rename them, the description last."""
    import openvino

    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=path.parent) as folder:
        beside = Path(folder) / path.name
        openvino.save_model(model, beside, compress_to_fp16=False)
        os.replace(beside.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(beside, path)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the library's progress bars on standard output."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
