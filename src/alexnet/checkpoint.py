"""Checkpoints that survive a kill at any moment: one safetensors file each, without pickle.

Weights stand under their names, velocities under `velocity/NAME`, and everything else is JSON in the header's metadata
under the key `alexnet`, with a checksum of it all under `crc32`. A file is written beside, synced and renamed; before a
new `last` takes its place, the old one becomes `previous`, to which loading falls back where `last` is missing or
damaged.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from alexnet import records
from alexnet.errors import CheckpointError, one_line, quoted
from alexnet.files import atomic_write

KEY, CHECKSUM = "alexnet", "crc32"  # of the header's metadata
VELOCITY = "velocity/"
FALLBACK = {"last": "previous"}  # what is read where a checkpoint is damaged
MAX_HEADER = 8 << 20  # bytes: names of tensors and classes, and a state
MAX_ENTRIES = 200_000  # values in a header
LARGEST_WEIGHT = 1e9  # beyond it no network of float32 numbers computes anything
DTYPES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}
DTYPES |= {"F64": 8, "I64": 8, "U64": 8}
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


def load_checkpoint(folder: Path, name: str, model: nn.Module | None = None) -> Checkpoint:
    """The checkpoint called `name`, or the one before a `last` that is missing or damaged; `damage` then says so.

    Raises CheckpointError where there is none, and where its weights do not fit `model`, which may be without values
    (on the device `meta`): a file that does not fit is not read.
    """
    path = folder / f"{name}.safetensors"
    if not has_checkpoint(folder, name):
        raise CheckpointError(f"{path} does not exist; the run has not saved yet")
    try:
        return read_checkpoint(path, model)
    except OtherNetworkError:
        raise
    except CheckpointError as error:
        if name not in FALLBACK:
            raise
        before = path.with_stem(FALLBACK[name])
        if not before.exists():
            raise
        try:
            checkpoint = read_checkpoint(before, model)
        except CheckpointError:
            raise CheckpointError(f"{error}; the one before it, {before.name}, is damaged too") from None
        return dataclasses.replace(checkpoint, damage=f"{error}; the one before it is used: {before}")


def recover_checkpoint(folder: Path, name: str, model: nn.Module | None = None) -> Checkpoint:
    """As `load_checkpoint`, and put a fallback in the place of the damaged file; for the process that trains."""
    checkpoint = load_checkpoint(folder, name, model)
    if checkpoint.damage:  # else the next save would move the damaged one over the good one
        os.replace(checkpoint.origin, folder / f"{name}.safetensors")
    return checkpoint


def check_fit(folder: Path, name: str, model: nn.Module) -> None:
    """Raise CheckpointError where a checkpoint is of another network, or where neither it nor its fallback can be read.

    Only headers are read; `model` may be without values.
    """
    problem: CheckpointError | None = None
    for stem in dict.fromkeys((name, FALLBACK.get(name, name))):
        try:
            _check_header(read_header(path := folder / f"{stem}.safetensors"), model, path)
            return
        except OtherNetworkError:
            raise
        except CheckpointError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def has_checkpoint(folder: Path, name: str) -> bool:
    """Whether there is a file of that checkpoint, whole or not."""
    return any((folder / f"{stem}.safetensors").exists() for stem in (name, FALLBACK.get(name, name)))


def read_checkpoint(path: Path, model: nn.Module | None = None) -> Checkpoint:
    """One file, also one without state or velocities. Raises CheckpointError naming it where it cannot be read.

    Where `model` is given, a file whose weights do not fit it is told by its header alone.
    """
    header = read_header(path)
    if model is not None:
        _check_header(header, model, path)
    tensors, text = read_tensors(path), header.texts.get(KEY, "{}")
    if header.texts.get(CHECKSUM, "") not in ("", checksum(tensors, text)):
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its content")
    try:
        state = records.parse_json(text, MAX_ENTRIES)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: its state: {error}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: its state should be an object in braces")
    velocities = {key.removeprefix(VELOCITY): value for key, value in tensors.items() if key.startswith(VELOCITY)}
    weights = {key: value for key, value in tensors.items() if not key.startswith(VELOCITY)}
    return Checkpoint(weights, velocities, state, str(path))


@dataclass(frozen=True)
class Header:
    """What a safetensors file says before its tensors: texts by name, and the shape of every tensor."""

    texts: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, whose tensors are checked to fill it; they are not read.

    Raises CheckpointError for what is not such a file.
    """
    try:
        header, size = _parse_header(path)
        texts = header.pop("__metadata__", {})
        places = {name: _place(name, entry) for name, entry in header.items()}
        _check_filled({name: place for name, (_, place) in places.items()}, size)
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("its metadata should be texts by name")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged or is not a safetensors file: {error}") from None
    return Header(texts, {name: shape for name, (shape, _) in places.items()})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises CheckpointError."""
    read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or is not a safetensors file ({one_line(error)})") from None


class OtherNetworkError(CheckpointError):
    """Weights of another network than they should fit; the file is whole."""


def _parse_header(path: str | Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and how many bytes follow it. Raises OSError and ValueError."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        length = int.from_bytes(file.read(8), "little")
        if status.st_size < 8 or length > status.st_size - 8:
            raise ValueError("it ends within its header")
        if length > MAX_HEADER:
            raise ValueError(f"its header of {length:,} bytes is longer than {MAX_HEADER:,}")
        try:
            header = records.parse_json(file.read(length).decode(), MAX_ENTRIES)
        except UnicodeDecodeError:
            raise ValueError("its header is not UTF-8") from None
    if not isinstance(header, dict):
        raise ValueError("its header should be an object in braces")
    return header, status.st_size - 8 - length


def _place(name: str, entry: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    """A tensor's shape and place in the file, from the header. Raises ValueError."""
    what = f"the tensor {quoted(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} should have dtype, shape and data_offsets")
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    for numbers in (shape, place):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**53 for n in numbers):
            raise ValueError(f"{what} should have whole numbers from 0 on as shape and data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{what} has the dtype {quoted(dtype)}, which is not known")
    if len(place) != 2 or len(shape) > 16 or place[1] - place[0] != math.prod(shape) * DTYPES[dtype]:
        raise ValueError(f"{what} of {dtype} {quoted(shape)} is not as long as its place")
    return tuple(shape), (place[0], place[1])


