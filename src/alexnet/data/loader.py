"""Feeding: batches of uint8 crops in an order that is a pure function of seed and epoch.

N images of a batch or split, S the side images are brought to, C the side of a crop.
"""

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.dataset import Split, draws
from alexnet.data.decode import Pixels
from alexnet.device import cpu_count
from alexnet.errors import DataError, UnreadableImage

Offsets = Callable[[int, int, int], NDArray[np.int64]]
Progress = Callable[[int, int], None]

AHEAD = 4  # batches being made while the step works on one


def order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of n images in an epoch, a permutation: (n,) int64. A pure function, the same on any machine."""
    return np.argsort(draws(n, seed, epoch, 0x0DE4), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Images (N, C, C, 3) uint8, labels (N,) int64, positions in the split (N,), seconds waited for it, its step.

    `places` (N,) are the places the images had in the batch as ordered: 0..N−1 unless some could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    positions: NDArray[np.int64]
    places: NDArray[np.int64]
    waited: float
    step: int


@dataclass(frozen=True)
class _Resident:
    """A whole split in memory: images (N, S, S, 3), which of them could be read (N,), and why the others could not."""

    images: Pixels
    readable: NDArray[np.bool_]
    unreadable: dict[str, str]


# One decoded copy serves every feed of the same split and size (training, statistics, evaluation).
_resident: "weakref.WeakKeyDictionary[Split, dict[int, _Resident]]" = weakref.WeakKeyDictionary()
_resident_lock = threading.Lock()


class _Buffers:
    """Batch memory used again once nobody holds it: fresh memory costs the system more than the crops copied into it.

    An array is free when its only reference is the pool's; tensors and their views made of it hold others.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._arrays: list[Pixels] = []
        self._unused = self._references([np.empty(0, np.uint8)], 0)
        # Without the interpreter's lock a count may lag behind, so nothing is used again.
        self._reuse = getattr(sys, "_is_gil_enabled", lambda: True)()

    @staticmethod
    def _references(arrays: list[Pixels], k: int) -> int:
        return sys.getrefcount(arrays[k])

    def take(self) -> Pixels:
        """Return an array of the shape that nobody else holds."""
        for k in range(len(self._arrays)):
            if self._references(self._arrays, k) == self._unused:
                return self._arrays[k]
        made = np.empty(self._shape, np.uint8)
        if self._reuse and len(self._arrays) < AHEAD + 4:
            self._arrays.append(made)
        return made


