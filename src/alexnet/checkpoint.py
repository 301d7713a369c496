"""Checkpoints that survive a kill at any moment: one safetensors file each, without pickle.

Weights stand under their names, velocities under `velocity/NAME`, and everything else is JSON in the header's metadata
under the key `alexnet`, with a checksum of it all under `crc32`. A file is written beside, synced and renamed; before a
new `last` takes its place, the old one becomes `previous`, to which loading falls back where `last` is missing or
damaged.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from alexnet.errors import CheckpointError
from alexnet.files import atomic_write

KEY, CHECKSUM = "alexnet", "crc32"  # of the header's metadata
VELOCITY = "velocity/"
FALLBACK = {"last": "previous"}  # what is read where a checkpoint is damaged
LARGEST = 1e100  # of a state's numbers: sums of float32 numbers are far below
Record = TypeVar("Record")


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name; for `last` also velocities by name; `state` is what else a run needs to go on.

    `origin` is the file it was read from, `damage` what to warn of where that is not the one asked for.
    """

    weights: Mapping[str, Tensor]
    velocities: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    damage: str = ""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` (`checkpoints/last.safetensors`). Raises OSError, on a full disk for example, with nothing lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {**checkpoint.weights, **{VELOCITY + name: value for name, value in checkpoint.velocities.items()}}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    state = json.dumps(checkpoint.state, allow_nan=False)
    content = save(tensors, metadata={KEY: state, CHECKSUM: checksum(tensors, state)})
    with atomic_write(path) as file:
        file.write(content)
        if path.stem in FALLBACK and path.exists():
            file.flush()
            os.fsync(file.fileno())  # the new one is whole before the old one moves
            os.replace(path, path.with_stem(FALLBACK[path.stem]))


def load_checkpoint(folder: Path, name: str) -> Checkpoint:
    """The checkpoint called `name`, or the one before a `last` that is missing or damaged; `damage` then says so.

    Raises CheckpointError where there is none.
    """
    path = folder / f"{name}.safetensors"
    if not has_checkpoint(folder, name):
        raise CheckpointError(f"{path} does not exist; the run has not saved yet")
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        if name not in FALLBACK:
            raise
        before = path.with_stem(FALLBACK[name])
        if not before.exists():
            raise
        try:
            checkpoint = read_checkpoint(before)
        except CheckpointError:
            raise CheckpointError(f"{error}; the one before it, {before.name}, is damaged too") from None
        return dataclasses.replace(checkpoint, damage=f"{error}; the one before it is used: {before}")


def recover_checkpoint(folder: Path, name: str) -> Checkpoint:
    """As `load_checkpoint`, and put a fallback in the place of the damaged file; for the process that trains."""
    checkpoint = load_checkpoint(folder, name)
    if checkpoint.damage:  # else the next save would move the damaged one over the good one
        os.replace(checkpoint.origin, folder / f"{name}.safetensors")
    return checkpoint


def has_checkpoint(folder: Path, name: str) -> bool:
    """Whether there is a file of that checkpoint, whole or not."""
    return any((folder / f"{stem}.safetensors").exists() for stem in (name, FALLBACK.get(name, name)))


def read_checkpoint(path: Path) -> Checkpoint:
    """One file, also one without state or velocities. Raises CheckpointError naming it where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        text = header.get(KEY, "{}")
        state = json.loads(text)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or is not a safetensors file ({error})") from None
    if header.get(CHECKSUM, "") not in ("", checksum(tensors, text)):
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its content")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: its state should be an object in braces")
    velocities = {key.removeprefix(VELOCITY): value for key, value in tensors.items() if key.startswith(VELOCITY)}
    weights = {key: value for key, value in tensors.items() if not key.startswith(VELOCITY)}
    return Checkpoint(weights, velocities, state, str(path))


def checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """The CRC-32 of a state and of tensors in the order of their names, in hexadecimal."""
    crc = zlib.crc32(state.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into a model. Raises CheckpointError naming the first tensor that does not fit or is not finite."""
    own = model.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        if key not in weights:
            raise CheckpointError(f"{origin} is of another network: it has no {key}")
        if key not in own:
            raise CheckpointError(f"{origin} is of another network: it has {key}, which this one does not have")
        if own[key].shape != weights[key].shape:
            raise CheckpointError(
                f"{origin} is of another network: {key} is {tuple(weights[key].shape)}, here {tuple(own[key].shape)}"
            )
        if own[key].dtype != weights[key].dtype:
            raise CheckpointError(f"{origin}: {key} is {weights[key].dtype}, here {own[key].dtype}")
        if not weights[key].isfinite().all():
            raise CheckpointError(f"{origin}: {key} has values that are not finite")
    model.load_state_dict(dict(weights))


def read_record(kind: type[Record], value: Any, where: str) -> Record:
    """A dataclass from a checkpoint's JSON, each field checked: whole numbers from 0 on, numbers, texts, ….

    Raises CheckpointError naming the first field that is missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} {value!r} should be an object in braces")
    hints = typing.get_type_hints(kind)
    for name in [*hints, *value]:
        if name not in value:
            raise CheckpointError(f"{where}.{name} is missing")
        if name not in hints:
            raise CheckpointError(f"{where}.{name} is not known")
    return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else _read(parts[0], value, where)
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast(type, hint), value, where)
    if origin is dict and isinstance(value, dict):
        return {key: _read(parts[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_read(parts[0], entry, where) for entry in value)
    if hint is float:
        if type(value) in (int, float) and abs(value) < LARGEST:
            return float(value)
    elif type(value) is hint and not (hint is int and not 0 <= value < 2**53):
        return value
    wanted = {
        int: "a whole number from 0 to 2**53",
        float: f"a number within ±{LARGEST:g}",
        bool: "true or false",
        str: "a text",
    }
    raise CheckpointError(
        f"{where} {value!r} should be {wanted.get(hint, 'an object' if origin is dict else 'a list')}"
    )
