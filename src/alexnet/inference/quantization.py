"""Post-training quantization to int8 by NNCF, calibrated on a run's training images, for OpenVINO.

The quantized network is kept in the run directory under a name that says which weights it was made of. Shapes: `N`
views, `V` side of a view.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.data.augment import Augmentation
from alexnet.data.dataset import Subset
from alexnet.data.loader import BatchLoader
from alexnet.data.run_data import load_statistics, open_known_source, open_run_data
from alexnet.errors import DataError, MissingLibrary
from alexnet.files import write_bytes
from alexnet.formats.export import onnx_model
from alexnet.inference.backends import openvino_core
from alexnet.inference.network import weights_sha256
from alexnet.model.net import Net
from alexnet.run import Run

CALIBRATION = 256  # training images, spread evenly over the split
RECIPE = "nncf mixed, last layer and pools whole"  # part of the kept file's name: change it with what `quantize` does


def quantized_run(run: Run, model: Net, images: int = CALIBRATION) -> Any:
    """The OpenVINO graph of a run's model in int8, read from the run directory or made and kept there.

    Raises MissingLibrary, and DataError where the run's training images are gone.
    """
    check_libraries()
    path = run.path / "int8" / f"{weights_sha256(model, f'{RECIPE} {images}')[:16]}.xml"
    if path.exists() and path.with_suffix(".bin").exists():
        return openvino_core().read_model(path)
    graph = quantize(model, calibration_views(run, images))
    with contextlib.suppress(OSError):  # a run that cannot be written to is quantized each time
        _keep(graph, path)
    return graph


def quantize(model: Net, views: np.ndarray, last: bool = False, also: tuple[str, ...] = ()) -> Any:
    """An OpenVINO graph with int8 weights and activations, but for the layer that gives the logits.

    Maps are rounded to int8 after pooling, not before: a quarter of the values then, and rounded once either way.
    views: float32 (N, 3, V, V), as the network takes them, on which ranges are measured. `last` quantizes the last
    layer too; layers named in `also` stay as they are. Raises MissingLibrary.
    """
    check_libraries()
    os.environ.setdefault("NNCF_CI", "1")  # it would otherwise report its use over the network
    import nncf

    nncf.set_log_level(logging.ERROR)
    graph = openvino_core().read_model(onnx_model(model).SerializeToString())
    operations = graph.get_ordered_ops()
    names = [op.get_friendly_name() for op in operations]
    ignored = [name for name in names if name.split(".")[0].split("/")[0] in also]
    ignored += [op.get_friendly_name() for op in operations if op.get_type_name() == "MaxPool"]
    if not last:
        ignored += [op.get_friendly_name() for op in operations if op.get_type_name() == "MatMul"][-1:]
    dataset = nncf.Dataset([views[i : i + 1] for i in range(len(views))])
    with _silent():
        return nncf.quantize(
            graph,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(views),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def check_libraries() -> None:
    """Raise MissingLibrary where a library that quantizes is not installed."""
    if not all(find_spec(package) for package in ("nncf", "openvino", "onnx")):
        raise MissingLibrary("int8 needs nncf, openvino and onnx; pip install 'alexnet[openvino]'")


def calibration_views(run: Run, images: int = CALIBRATION) -> np.ndarray:
    """Centre views of a run's training images, float32 (N, 3, V, V). Raises DataError where they are gone."""
    config, statistics = run.config, load_statistics(run.statistics_file, run.config.data.size)
    source, place, _ = open_known_source(run)
    train = open_run_data(config, source, place).train
    chosen = np.linspace(0, len(train) - 1, min(images, len(train))).astype(np.int64)
    loader = BatchLoader(
        Subset(train, chosen, "train"),
        config.data.size,
        batch_size=len(chosen),
        seed=0,
        shuffle=False,
        workers=config.data.workers or None,
        memory=0,
        exif_rotate=config.data.exif_rotate,
    )
    augmentation = Augmentation(config, statistics, torch.device("cpu"))
    views = [augmentation.test(batch.images) for batch in loader.epoch(0) if len(batch.positions)]
    if not views:
        raise DataError(f"{config.data.source}: no training image can be read to calibrate int8 on")
    return np.ascontiguousarray(torch.cat(views).numpy())


def _keep(graph: Any, path: Path) -> None:
    """Write the pair of files, the description last."""
    import openvino

    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=path.parent) as folder:
        saved = Path(folder) / path.name
        openvino.save_model(graph, saved, compress_to_fp16=False)
        for suffix in (".bin", path.suffix):
            write_bytes(path.with_suffix(suffix), saved.with_suffix(suffix).read_bytes())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the library's progress bars on standard output."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
