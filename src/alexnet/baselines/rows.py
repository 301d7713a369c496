"""Features of pictures as rows of bytes: a quarter of float32's memory, on disk and on their way.

Shapes: `N` pictures, `D` features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.grid import Floats


@dataclass(frozen=True)
class Rows:
    """`codes` (N, D) and `scales` (N,): the features are their products."""

    codes: NDArray[Any]
    scales: Floats

    def __len__(self) -> int:
        return len(self.scales)

    def columns(self, place: slice) -> Floats:
        """Some features of every picture, float32."""
        return self.codes[:, place].astype(np.float32) * self.scales[:, None]

    def total(self) -> NDArray[np.float64]:
        """The sum over the pictures, (D,)."""
        out = np.zeros(self.codes.shape[1], np.float64)
        for first in range(0, len(out), 1024):
            out[first : first + 1024] = self.columns(slice(first, first + 1024)).sum(axis=0, dtype=np.float64)
        return out

    def take(self, chosen: NDArray[np.int64] | slice) -> Rows:
        """Some of the pictures."""
        return Rows(self.codes[chosen], self.scales[chosen])


def rounded(features: Floats) -> Rows:
    """Float32 (N, D) as whole numbers from −127 to 127 times a scale of each picture's own."""
    scales = np.abs(features).max(axis=1) / np.float32(127)
    codes = np.rint(features / np.where(scales > 0, scales, np.float32(1))[:, None]).astype(np.int8)
    return Rows(codes, scales.astype(np.float32))


def exact(features: Floats) -> Rows:
    """Float32 (N, D) as they are."""
    return Rows(features, np.ones(len(features), np.float32))
