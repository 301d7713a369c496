"""Local colour statistics of every patch: means and deviations of R, G and B on a 4×4 grid (Clinchant et al. 2007).

Shapes: `N` pictures of side `S`, `P` patches along a side.
"""

from __future__ import annotations

import numpy as np

from alexnet.baselines.grid import Floats, Pixels, cell_sums

CELLS = 4


def colour(images: Pixels, patch: int, step: int) -> Floats:
    """RGB (N, S, S, 3) → (N, P, P, 96): of each of 4×4 cells three means, then three deviations, 0..1 units."""
    pixels = images.astype(np.float32)
    area = np.float32((patch // CELLS) ** 2)
    sums = cell_sums(np.concatenate([pixels, pixels * pixels], axis=3), CELLS, patch, step)  # whole numbers, exact
    means = sums[..., :3] / area
    deviations = np.sqrt(np.maximum(sums[..., 3:] / area - means * means, 0))
    both = np.concatenate([means, deviations], axis=-1) / np.float32(255)
    return both.reshape(*both.shape[:3], -1)
