"""The keys of dropout's draws in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.data.augment import draw_seed


def set_dropout_keys(model: nn.Module, seed: int, epoch: int, positions: NDArray[np.int64]) -> None:
    """Seed torch's generator for a batch of these positions in the split (N,), N at least 1."""
    torch.manual_seed(draw_seed(seed, epoch, int(positions[0]), 3))
