"""Spatial pyramids: the regions of a picture in which codes are pooled (Lazebnik, Schmid and Ponce 2006).

Shapes: `T` patches of a picture, `R` regions of all levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alexnet.errors import UsageError, quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = re.compile(r"([1-9])x([1-9])")
Level = tuple[int, int]  # rows, columns


def parse_levels(texts: Sequence[str]) -> tuple[Level, ...]:
    """`("1x1", "2x2", "3x1")`, rows × columns. Raises UsageError."""
    levels = []
    for text in texts:
        match = LEVEL.fullmatch(text)
        if match is None:
            raise UsageError(f"pyramid {quoted(text)} should be rows x columns up to 9, as 1x1 or 3x1")
        levels.append((int(match[1]), int(match[2])))
    if not levels or len(set(levels)) < len(levels):
        raise UsageError("pyramid should name at least one level, and each once, as 1x1,2x2")
    return tuple(levels)


def regions_of(places: NDArray[np.float64], levels: Sequence[Level]) -> list[tuple[NDArray[np.int64], int]]:
    """Of each level the region that each patch lies in, (T,), and how many regions it has.

    `places` (T, 2) are the patches' centres, rows first, from 0 to 1.
    """
    import numpy as np  # not for whoever reads settings

    found = []
    for rows, columns in levels:
        row = np.minimum((places[:, 0] * rows).astype(np.int64), rows - 1)
        column = np.minimum((places[:, 1] * columns).astype(np.int64), columns - 1)
        found.append((row * columns + column, rows * columns))
    return found


def count_regions(levels: Sequence[Level]) -> int:
    """The regions of all levels."""
    return sum(rows * columns for rows, columns in levels)
