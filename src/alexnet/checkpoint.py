"""Checkpoints that survive a kill at any moment: one safetensors file each, without pickle.

They are read without torch: weights are NumPy arrays mapped from the file, so that what is not used is not read.

Weights stand under their names, velocities under `velocity/NAME`, and everything else is JSON in the header's metadata
under the key `alexnet`, with a checksum of it all under `crc32`. A file is written beside, synced and renamed; before a
new `last` takes its place, the old one becomes `previous`, to which loading falls back where `last` is missing or
damaged.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet import records
from alexnet.architecture import Network, weight_shapes
from alexnet.errors import CheckpointError, quoted
from alexnet.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY, CHECKSUM = "alexnet", "crc32"  # of the header's metadata
VELOCITY = "velocity/"
FALLBACK = {"last": "previous"}  # what is read where a checkpoint is damaged
MAX_HEADER = 8 << 20  # bytes: names of tensors and classes, and a state
MAX_ENTRIES = 200_000  # values in a header
LARGEST_WEIGHT = 1e9  # beyond it no network of float32 numbers computes anything
DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4"}
DTYPES |= {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8", "BF16": "<u2"}  # NumPy has no bfloat16: its bits
Record = TypeVar("Record")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name; for `last` also velocities by name; `state` is what else a run needs to go on.

    `origin` is the file it was read from, `damage` what to warn of where that is not the one asked for. What was read
    are arrays; what is to be saved may be tensors on any device.
    """

    weights: Arrays
    velocities: Arrays = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    damage: str = ""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` (`checkpoints/last.safetensors`). Raises OSError, on a full disk for example, with nothing lost."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = arrays({**checkpoint.weights, **{VELOCITY + name: v for name, v in checkpoint.velocities.items()}})
    state = json.dumps(checkpoint.state, allow_nan=False)
    content = save(tensors, metadata={KEY: state, CHECKSUM: checksum(tensors, state)})
    with atomic_write(path) as file:
        file.write(content)
        if path.stem in FALLBACK and path.exists():
            file.flush()
            os.fsync(file.fileno())  # the new one is whole before the old one moves
            os.replace(path, path.with_stem(FALLBACK[path.stem]))


def arrays(tensors: Mapping[str, Tensor | NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Tensors on any device, or arrays, as contiguous arrays."""
    return {
        name: np.asarray(value if isinstance(value, np.ndarray) else value.detach().cpu().numpy(), order="C")
        for name, value in tensors.items()
    }


def load_checkpoint(folder: Path, name: str, network: Network | None = None) -> Checkpoint:
    """The checkpoint called `name`, or the one before a `last` that is missing or damaged; `damage` then says so.

    Raises CheckpointError where there is none, and where its weights do not fit `network`: such a file is not read.
    """
    path = folder / f"{name}.safetensors"
    if not has_checkpoint(folder, name):
        raise CheckpointError(f"{path} does not exist; the run has not saved yet")
    try:
        return read_checkpoint(path, network)
    except OtherNetworkError:
        raise
    except CheckpointError as error:
        if name not in FALLBACK:
            raise
        before = path.with_stem(FALLBACK[name])
        if not before.exists():
            raise
        try:
            checkpoint = read_checkpoint(before, network)
        except CheckpointError:
            raise CheckpointError(f"{error}; the one before it, {before.name}, is damaged too") from None
        return dataclasses.replace(checkpoint, damage=f"{error}; the one before it is used: {before}")


def recover_checkpoint(folder: Path, name: str, network: Network | None = None) -> Checkpoint:
    """As `load_checkpoint`, and put a fallback in the place of the damaged file; for the process that trains."""
    checkpoint = load_checkpoint(folder, name, network)
    if checkpoint.damage:  # else the next save would move the damaged one over the good one
        os.replace(checkpoint.origin, folder / f"{name}.safetensors")
    return checkpoint


def check_fit(folder: Path, name: str, network: Network) -> None:
    """Raise CheckpointError where a checkpoint is of another network, or where neither it nor its fallback can be read.

    Only headers are read.
    """
    problem: CheckpointError | None = None
    for stem in dict.fromkeys((name, FALLBACK.get(name, name))):
        try:
            _check_header(read_header(path := folder / f"{stem}.safetensors"), network, path)
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


def read_checkpoint(path: Path, network: Network | None = None) -> Checkpoint:
    """One file, also one without state or velocities. Raises CheckpointError naming it where it cannot be read.

    Where `network` is given, a file whose weights do not fit it is told by its header alone.
    """
    header = read_header(path)
    if network is not None:
        _check_header(header, network, path)
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
    """What a safetensors file says before its tensors: texts by name, and shape, dtype and place of every tensor.

    A place is the first byte of a tensor's data and the first one after them, counted from `start` in the file.
    """

    texts: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]]
    places: Mapping[str, tuple[int, int]]
    start: int


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, whose tensors are checked to fill it; they are not read.

    Raises CheckpointError for what is not such a file.
    """
    return _read(path, whole=False)[0]


def read_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file by name, mapped: writing to them changes no file. Raises CheckpointError."""
    return _read(path, whole=True)[1]


def _read(path: str | Path, whole: bool) -> tuple[Header, dict[str, NDArray[Any]]]:
    """The header of a safetensors file, and where `whole` its tensors."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            header = _parse_header(file)
            content = mmap.mmap(handle, 0, access=mmap.ACCESS_COPY) if whole else b""
        tensors = {
            name: np.ndarray(header.shapes[name], header.dtypes[name], content, header.start + first)
            for name, (first, _) in (header.places.items() if whole else ())
        }
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged or is not a safetensors file: {error}") from None
    return header, {name: np.require(value, requirements="A") for name, value in tensors.items()}


class OtherNetworkError(CheckpointError):
    """Weights of another network than they should fit; the file is whole."""


def _parse_header(file: IO[bytes]) -> Header:
    """The header of an open safetensors file. Raises OSError and ValueError."""
    status = os.fstat(file.fileno())
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
    texts = header.pop("__metadata__", {})
    places = {name: _place(name, entry) for name, entry in header.items()}
    _check_filled(places, status.st_size - 8 - length)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its metadata should be texts by name")
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    dtypes = {name: np.dtype(DTYPES[entry["dtype"]]) for name, entry in header.items()}
    return Header(texts, shapes, dtypes, places, 8 + length)


def _place(name: str, entry: Any) -> tuple[int, int]:
    """A tensor's place in the file, from an entry of the header that is checked. Raises ValueError."""
    what = f"the tensor {quoted(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} should have dtype, shape and data_offsets")
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    for numbers in (shape, place):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**53 for n in numbers):
            raise ValueError(f"{what} should have whole numbers from 0 on as shape and data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{what} has the dtype {quoted(dtype)}, which is not known")
    if len(place) != 2 or len(shape) > 16 or place[1] - place[0] != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{what} of {dtype} {quoted(shape)} is not as long as its place")
    return place[0], place[1]


def _check_filled(places: Mapping[str, tuple[int, int]], size: int) -> None:
    """Raise ValueError unless the tensors follow each other from 0 to the end of the file."""
    end = 0
    for first, last, name in sorted((*place, name) for name, place in places.items()):
        if first != end:
            raise ValueError(f"the data of {quoted(name)} does not follow what is before it")
        end = last
    if end != size:
        raise ValueError(f"its tensors are {end:,} bytes, and it holds {size:,}")


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a network's state, by name. Raises UsageError for a network that cannot be."""
    if not network.library:
        return weight_shapes(network)
    from alexnet.model.zoo import blank

    return {name: tuple(value.shape) for name, value in blank(network).state_dict().items()}


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


def _check_header(header: Header, network: Network, path: Path) -> None:
    """Raise OtherNetworkError where weights do not fit a network, or a velocity is larger than its weights."""
    own = shapes_of(network)
    check_shapes(own, {name: s for name, s in header.shapes.items() if not name.startswith(VELOCITY)}, str(path))
    for name, shape in header.shapes.items():
        if name.startswith(VELOCITY) and math.prod(shape) > math.prod(own.get(name.removeprefix(VELOCITY), (1,))):
            raise OtherNetworkError(f"{path} has {quoted(name)} of {shape}, which is larger than its weights")


def checksum(tensors: Arrays, state: str) -> str:
    """The CRC-32 of a state and of contiguous arrays in the order of their names, in hexadecimal."""
    crc = zlib.crc32(state.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(np.uint8).data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def check_values(weights: Arrays, origin: str) -> None:
    """Raise CheckpointError naming the first tensor with values that no trained network has."""
    for key in sorted(weights):
        if weights[key].dtype.kind != "f" or not weights[key].size:
            continue
        low, high = float(weights[key].min()), float(weights[key].max())  # what is no number comes through
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CheckpointError(f"{origin}: {key} has values that are not finite")
        if max(-low, high) > LARGEST_WEIGHT:
            raise CheckpointError(f"{origin}: {key} has values beyond ±{LARGEST_WEIGHT:g}; the training diverged")


def check_weights(network: Network, weights: Arrays, origin: str) -> None:
    """Raise CheckpointError naming the first tensor that does not fit a network or is not finite."""
    check_shapes(shapes_of(network), {name: value.shape for name, value in weights.items()}, origin)
    for key in sorted(weights):
        if weights[key].dtype != np.float32 and not network.library:  # whose batch norms count in whole numbers
            raise CheckpointError(f"{origin}: {key} is {weights[key].dtype}, here float32")
    check_values(weights, origin)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor | NDArray[Any]], origin: str) -> None:
    """Copy weights into a model. Raises CheckpointError naming the first tensor that does not fit or is not finite."""
    import torch

    own, theirs = model.state_dict(), arrays(weights)
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    check_shapes(shapes, {name: value.shape for name, value in theirs.items()}, origin)
    for key in sorted(own):
        kind = str(own[key].dtype).removeprefix("torch.")
        if theirs[key].dtype.name != kind:
            raise CheckpointError(f"{origin}: {key} is {theirs[key].dtype}, here {kind}")
    check_values(theirs, origin)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in theirs.items()})


def read_record(kind: type[Record], value: Any, where: str) -> Record:
    """As `records.read_record`; raises CheckpointError."""
    return records.read_record(kind, value, where, CheckpointError)
