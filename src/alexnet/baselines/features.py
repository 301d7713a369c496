"""Features of a split on disk, in shards that are written once and mapped: memory does not grow with the images.

A shard holds the features of `SHARD` pictures and, where mirror images count, those of them mirrored behind.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.directory import save_arrays
from alexnet.baselines.grid import Floats, Pixels
from alexnet.baselines.rows import Rows, rounded
from alexnet.checkpoint import read_tensors
from alexnet.data.loader import BatchLoader
from alexnet.data.random import permutation
from alexnet.errors import AlexnetError, CheckpointError
from alexnet.progress import Progress

SHARD = 512  # pictures
TOGETHER = 32  # pictures that a thread encodes at once
GROUP = 256 << 20  # bytes of shards whose rows are mixed
Encode = Callable[[Pixels], Floats]  # (N, S, S, 3) → (N, D)


class FullDisk(AlexnetError):
    """The disk has no room for the features; what is finished is kept."""


@dataclass(frozen=True)
class Shard:
    """Features and labels (int64) of pictures, those of mirror images behind."""

    rows: Rows
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """The shards of a split in a folder: NAME-00000.safetensors, …. `views` is 2 with mirror images, else 1."""

    folder: Path
    name: str
    views: int

    def path(self, number: int) -> Path:
        """A shard's file."""
        return self.folder / f"{self.name}-{number:05d}.safetensors"

    @property
    def finished(self) -> int:
        """How many shards there are."""
        return next(number for number in itertools.count() if not self.path(number).exists())

    @property
    def seconds(self) -> float:
        """How long encoding took, whoever did it."""
        arrays = (read_tensors(self.path(number)) for number in range(self.finished))
        return float(sum(array["seconds"].sum() for array in arrays if "seconds" in array))

    def read(self, number: int) -> Shard:
        """A shard, mapped from its file. Raises CheckpointError."""
        arrays = read_tensors(path := self.path(number))
        try:
            codes, scales, labels = arrays["codes"], arrays["scales"], arrays["labels"]
        except KeyError as error:
            raise CheckpointError(f"{path} is damaged: it has no {error.args[0]}") from None
        if codes.ndim != 2 or scales.shape != codes.shape[:1] or labels.shape != scales.shape:
            raise CheckpointError(f"{path} is damaged: its arrays are of different lengths")
        return Shard(Rows(codes, scales), labels)

    def write(self, loader: BatchLoader, encode: Encode, length: int, threads: Executor, progress: Progress) -> None:
        """Encode what is not there yet, shard by shard; `loader` gives `SHARD` pictures a batch in one order.

        `length` is that of a vector. Raises FullDisk before it begins where there is no room for all of them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self.finished
        begun = time.perf_counter()
        self._check_room((loader.steps - done) * SHARD * self.views * length)
        for batch in loader.epoch(0, start=done):
            images = batch.images.numpy()
            seen = [images, images[:, :, ::-1]][: self.views]
            parts = [view[first : first + TOGETHER] for view in seen for first in range(0, len(images), TOGETHER)]
            encoded = [rounded(features) for features in threads.map(encode, parts)]
            if encoded:
                arrays = {
                    "codes": np.concatenate([part.codes for part in encoded]),
                    "scales": np.concatenate([part.scales for part in encoded]),
                    "labels": np.tile(batch.labels.numpy(), self.views),
                }
            else:  # none of them could be read
                arrays = {"codes": np.zeros((0, 1), np.int8), "scales": np.zeros(0, np.float32)}
                arrays["labels"] = np.zeros(0, np.int64)
            begun, before = time.perf_counter(), begun
            save_arrays(self.path(done), arrays | {"seconds": np.array([begun - before])})
            batch.release()
            done += 1
            progress.decoding(min(done * SHARD, len(loader.split)), len(loader.split))

    def _check_room(self, wanted: int) -> None:
        """Raise FullDisk where the disk has less room than what is to be written, in bytes."""
        free = shutil.disk_usage(self.folder).free
        if free < wanted:
            raise FullDisk(
                f"{self.folder}: the features take {wanted / 2**30:.1f} GiB of disk while they are used, and "
                f"{free / 2**30:.1f} GiB are free: make room"
            )

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """Rows and labels of an epoch in batches, in an order that is a pure function of seed and epoch.

        Shards are mixed, and the rows of as many as fit into `GROUP` bytes; the last few rows of a group are left out.
        """
        count = self.finished
        order = permutation(count, seed, epoch)
        largest = max(self.read(number).rows.codes.nbytes for number in range(count))
        together = max(1, GROUP // max(1, largest))
        for group, first in enumerate(range(0, count, together)):
            shards = [self.read(int(number)) for number in order[first : first + together]]
            shards = [shard for shard in shards if len(shard.labels)]
            if not shards:
                continue
            codes = np.concatenate([shard.rows.codes for shard in shards])
            rows = Rows(codes, np.concatenate([shard.rows.scales for shard in shards]))
            labels = np.concatenate([shard.labels for shard in shards])
            mixed = permutation(len(labels), seed + 1, epoch * count + group)
            for begin in range(0, max(1, len(labels) - size + 1), size):
                chosen = mixed[begin : begin + size]
                yield rows.take(chosen), labels[chosen]

    def shards(self) -> Iterator[Shard]:
        """Every shard in order, without empty ones."""
        for number in range(self.finished):
            if len((shard := self.read(number)).labels):
                yield shard