def _check_filled(places: Mapping[str, tuple[int, int]], size: int) -> None:
    """Raise ValueError unless the tensors follow each other from 0 to the end of the file."""
    end = 0
    for first, last, name in sorted((*place, name) for name, place in places.items()):
        if first != end:
            raise ValueError(f"the data of {quoted(name)} does not follow what is before it")
        end = last
    if end != size:
        raise ValueError(f"its tensors are {end:,} bytes, and it holds {size:,}")


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a model's state."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def check_shapes(own: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]], origin: str) -> None:
    """Raise OtherNetworkError naming the first weight that is missing, not known, or of another shape."""
    for key in sorted(own.keys() | theirs.keys()):
        if key not in theirs:
            raise OtherNetworkError(f"{origin} is of another network: it has no {key}")
        if key not in own:
            name = quoted(key)[1:-1]
            raise OtherNetworkError(f"{origin} is of another network: it has {name}, which this one does not have")
        if own[key] != theirs[key]:
            raise OtherNetworkError(f"{origin} is of another network: {key} is {theirs[key]}, here {own[key]}")


def _check_header(header: Header, model: nn.Module, path: Path) -> None:
    """Raise OtherNetworkError where weights do not fit a model, or a velocity is larger than its weights."""
    own = shapes_of(model)
    check_shapes(own, {name: s for name, s in header.shapes.items() if not name.startswith(VELOCITY)}, str(path))
    for name, shape in header.shapes.items():
        if name.startswith(VELOCITY) and math.prod(shape) > math.prod(own.get(name.removeprefix(VELOCITY), (1,))):
            raise OtherNetworkError(f"{path} has {quoted(name)} of {shape}, which is larger than its weights")


def checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """The CRC-32 of a state and of tensors in the order of their names, in hexadecimal."""
    crc = zlib.crc32(state.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into a model. Raises CheckpointError naming the first tensor that does not fit or is not finite."""
    own = model.state_dict()
    check_shapes(shapes_of(model), {name: tuple(value.shape) for name, value in weights.items()}, origin)
    for key in sorted(own):
        if own[key].dtype != weights[key].dtype:
            raise CheckpointError(f"{origin}: {key} is {weights[key].dtype}, here {own[key].dtype}")
        if not weights[key].isfinite().all():
            raise CheckpointError(f"{origin}: {key} has values that are not finite")
        if weights[key].is_floating_point() and weights[key].numel() and weights[key].abs().max() > LARGEST_WEIGHT:
            raise CheckpointError(f"{origin}: {key} has values beyond ±{LARGEST_WEIGHT:g}; the training diverged")
    model.load_state_dict(dict(weights))


def read_record(kind: type[Record], value: Any, where: str) -> Record:
    """As `records.read_record`; raises CheckpointError."""
    return records.read_record(kind, value, where, CheckpointError)
