"""The nearest images by the activations of the last hidden layer (paper §6.1, figure 4 right).

Shapes: `N` images, `S` their side, `U` units of the layer, `Q` queries, `k` neighbours per query.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.predictor import Predictor


def features(predictor: Predictor, images: NDArray[np.uint8], layer: str) -> Tensor:
    """A layer's activations from the centre view of uint8 (N, S, S, 3) as vectors, float32 (N, U)."""
    return torch.from_numpy(predictor.taps(images, [layer])[layer]).flatten(1)


def nearest(queries: Tensor, batches: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of many vectors by Euclidean distance, nearest first: distances and positions, both (Q, k).

    queries: (Q, U); batches: positions int64 (N,) and vectors (N, U), a part at a time. Where there are fewer than k,
    the results are narrower. Of equal distances any may come first.
    """
    distances = torch.empty(len(queries), 0)
    positions = torch.empty(len(queries), 0, dtype=torch.int64)
    for where, vectors in batches:
        exact = torch.cdist(queries, vectors, compute_mode="donot_use_mm_for_euclid_dist").cpu()
        distances = torch.cat([distances, exact], 1)
        positions = torch.cat([positions, where.expand(len(queries), -1)], 1)
        distances, kept = distances.topk(min(k, distances.shape[1]), 1, largest=False)
        positions = positions.gather(1, kept)
    return distances, positions
