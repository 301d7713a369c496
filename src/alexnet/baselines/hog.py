"""Histograms of oriented gradients of every patch, for many pictures at once (Dalal and Triggs 2005).

As `skimage.feature.hog` with L2-Hys, whose blocks are the patches. Shapes: `N` pictures of side `S`, `P` patches along
a side.
"""

from __future__ import annotations

import numpy as np

from alexnet.baselines.grid import Floats, Pixels, cell_sums, unit_length

CELLS, ORIENTATIONS = 4, 9
CLIP = 0.2  # of L2-Hys
FLAT = 0.5  # grey levels of gradient per pixel: the histograms of patches below it are zeros


def hog(images: Pixels, patch: int, step: int) -> Floats:
    """RGB (N, S, S, 3) → (N, P, P, 144): 4×4 cells of 9 unsigned orientations, normalized, clipped, normalized.

    A pixel's gradient is that of the channel where it is the steepest; each votes for one orientation.
    """
    across, down = _gradients(images)
    square = across * across + down * down
    channel = square.argmax(axis=3)[..., None]
    across, down = (np.take_along_axis(values, channel, axis=3)[..., 0] for values in (across, down))
    magnitude = np.hypot(across, down)
    angle = np.rad2deg(np.arctan2(down, across)) % 180
    index = np.minimum((angle * (ORIENTATIONS / 180)).astype(np.int64), ORIENTATIONS - 1)
    votes = np.zeros((*magnitude.shape, ORIENTATIONS), np.float32)
    np.put_along_axis(votes, index[..., None], magnitude[..., None], axis=3)
    sums = cell_sums(votes, CELLS, patch, step)
    blocks = sums.reshape(*sums.shape[:3], -1)
    blocks = unit_length(blocks, FLAT * patch)
    return unit_length(np.minimum(blocks, np.float32(CLIP)))


def _gradients(images: Pixels) -> tuple[Floats, Floats]:
    """Central differences across and down, zero at the edges: (N, S, S, 3) each."""
    pixels = images.astype(np.float32)
    across, down = np.zeros_like(pixels), np.zeros_like(pixels)
    across[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    return across, down
