"""The one `load`: the name of a model, or of several, to a predictor.

A model is a run directory, a safetensors file that `alexnet export` wrote, a baseline's directory, or
`torchvision:NAME`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from alexnet.checkpoint import check_weights, has_checkpoint, load_checkpoint
from alexnet.config import Config, Data, check
from alexnet.data.readers.words import checked_words
from alexnet.data.run_data import load_statistics
from alexnet.errors import RunError, UsageError
from alexnet.formats.export import import_model
from alexnet.inference.backends import Backend, choose
from alexnet.inference.ensemble import Ensemble
from alexnet.inference.network import NetworkPredictor, Trained
from alexnet.predictor import Predictor
from alexnet.run import BASELINE, Run

TORCHVISION = "torchvision:"
Model = str | Path | Predictor


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
    `backend` is engine (the default on a CPU) or torch (on a GPU, which `device` "auto" takes where there is one, and
    for torchvision's networks). `precision` is float32, bfloat16 or int8, by default the run's own; int8 is computed by
    the engine, calibrated on the run's training images at first use and kept in the run directory. A baseline has none
    of these choices. `weights` are those of an ensemble, by default equal. Raises UsageError and its kinds: RunError,
    CheckpointError, MissingLibrary, DataError.
    """
    members = [
        one if isinstance(one, Predictor) else _load(str(one), checkpoint, device, backend, precision)
        for one in (model, *more)
    ]
    return members[0] if len(members) == 1 and weights is None else Ensemble(members, weights)


def open_model(name: str, checkpoint: str | None = None) -> Trained:
    """The network of a name with its weights, whatever computes it; `load` says what the arguments are."""
    if name.startswith(TORCHVISION):
        from alexnet.inference.torchvision_weights import open_torchvision

        return open_torchvision(name, checkpoint)
    return _open_file(name, checkpoint) if Path(name).is_file() else _open_run(Run.open(name), checkpoint)


def _load(name: str, checkpoint: str | None, device: str, backend: str | None, precision: str | None) -> Predictor:
    if (Path(name) / BASELINE).is_file():
        return _load_baseline(name, checkpoint, device, backend, precision)
    # A request that cannot be met is refused before anything is read.
    choose(backend, precision or "float32", device, name.startswith(TORCHVISION))
    trained = open_model(name, checkpoint)
    precision = precision or trained.config.train.precision.replace("auto", "float32")  # of a run that never began
    chosen = choose(backend, precision, device, bool(trained.network.library))
    computing: Backend
    if chosen == "torch":
        from alexnet.device import choose_device
        from alexnet.inference.torch_backend import TorchBackend

        computing = TorchBackend(trained.torch_model(), *trained.centring(), precision, choose_device(device))
    elif precision == "int8":
        from alexnet.inference.quantization import quantized

        computing = quantized(trained)
    else:
        computing = trained.interpreter(precision)
    return NetworkPredictor(trained, computing, chosen, precision)


def _load_baseline(
    name: str, checkpoint: str | None, device: str, backend: str | None, precision: str | None
) -> Predictor:
    """A baseline. Raises UsageError for a choice that only networks leave."""
    for flag, value, only in (
        ("checkpoint", checkpoint, None),
        ("device", None if device in ("auto", "cpu") else device, None),
        ("backend", backend, None),
        ("precision", precision, "float32"),
    ):
        if value not in (None, only):
            raise UsageError(f"{name} is a baseline, computed in float32 on the CPU: leave --{flag} {value} out")
    from alexnet.baselines.predictor import load_baseline

    return load_baseline(name)


def _open_run(run: Run, checkpoint: str | None) -> Trained:
    if checkpoint is None:
        checkpoint = "best" if has_checkpoint(run.checkpoints, "best") else "last"
    if checkpoint not in ("best", "last"):
        raise RunError(f"checkpoint {checkpoint!r} of {run.path} should be best or last")
    network, classes = run.config.network, run.classes
    saved = load_checkpoint(run.checkpoints, checkpoint, network)
    check_weights(network, saved.weights, str(run.checkpoints / f"{checkpoint}.safetensors"))
    if saved.damage:  # an older save is used
        warnings.warn(saved.damage, stacklevel=4)
    place = saved.state.get("train")
    steps = place.get("steps") if isinstance(place, dict) else None
    origin = {"run": str(run.path), "checkpoint": checkpoint, "step": steps if type(steps) is int else None}
    mean = load_statistics(run.statistics_file, run.config.data.size).mean_image
    words = checked_words(run.source.get("words"), len(classes))
    return Trained(run.config, saved.weights, mean, tuple(classes), origin, run, words)


def _open_file(name: str, checkpoint: str | None) -> Trained:
    if checkpoint is not None:
        raise UsageError(f"{name} is one file of weights; leave --checkpoint {checkpoint} out")
    network, weights, facts = import_model(name)
    if not facts.size or not facts.classes:  # of a file that was exported without
        raise UsageError(f"{name} does not say its classes and preprocessing; write it with `alexnet export`")
    if facts.center == "mean-image" and facts.mean_image is None:
        raise UsageError(f"{name} has no mean image, which its preprocessing needs; write it with `alexnet export`")
    data = Data(source="", size=facts.size, center=facts.center, exif_rotate=facts.exif_rotate)  # type: ignore[arg-type]
    config = Config(preset=facts.preset, network=network, data=data)
    try:
        check(config)
    except UsageError as error:
        raise UsageError(f"{name}: its description cannot be used: {error}") from None
    words = checked_words(facts.words, len(facts.classes))
    return Trained(config, weights, facts.mean_image, facts.classes, {"run": name}, words=words)
