"""Millions of names in little memory."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Names:
    """Millions of names in little memory: one block of bytes and where each name ends."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.block = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends: NDArray[np.int64] = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    @classmethod
    def of(cls, block: NDArray[np.uint8], ends: NDArray[np.int64]) -> "Names":
        """Rebuild from the two arrays."""
        made = cls()
        made.block, made.ends = block, ends
        return made

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        first = int(self.ends[i - 1]) if i else 0
        return os.fsdecode(self.block[first : int(self.ends[i])].tobytes())
