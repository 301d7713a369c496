"""A batch, the draw that came with it, and the memory that batches lie in.

N images of a batch, C the side of a crop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Draw:
    """What is drawn for the images of a batch.

    Crop corners `offsets` (N, 2) int64, row and column; `mirrored` (N,) bool; colour `factors` (N, 3) float32.
    """

    offsets: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    factors: NDArray[np.float32]

    def take(self, chosen: NDArray[np.bool_]) -> Draw:
        """Return the draw of some of the images: `chosen` (N,) bool."""
        return Draw(self.offsets[chosen], self.mirrored[chosen], self.factors[chosen])


class Ring:
    """Batch memory that is used again: fresh pages cost the system more time than the crops copied into them.

    Memory comes back only by `Lease.release`, so what nobody gave back is never written again, whoever still reads it.
    """

    def __init__(self, shape: tuple[int, ...], pin: bool = False, most: int = 8) -> None:
        """`pin` takes page-locked memory, which a GPU copies from while the CPU goes on; `most` are kept."""
        self.shape, self.pin = shape, pin
        self._free: deque[tuple[torch.Tensor, torch.cuda.Event | None]] = deque(maxlen=most)

    def take(self) -> Lease:
        """Return memory that nobody reads: waits for a copy to a GPU that is still under way."""
        try:
            memory, copied = self._free.popleft()
        except IndexError:
            return Lease(self, torch.empty(self.shape, dtype=torch.uint8, pin_memory=self.pin))
        if copied is not None:
            copied.synchronize()
        return Lease(self, memory)

    def give_back(self, memory: torch.Tensor, copied: torch.cuda.Event | None) -> None:
        """Keep memory for `take`; with `copied` until that has happened on its GPU."""
        self._free.append((memory, copied))


class Lease:
    """A batch's memory, uint8, until it is released."""

    def __init__(self, ring: Ring, memory: torch.Tensor) -> None:
        self.ring, self.memory = ring, memory
        self._released = False

    def release(self, device: torch.device | None = None) -> None:
        """Give the memory back, once; it is used again after what `device`, a GPU, has been asked to do until now."""
        if self._released:
            return
        self._released = True
        copied = None
        if device is not None and device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(device))
        self.ring.give_back(self.memory, copied)


@dataclass(frozen=True)
class Batch:
    """Images (N, C, C, 3) uint8, labels (N,) int64, positions in the split (N,) int64, and how they came about.

    `draw` is that of training, None where nothing is drawn. Images that could not be read are missing from all four,
    so N may be 0. `wait_seconds` is how long the step waited for it, `step` its number in the epoch.
    """

    images: torch.Tensor
    labels: torch.Tensor
    positions: NDArray[np.int64]
    draw: Draw | None
    wait_seconds: float
    step: int
    lease: Lease | None = field(default=None, repr=False, compare=False)

    def release(self, device: torch.device | None = None) -> None:
        """Say that the images will not be read after the next batch is asked for, so that their memory can be reused.

        Never needed, but it saves fresh memory for each batch. A `device` that is a GPU may still be copying them.
        """
        if self.lease is not None:
            self.lease.release(device)
