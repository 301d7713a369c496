"""Weights from another model before the first step (`train.init`), and the fine-tuning recipe of 2012 (§7).

A fine-tuned run keeps its own data's statistics (mean image and PCA), as a run from random weights does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.architecture import Conv, Full, Local, Network
from alexnet.checkpoint import has_checkpoint, load_checkpoint, read_checkpoint
from alexnet.config import Config
from alexnet.data.run_data import RunData
from alexnet.errors import CheckpointError, UsageError
from alexnet.files import file_sha256, write_json
from alexnet.model.zoo import build
from alexnet.progress import Progress
from alexnet.run import Run
from alexnet.training.sgd import layer_of

FINE_TUNE = "fine-tune"


@dataclass(frozen=True)
class InitReport:
    """What was taken from another model: tensors by name.

    `copied` have its weights, `fresh` their own initial ones, `unused` are the other model's and have no place here.
    """

    origin: str
    sha256: str
    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Write the run's init.json."""
        write_json(path, self.to_json())


@dataclass(frozen=True)
class InitialModel:
    """A model to begin from: its weights by name and the file they are in; of a run also config and classes."""

    weights: dict[str, NDArray[Any]]
    origin: str
    config: Config | None = None
    classes: tuple[str, ...] | None = None


def open_initial(model: str) -> InitialModel:
    """A run directory (its best checkpoint where there is one, else its last) or a .safetensors file.

    Raises UsageError, RunError or CheckpointError for what is neither.
    """
    path = Path(model)
    if path.is_dir():
        run = Run.open(path)
        name = "best" if has_checkpoint(run.checkpoints, "best") else "last"
        checkpoint = load_checkpoint(run.checkpoints, name)
        return InitialModel(dict(checkpoint.weights), checkpoint.origin, run.config, tuple(run.classes))
    if path.suffix != ".safetensors":
        raise UsageError(f"train.init {model!r} should be a run directory or a .safetensors file")
    checkpoint = read_checkpoint(path)
    return InitialModel(dict(checkpoint.weights), checkpoint.origin)


def initialise_from(config: Config) -> Config:
    """The config with what `--preset fine-tune` takes from the run it begins from; any other config as it is.

    Network, preprocessing, augmentation, batch and arithmetic are that run's; the recipe is that of 2012: a tenth of
    the run's learning rate, a tenth of this in the first layer and ten times this in the last. Raises UsageError
    without `train.init`, or where it is not a run.
    """
    if config.preset != FINE_TUNE:
        return config
    if not config.train.init:
        raise UsageError("preset fine-tune needs init (--init MODEL), a run to begin from")
    initial = open_initial(config.train.init)
    if initial.config is None:
        raise UsageError(f"preset fine-tune takes the network from a run, and {config.train.init} is not one")
    theirs = initial.config
    layers = weight_layers(theirs.network)
    return dataclasses.replace(
        config,
        network=theirs.network,
        data=dataclasses.replace(theirs.data, source=config.data.source),
        augment=theirs.augment,
        optimizer=dataclasses.replace(theirs.optimizer, lr=theirs.optimizer.lr / 10),
        schedule=dataclasses.replace(config.schedule, layers=(f"{layers[0]}=x0.1", f"{layers[-1]}=x10")),
        train=dataclasses.replace(
            config.train,
            batch_size=theirs.train.batch_size,
            precision="auto" if theirs.train.precision == "bfloat16" else theirs.train.precision,
            task=theirs.train.task,
            margin=theirs.train.margin,
        ),
    )


def weight_layers(network: Network) -> list[str]:
    """The names of the layers that have weights, the first one first."""
    if not network.library:
        return [layer.name for layer in network.layers if isinstance(layer, Conv | Local | Full)]
    return list(dict.fromkeys(layer_of(name) for name, _ in build(network, None).named_parameters()))


def copy_initial_weights(model: nn.Module, data: RunData, progress: Progress) -> InitReport:
    """Copy the weights of `train.init` into a model, as far as names and shapes agree, and say what was copied.

    The last layer of a run with other classes is left out, also where it would fit. Raises CheckpointError where
    nothing fits.
    """
    initial = open_initial(data.config.train.init)
    weights = initial.weights
    if initial.classes is not None and initial.classes != tuple(data.source.classes):
        last = weight_layers(data.config.network)[-1]
        weights = {name: value for name, value in weights.items() if layer_of(name) != last}
    own = model.state_dict()
    copied = [name for name, value in own.items() if name in weights and weights[name].shape == tuple(value.shape)]
    if not copied:
        raise CheckpointError(f"train.init {initial.origin} shares no tensor with {data.config.network.name}")
    with torch.no_grad():
        for name in copied:
            own[name].copy_(torch.from_numpy(weights[name]))
    fresh = tuple(name for name in own if name not in copied)
    unused = tuple(name for name in initial.weights if name not in copied)
    progress.note(
        f"{len(copied)} of {len(own)} tensors are copied from {initial.origin}; new: {', '.join(fresh) or 'none'}"
        + (f"; not used: {', '.join(unused)}" if unused else "")
    )
    return InitReport(initial.origin, file_sha256(initial.origin), tuple(copied), fresh, unused)
