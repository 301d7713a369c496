"""Where the maps of a forward pass lie: two neighbouring layers at a time, at the two ends of one piece of memory.

Shapes: `N` images, `H W` rows and columns, `C` maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.library import Dtype
from alexnet.engine.plain import from_bfloat16

Call = Callable[[int, int], None]
ALIGNED = 64  # bytes: a line of the cache
STORED: dict[Dtype, np.dtype[Any]] = {Dtype.FLOAT32: np.dtype(np.float32), Dtype.BFLOAT16: np.dtype(np.uint16)}


@dataclass(frozen=True)
class Maps:
    """What lies in memory: (N, H, W, C) or (N, units), and of what type."""

    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return math.prod(self.shape) * STORED[self.dtype].itemsize

    @property
    def room(self) -> int:
        """Those bytes, up to the next line of the cache."""
        return -(-self.bytes // ALIGNED) * ALIGNED

    def read(self, memory: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
        """A float32 copy of what lies at a place in memory."""
        values = memory[at : at + self.bytes].view(STORED[self.dtype]).reshape(self.shape)
        return from_bfloat16(values) if self.dtype == Dtype.BFLOAT16 else values.copy()


@dataclass(frozen=True)
class Operation:
    """One call: of the address of its input and that of its output, which are the same where it works `in_place`.

    `name` is the tap that its output is.
    """

    name: str
    out: Maps
    call: Call
    in_place: bool = False


@dataclass(frozen=True)
class Stage:
    """An operation with the places of its input and its output, in bytes from the start of the memory."""

    operation: Operation
    source: int
    target: int


class Plan:
    """A chain of operations over one piece of memory of `size` bytes; its input lies at the start, its output at `end`.

    Each operation writes to the end of the memory that its input does not lie at.
    """

    def __init__(self, given: Maps, operations: Sequence[Operation], wanted: Collection[str] = ()) -> None:
        """`wanted` are the taps that `run` gives."""
        self.given, self.wanted, self.size, room = given, wanted, given.room, given.room
        for operation in operations:
            if not operation.in_place:
                self.size = max(self.size, room + operation.out.room)
                room = operation.out.room
        self.stages: list[Stage] = []
        self.end = 0
        for operation in operations:
            target = self.end if operation.in_place else 0 if self.end else self.size - operation.out.room
            self.stages.append(Stage(operation, self.end, target))
            self.end = target

    def run(self, memory: NDArray[np.uint8], found: Callable[[str, NDArray[np.float32]], None]) -> None:
        """Compute what lies at the start of `memory`; `found` is called with the name and a copy of each wanted tap."""
        base = memory.ctypes.data
        for stage in self.stages:
            operation = stage.operation
            operation.call(base + stage.source, base + stage.target)
            if operation.name in self.wanted:
                found(operation.name, operation.out.read(memory, stage.target))
