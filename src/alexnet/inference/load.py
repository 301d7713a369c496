"""The one `load`: the name of a model, or of several, to a predictor.

A model is a run directory, a safetensors file that `alexnet export` wrote, or `torchvision:NAME`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from alexnet import presets
from alexnet.checkpoint import has_checkpoint, load_checkpoint, load_weights, read_tensors
from alexnet.config import Config, Data, check
from alexnet.data.augment import IMAGENET_MEAN, IMAGENET_STD
from alexnet.data.readers.words import checked_words
from alexnet.data.run_data import load_statistics
from alexnet.data.statistics import Statistics
from alexnet.device import choose_device
from alexnet.errors import CheckpointError, RunError, UsageError, one_line, quoted, suggestion
from alexnet.formats.export import import_model
from alexnet.inference.backends import Backend, OpenVinoBackend, TorchBackend, choose
from alexnet.inference.ensemble import Ensemble
from alexnet.inference.network import NetworkPredictor
from alexnet.inference.predictor import Predictor
from alexnet.inference.quantization import quantized_run
from alexnet.model.net import Net
from alexnet.model.zoo import blank, build
from alexnet.run import Run

TORCHVISION = "torchvision:"
TENSOR = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch \w*Storage")
OLD_PICKLES = 5  # in a file that torch saved before 2020: magic number, version, system, weights, storages
Model = str | Path | Predictor


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A network with its weights on the CPU, and all that goes with it."""

    model: Net
    config: Config
    statistics: Statistics
    classes: Sequence[str]
    origin: dict[str, Any]
    run: Run | None = None
    words: Sequence[str] | None = None


def load(
    model: Model,
    *more: Model,
    checkpoint: str | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    weights: Sequence[float] | None = None,
) -> Predictor:
    """The predictor of a model, or the ensemble of several, in evaluation mode.

    `checkpoint` says which weights: "best" (by validation error) or "last" of a run, by default best where there is
    one; a file of weights or "random" for `torchvision:NAME`, by default those that torchvision keeps on this machine.
    `backend` is torch (the default, whatever is installed), onnxruntime, openvino, or auto: the fastest that is
    installed. `precision` is float32, bfloat16 or int8, by default the run's own; int8 is computed by openvino,
    calibrated on the run's training images at first use and kept in the run directory. `weights` are those of an
    ensemble, by default equal. Raises UsageError and its kinds: RunError, CheckpointError, MissingLibrary, DataError.
    """
    members = [
        one if isinstance(one, Predictor) else _load(str(one), checkpoint, device, backend, precision)
        for one in (model, *more)
    ]
    return members[0] if len(members) == 1 and weights is None else Ensemble(members, weights)


def _load(
    name: str, checkpoint: str | None, device: str, backend: str | None, precision: str | None
) -> NetworkPredictor:
    target = choose_device(device)
    gpu = target.type == "cuda"
    if precision is not None:
        choose(backend, precision, gpu)  # a request that cannot be met is refused before anything is read
    if name.startswith(TORCHVISION):
        opened = _open_torchvision(name, checkpoint)
    elif Path(name).is_file():
        opened = _open_file(name, checkpoint)
    else:
        opened = _open_run(Run.open(name), checkpoint)
    precision = precision or opened.config.train.precision
    kind = choose(backend, precision, gpu)
    if gpu and device != "auto" and kind is not TorchBackend:
        raise UsageError(f"{kind.name} computes on the CPU; leave --device {device} out, or choose the backend torch")
    return NetworkPredictor(
        opened.config,
        opened.statistics,
        opened.classes,
        _backend(kind, opened, precision, target),
        opened.origin,
        opened.run,
        opened.words,
    )


def _backend(kind: type[Backend], opened: _Opened, precision: str, device: torch.device) -> Backend:
    if precision == "int8":
        if opened.run is None:
            name = opened.origin["run"]
            raise UsageError(f"int8 is calibrated on the training images of a run, and {name} is not a run directory")
        return OpenVinoBackend(opened.model, precision, quantized_run(opened.run, opened.model))
    return kind(opened.model.to(device) if kind is TorchBackend else opened.model, precision)


def _open_run(run: Run, checkpoint: str | None) -> _Opened:
    if checkpoint is None:
        checkpoint = "best" if has_checkpoint(run.checkpoints, "best") else "last"
    if checkpoint not in ("best", "last"):
        raise RunError(f"checkpoint {checkpoint!r} of {run.path} should be best or last")
    network, classes = run.config.network, run.classes
    saved = load_checkpoint(run.checkpoints, checkpoint, blank(network))
    model = build(network, seed=None)  # whose size is that of the checkpoint
    load_weights(model, saved.weights, str(run.checkpoints / f"{checkpoint}.safetensors"))
    if saved.damage:  # an older save is used
        warnings.warn(saved.damage, stacklevel=4)
    place = saved.state.get("train")
    steps = place.get("steps") if isinstance(place, dict) else None
    origin = {"run": str(run.path), "checkpoint": checkpoint, "step": steps if type(steps) is int else None}
    statistics = load_statistics(run.statistics_file, run.config.data.size)
    words = checked_words(run.source.get("words"), len(classes))
    return _Opened(model, run.config, statistics, classes, origin, run, words)


