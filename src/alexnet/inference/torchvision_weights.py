"""The networks of torchvision with weights from files that may be a stranger's."""

from __future__ import annotations

import dataclasses
import io
import os
import pickletools
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torchvision import models

from alexnet import presets
from alexnet.checkpoint import arrays, load_weights, read_tensors
from alexnet.data.views import IMAGENET_MEAN, IMAGENET_STD
from alexnet.errors import CheckpointError, UsageError, one_line, quoted, suggestion
from alexnet.inference.network import Trained
from alexnet.model.zoo import build

TORCHVISION = "torchvision:"
TENSOR = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch \w*Storage")
OLD_PICKLES = 5  # in a file that torch saved before 2020: magic number, version, system, weights, storages


def open_torchvision(name: str, checkpoint: str | None) -> Trained:
    """The network `torchvision:NAME` with its published preprocessing.

    `checkpoint` is a file of weights or "random", by default the file where torchvision keeps them; nothing is fetched.
    Raises UsageError and CheckpointError.
    """
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
        except Exception as error:  # as in `read_weights`
            raise CheckpointError(f"{kept} is not a file of weights: {one_line(error)}") from None
    elif checkpoint != "random":
        load_weights(model.get_submodule("body"), read_weights(checkpoint), checkpoint)
    origin = {"run": name, "checkpoint": checkpoint or kept.name}
    return Trained(config, arrays(model.state_dict()), None, tuple(classes), origin, model=model.eval())


def read_weights(path: str) -> Mapping[str, Any]:
    """The tensors of a file that torch saved, or the arrays of a safetensors file. Raises CheckpointError."""
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
