"""Batches of uint8 crops in an order that is a pure function of seed and epoch.

N images of a batch or split, S the side that images are brought to, C the side of a crop.
"""

from __future__ import annotations

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

from alexnet.data.batch import Batch, Draw, Ring
from alexnet.data.dataset import OnProgress, Split
from alexnet.data.decode import Pixels
from alexnet.data.random import permutation
from alexnet.device import cpu_count
from alexnet.errors import DataError, UnreadableImage

Draws = Callable[[int, NDArray[np.int64], NDArray[np.int64]], Draw]  # of an epoch, positions and places in its order

AHEAD = 4  # batches being made while the step works on one


@dataclass(frozen=True)
class _Resident:
    """A whole split in memory: images (N, S, S, 3), which of them could be read (N,), and why the others could not."""

    images: Pixels
    readable: NDArray[np.bool_]
    unreadable: dict[str, str]


# One decoded copy serves every loader of the same split and size (training, statistics, evaluation).
_resident: weakref.WeakKeyDictionary[Split, dict[int, _Resident]] = weakref.WeakKeyDictionary()
_resident_lock = threading.Lock()


class BatchLoader:
    """Batches of a split's images brought to size×size (shorter side rescaled, central square cut), epoch by epoch.

    A batch is (N, S, S, 3); with `crop` (N, C, C, 3), cut at the centre or where `draws` says. `draws(epoch, positions,
    places)` is called once per batch with the images' positions in the split and their places in the epoch's order, and
    rides in it. A split that fits into `memory` bytes is decoded once and kept while it lives; of others a few batches
    are made ahead of the step. `workers` threads decode (default: the cores); `progress(done, total)` is called while a
    whole split is decoded. Images that cannot be read are left out and recorded in `unreadable`, name to reason.

    `batch_size` counts the images of all `world_size` processes: process `rank` gets its share of each batch, which may
    be empty, and all have the same number of steps. `pin` puts batches into page-locked memory, for copies to a GPU.
    The images are the same for any `workers` and `memory`, and what is drawn for one for any `batch_size` and rank.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        batch_size: int,
        seed: int,
        crop: int | None = None,
        draws: Draws | None = None,
        shuffle: bool = True,
        workers: int | None = None,
        memory: int = 2 << 30,
        progress: OnProgress | None = None,
        rank: int = 0,
        world_size: int = 1,
        pin: bool = False,
        exif_rotate: bool = False,
    ) -> None:
        """Raises `DataError` for sizes that cannot be."""
        if size < 1 or batch_size < 1:
            raise DataError(f"the image size and the batch size must be at least 1, not {size} and {batch_size}")
        if crop is not None and not 1 <= crop <= size:
            raise DataError(f"the crop of {crop} pixels does not fit into images of {size}")
        if draws is not None and crop is None:
            raise DataError("draws are given but no crop size")
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} does not lie within the {world_size} processes")
        self.split = split.rotated() if exif_rotate else split
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.crop = size if crop is None else crop
        self.draws, self.shuffle, self.memory, self.progress = draws, shuffle, memory, progress
        self.rank, self.world_size = rank, world_size
        self.workers = workers or cpu_count()
        self.unreadable: dict[str, str] = {}
        most = -(-min(batch_size, len(split)) // world_size)
        self._ring = Ring((most, self.crop, self.crop, 3), pin, AHEAD + 2)

    @property
    def steps(self) -> int:
        """Batches per epoch, the last short one included."""
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on, without making those before it."""
        resident = self._load()
        n = len(self.split)
        order = permutation(n, self.seed, epoch) if self.shuffle else np.arange(n)
        ahead: deque[_Pending] = deque()
        step = start
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            try:
                while True:
                    while step < self.steps and len(ahead) < AHEAD:
                        places = self._share(step)
                        positions = order[places]
                        draw = self._draw(epoch, positions, places)
                        ahead.append(_Pending(self, pool, resident, step, positions, draw))
                        step += 1
                    if not ahead:
                        return
                    yield ahead.popleft().finish()
            finally:
                # Until the threads have ended, they write into the memory of batches that nobody will see.
                pool.shutdown(wait=True, cancel_futures=True)

    def _share(self, step: int) -> NDArray[np.int64]:
        """Return the places in the epoch's order of this process's images of a step."""
        first = step * self.batch_size
        count = min(len(self.split), first + self.batch_size) - first
        ends = [first + count * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return np.arange(*ends, dtype=np.int64)

    def _draw(self, epoch: int, positions: NDArray[np.int64], places: NDArray[np.int64]) -> Draw | None:
        if self.draws is None:
            return None
        draw, room = self.draws(epoch, positions, places), self.size - self.crop
        offsets = draw.offsets
        if offsets.shape != (len(places), 2) or (len(places) and (offsets.min() < 0 or offsets.max() > room)):
            raise DataError(
                f"offsets must be ({len(places)}, 2) within 0..{room}, not {offsets.shape}: {offsets[:1].tolist()} ..."
            )
        return draw

    def _load(self) -> _Resident | None:
        """Decode the whole split once if it fits into memory and is not served from squares already."""
        n = len(self.split)
        if self.split.side == self.size or n * self.size**2 * 3 > self.memory:
            return None
        with _resident_lock:
            copies = _resident.setdefault(self.split, {})
            if self.size not in copies:
                copies[self.size] = self._decode_all()
            resident = copies[self.size]
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
                    images[i] = self.split.resize_crop(i, self.size)
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
        return _Resident(images, readable, {self.split.image_name(i): unreadable[i] for i in sorted(unreadable)})


class _Pending:
    """A batch in the making: its images are written by several threads into one array."""

    def __init__(
        self,
        loader: BatchLoader,
        pool: ThreadPoolExecutor,
        resident: _Resident | None,
        step: int,
        positions: NDArray[np.int64],
        draw: Draw | None,
    ) -> None:
        self.loader, self.step, self.positions, self.draw = loader, step, positions, draw
        n = len(positions)
        middle = (loader.size - loader.crop) // 2
        self.offsets = np.full((n, 2), middle) if draw is None else draw.offsets
        self.lease = loader._ring.take()
        out: Pixels = self.lease.memory.numpy()[:n]
        self.readable = np.ones(n, bool)
        self.jobs: list[Future[None]] = []
        if resident is not None:
            self.jobs.append(pool.submit(self._gather, resident, out))
        else:
            chunk = max(1, -(-n // loader.workers))
            for first in range(0, n, chunk):
                self.jobs.append(pool.submit(self._read, first, min(n, first + chunk), out))

    def _gather(self, resident: _Resident, out: Pixels) -> None:
        self.readable[:] = resident.readable[self.positions]
        crop = self.loader.crop
        if crop == self.loader.size:
            np.take(resident.images, self.positions, axis=0, out=out)
            return
        for j, (i, (row, column)) in enumerate(zip(self.positions.tolist(), self.offsets.tolist(), strict=True)):
            out[j] = resident.images[i, row : row + crop, column : column + crop]

    def _read(self, first: int, last: int, out: Pixels) -> None:
        split, size = self.loader.split, self.loader.size
        for j in range(first, last):
            i = int(self.positions[j])
            try:
                split.crop_into(i, size, int(self.offsets[j, 0]), int(self.offsets[j, 1]), out[j])
            except UnreadableImage as error:
                self.readable[j] = False
                self.loader.unreadable[split.image_name(i)] = str(error)

    def finish(self) -> Batch:
        """Wait for the images and return the batch without those that could not be read."""
        began = time.perf_counter()
        for job in self.jobs:
            job.result()
        wait_seconds = time.perf_counter() - began
        images, positions, draw = self.lease.memory[: len(self.positions)], self.positions, self.draw
        if not self.readable.all():
            images, positions = images[torch.from_numpy(self.readable)], positions[self.readable]  # copies
            draw = None if draw is None else draw.take(self.readable)
            self.lease.release()
        labels = torch.from_numpy(self.loader.split.labels[positions])
        return Batch(images, labels, positions, draw, wait_seconds, self.step, self.lease)
