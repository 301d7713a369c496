"""Checkpoints that survive a kill at any moment: weights as safetensors, state beside them.

A checkpoint is a pair of files that carry the same token. Both are written beside and renamed, and the pair before is
kept as `previous` until the new one is whole; loading takes the newest pair whose tokens agree.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from alexnet.errors import CheckpointError

SUFFIXES = (".safetensors", ".state.pt")


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name and, for `last`, the state of the run."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, name: str, weights: dict[str, Tensor], state: dict[str, Any], token: str) -> None:
    """Write the pair `name.safetensors` and `name.state.pt`. Raises OSError (disk full, say) with nothing lost."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_left_over(folder)
    if any(_previous(folder / f"{name}{suffix}", name).exists() for suffix in SUFFIXES):
        with contextlib.suppress(CheckpointError):
            recover_checkpoint(folder, name)  # an earlier save was interrupted
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    pair = [
        (folder / f"{name}{SUFFIXES[0]}", save(tensors, metadata={"token": token})),
        (folder / f"{name}{SUFFIXES[1]}", _state_bytes({**state, "token": token})),
    ]
    beside = []
    try:
        for path, content in pair:
            beside.append(path.with_name(path.name + ".new"))
            _write(beside[-1], content)
    except OSError:
        for path in beside:
            path.unlink(missing_ok=True)
        raise
    for path, _ in pair:
        if path.exists():
            os.replace(path, _previous(path, name))
    for (path, _), new in zip(pair, beside, strict=True):
        os.replace(new, path)
    _sync(folder)
    for path, _ in pair:
        _previous(path, name).unlink(missing_ok=True)


def load_checkpoint(folder: Path, name: str) -> Checkpoint:
    """The newest whole pair called `name`. Raises CheckpointError where there is none."""
    return _find(folder, name)[0]


def recover_checkpoint(folder: Path, name: str) -> Checkpoint:
    """As `load_checkpoint`, and put the pair back under its name after an interrupted save; for the run's owner."""
    checkpoint, paths = _find(folder, name)
    for path, suffix in zip(paths, SUFFIXES, strict=True):
        if path != folder / (name + suffix):
            os.replace(path, folder / (name + suffix))
    for suffix in SUFFIXES:
        (folder / f"{name}.previous{suffix}").unlink(missing_ok=True)
    return checkpoint


def has_checkpoint(folder: Path, name: str) -> bool:
    """Whether there is any file of that checkpoint, whole or not."""
    return any((folder / f"{stem}.safetensors").exists() for stem in (name, f"{name}.previous"))


def load_weights(model: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Copy weights into a model. Raises CheckpointError naming the first tensor that is missing, extra or misshapen."""
    own = model.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        if key not in weights:
            raise CheckpointError(f"{origin} is of another network: it has no {key}")
        if key not in own:
            raise CheckpointError(f"{origin} is of another network: it has {key}, which this one has not")
        if own[key].shape != weights[key].shape:
            raise CheckpointError(
                f"{origin} is of another network: {key} is {tuple(weights[key].shape)}, here {tuple(own[key].shape)}"
            )
    model.load_state_dict(weights)


def _find(folder: Path, name: str) -> tuple[Checkpoint, tuple[Path, Path]]:
    stems = (name, f"{name}.previous")
    states = {}
    for stem in stems:
        path = folder / f"{stem}.state.pt"
        with contextlib.suppress(OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError):
            state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, dict):
                states[path] = state
    for stem in stems:
        weights = folder / f"{stem}.safetensors"
        with contextlib.suppress(OSError, SafetensorError), safe_open(weights, framework="pt") as file:
            token = (file.metadata() or {}).get("token")
            for path, state in states.items():
                if state.get("token") == token:
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                    return Checkpoint(tensors, state), (weights, path)
    if not has_checkpoint(folder, name):
        raise CheckpointError(f"{folder / name}.safetensors does not exist; the run has not saved yet")
    raise CheckpointError(f"{folder / name}.safetensors and {name}.state.pt are broken or do not belong together")


def _previous(path: Path, name: str) -> Path:
    return path.with_name(path.name.replace(name, f"{name}.previous", 1))


def _state_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make renames outlive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_left_over(folder: Path) -> None:
    for path in folder.glob("*.new"):
        path.unlink(missing_ok=True)