def _open_file(name: str, checkpoint: str | None) -> _Opened:
    if checkpoint is not None:
        raise UsageError(f"{name} is one file of weights; leave --checkpoint {checkpoint} out")
    model, facts = import_model(name)
    if not facts.size or not facts.classes:  # of a file that was exported without
        raise UsageError(f"{name} does not say its classes and preprocessing; write it with `alexnet export`")
    if facts.center == "mean-image" and facts.mean_image is None:
        raise UsageError(f"{name} has no mean image, which its preprocessing needs; write it with `alexnet export`")
    data = Data(source="", size=facts.size, center=facts.center, exif_rotate=facts.exif_rotate)  # type: ignore[arg-type]
    config = Config(preset=facts.preset, network=model.network, data=data)
    try:
        check(config)
    except UsageError as error:
        raise UsageError(f"{name}: its description cannot be used: {error}") from None
    words = checked_words(facts.words, len(facts.classes))
    return _Opened(model, config, _statistics(facts.size, facts.mean_image), facts.classes, {"run": name}, words=words)


def _open_torchvision(name: str, checkpoint: str | None) -> _Opened:
    """A network of torchvision's with its published preprocessing. Nothing is fetched."""
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    known = models.list_models(module=models)
    if short not in known:
        raise UsageError(f"torchvision has no classifier {short!r}{suggestion(short, known)}")
    published = models.get_model_weights(short).DEFAULT
    transforms, classes = published.transforms(), published.meta["categories"]
    colours = np.array([transforms.mean, transforms.std]) * 255
    if not np.allclose(colours, [IMAGENET_MEAN, IMAGENET_STD], atol=0.01):
        raise UsageError(f"{name} was trained on colours scaled otherwise than ImageNet's usual way; choose another")
    config = presets.preset(name, len(classes))
    config = dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, image=transforms.crop_size[0]),
        data=dataclasses.replace(config.data, source="", size=transforms.resize_size[0]),
    )
    model = build(config.network, seed=0)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    if checkpoint is None:
        if not kept.is_file():
            raise CheckpointError(
                f"the weights of {name} are not on this machine: put {published.url} at {kept}, or name a file of "
                "weights, or random, as the checkpoint"
            )
        try:
            _check_archive(str(kept))
            model.body = models.get_model(short, weights=published)  # from the file: it is there
        except Exception as error:  # as in `_read_weights`
            raise CheckpointError(f"{kept} is not a file of weights: {one_line(error)}") from None
    elif checkpoint != "random":
        load_weights(model.get_submodule("body"), _read_weights(checkpoint), checkpoint)
    origin = {"run": name, "checkpoint": checkpoint or kept.name}
    return _Opened(model.eval(), config, _statistics(config.data.size), classes, origin)


def _read_weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of one that torch saved. Raises CheckpointError."""
    if path.endswith(".safetensors"):
        return read_tensors(path)
    try:
        _check_archive(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch, pickle and zip raise many kinds for a file that is damaged or of another kind
        raise CheckpointError(f"{path} is not a file of weights: {one_line(error)}") from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path} does not hold weights by name")
    return weights


def _check_archive(path: str) -> None:
    """Raise ValueError for what is not a regular file, unpacks to more than it holds, or names more than tensors."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if zipfile.is_zipfile(file):
            archive = zipfile.ZipFile(file)
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > status.st_size or any(entry.compress_type for entry in archive.infolist()):
                raise ValueError(f"its {status.st_size:,} bytes unpack to {unpacked:,}")
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl"):
                    _check_pickle(io.BytesIO(archive.read(entry)), 1)
        else:
            file.seek(0)
            _check_pickle(file, OLD_PICKLES)


def _check_pickle(file: IO[bytes], parts: int) -> None:
    """Raise ValueError for a pickle that names anything but tensors: torch would call `bytearray(4_000_000_000)`."""
    for _ in range(parts):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"its pickle has the operation {operation.name}, which no weights need")
            if operation.name == "GLOBAL" and not TENSOR.fullmatch(str(argument)):
                raise ValueError(f"its pickle names {quoted(argument)}, which no weights need")


def _statistics(size: int, mean_image: np.ndarray | None = None) -> Statistics:
    """What prediction needs of the training images: the mean image; the colours' components draw only noise."""
    if mean_image is None:
        mean_image = np.zeros((size, size, 3), np.float32)
    return Statistics(mean_image, np.zeros(3), np.zeros((3, 3)), np.zeros(3), np.eye(3), count=0)