class Feed:
    """Batches of a split's images brought to size×size (shorter side rescaled, central square cut), epoch by epoch.

    With `crop` and `offsets` a batch is (N, C, C, 3), cut at `offsets(epoch, step, n)`, an (n, 2) array of rows and
    columns; with `crop` alone the central crop is cut; with neither it is (N, S, S, 3). A split that fits into `memory`
    bytes is decoded once, in `workers` threads (default: the cores), else batches are decoded ahead of the step with
    bounded memory. `progress(done, total)` is told while a whole split is being decoded. Images that cannot be read are
    left out of their batch and recorded in `unreadable`, key to reason. The batches are the same for any `workers`.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        batch_size: int,
        seed: int,
        crop: int | None = None,
        offsets: Offsets | None = None,
        shuffle: bool = True,
        workers: int | None = None,
        memory: int = 2 << 30,
        progress: Progress | None = None,
        exif_rotate: bool = False,
    ) -> None:
        if size < 1 or batch_size < 1:
            raise DataError(f"the image size and the batch size must be at least 1, not {size} and {batch_size}")
        if crop is not None and not 1 <= crop <= size:
            raise DataError(f"the crop of {crop} pixels does not fit into images of {size}")
        if offsets is not None and crop is None:
            raise DataError("offsets are given but no crop size")
        self.split, self.size, self.batch_size, self.seed = split, size, batch_size, seed
        self.crop = size if crop is None else crop
        self.offsets, self.shuffle, self.memory, self.progress = offsets, shuffle, memory, progress
        self.workers = workers or cpu_count()
        self.unreadable: dict[str, str] = {}
        self._buffers = _Buffers((batch_size, self.crop, self.crop, 3))

    @property
    def steps(self) -> int:
        """Batches an epoch, the last short one included."""
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on, without making those before it."""
        resident = self._load()
        indices = order(len(self.split), self.seed, epoch) if self.shuffle else np.arange(len(self.split))
        ahead: deque[tuple[int, _Pending]] = deque()
        step = start
        with ThreadPoolExecutor(self.workers, thread_name_prefix="feed") as pool:
            try:
                while True:
                    while step < self.steps and len(ahead) < AHEAD:
                        chosen = indices[step * self.batch_size : (step + 1) * self.batch_size]
                        cuts = self._cuts(epoch, step, len(chosen))
                        ahead.append((step, _Pending(self, pool, resident, chosen, cuts)))
                        step += 1
                    if not ahead:
                        return
                    at, pending = ahead.popleft()
                    began = time.perf_counter()
                    batch = pending.finish(at, began)
                    if len(batch.positions):
                        yield batch
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _cuts(self, epoch: int, step: int, n: int) -> NDArray[np.int64]:
        room = self.size - self.crop
        if self.offsets is None:
            return np.full((n, 2), room // 2, dtype=np.int64)
        cuts = np.asarray(self.offsets(epoch, step, n), dtype=np.int64)
        if cuts.shape != (n, 2) or (n and (cuts.min() < 0 or cuts.max() > room)):
            raise DataError(f"offsets must be ({n}, 2) within 0..{room}, not {cuts.shape}: {cuts[:1].tolist()} ...")
        return cuts

    def _load(self) -> _Resident | None:
        """Decode the whole split once if it fits into memory and is not served from squares already."""
        n = len(self.split)
        if self.split.side == self.size or n * self.size**2 * 3 > self.memory:
            return None
        with _resident_lock:
            found = _resident.setdefault(self.split, {})
            if self.size not in found:
                found[self.size] = self._decode_all()
            resident = found[self.size]
        self.unreadable.update(resident.unreadable)
        return resident

    def _decode_all(self) -> _Resident:
        n = len(self.split)
        images = np.empty((n, self.size, self.size, 3), np.uint8)
        readable = np.ones(n, bool)
        unreadable: dict[int, str] = {}

        def fill(first: int, last: int) -> None:
            for i in range(first, last):
                try:
                    images[i] = self.split.square(i, self.size)
                except UnreadableImage as error:
                    images[i], readable[i], unreadable[i] = 0, False, str(error)

        chunk = 256
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            jobs = [pool.submit(fill, first, min(n, first + chunk)) for first in range(0, n, chunk)]
            try:
                for done, job in enumerate(jobs):
                    job.result()
                    if self.progress is not None:
                        self.progress(min(n, (done + 1) * chunk), n)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return _Resident(images, readable, {self.split.key(i): unreadable[i] for i in sorted(unreadable)})


class _Pending:
    """A batch in the making: its images are written by several threads into one array."""

    def __init__(
        self,
        feed: Feed,
        pool: ThreadPoolExecutor,
        resident: _Resident | None,
        positions: NDArray[np.int64],
        cuts: NDArray[np.int64],
    ) -> None:
        self.feed = feed
        self.positions = positions
        n = len(positions)
        out = feed._buffers.take()[:n]
        self.images = torch.from_numpy(out)
        self.readable = np.ones(n, bool)
        self.jobs: list[Future[None]] = []
        if resident is not None:
            self.jobs.append(pool.submit(self._gather, resident, cuts, out))
        else:
            chunk = -(-n // feed.workers)
            for first in range(0, n, chunk):
                self.jobs.append(pool.submit(self._cut, first, min(n, first + chunk), cuts, out))

    def _gather(self, resident: _Resident, cuts: NDArray[np.int64], out: Pixels) -> None:
        self.readable[:] = resident.readable[self.positions]
        crop = self.feed.crop
        if crop == self.feed.size:
            np.take(resident.images, self.positions, axis=0, out=out)
            return
        for j, (i, (row, column)) in enumerate(zip(self.positions.tolist(), cuts.tolist(), strict=True)):
            out[j] = resident.images[i, row : row + crop, column : column + crop]

    def _cut(self, first: int, last: int, cuts: NDArray[np.int64], out: Pixels) -> None:
        split, size = self.feed.split, self.feed.size
        for j in range(first, last):
            i = int(self.positions[j])
            try:
                split.cut(i, size, int(cuts[j, 0]), int(cuts[j, 1]), out[j])
            except UnreadableImage as error:
                self.readable[j] = False
                self.feed.unreadable[split.key(i)] = str(error)

    def finish(self, step: int, began: float) -> Batch:
        """Wait for the images and return the batch without those that could not be read."""
        for job in self.jobs:
            job.result()
        waited = time.perf_counter() - began
        images, positions = self.images, self.positions
        if not self.readable.all():
            images = images[torch.from_numpy(self.readable)]
            positions = positions[self.readable]
        labels = torch.from_numpy(self.feed.split.labels[positions])
        return Batch(images, labels, positions, np.flatnonzero(self.readable), waited, step)


BatchLoader = Feed
