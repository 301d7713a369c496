"""Warnings for a run that does not learn: a loss that stays at chance, layers whose ReLUs are mostly dead."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from alexnet.model.alexnet import AlexNet
from alexnet.progress import Progress

AFTER = 1000  # steps a faithful recipe may stay at chance
EVERY = 500  # steps between two looks at the ReLUs
DEAD = 0.9  # share of a layer's maps or units that are silent for a whole batch


class Health:
    """Watches the loss and the activations, and says what to try, once a matter."""

    def __init__(self, classes: int, progress: Progress) -> None:
        self.chance = math.log(classes)
        self.progress = progress
        self.smooth: float | None = None
        self.warned: set[str] = set()

    def after_step(self, step: int, loss: float, model: torch.nn.Module, images: Tensor) -> None:
        """Take note of a step's loss; every so often look at what the batch's activations were."""
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        if step == AFTER and self.smooth > 0.98 * self.chance:
            self._warn(
                "chance",
                f"after {step} steps the loss is still {self.smooth:.3f}, that of guessing "
                f"({self.chance:.3f}): try larger initial weights, another --optimizer.lr, or wait: "
                "the paper's own initial weights can take a few epochs",
            )
        if step % EVERY == 0 and isinstance(model, AlexNet) and model.network.activation == "relu":
            for name, share in dead_shares(model, images).items():
                if share > DEAD:
                    self._warn(
                        name,
                        f"at step {step} {share:.0%} of {name} is silent for a whole batch: try a lower --optimizer.lr",
                    )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run warns as it would have."""
        return {"smooth": self.smooth, "warned": sorted(self.warned)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.smooth, self.warned = state.get("smooth"), set(state.get("warned", ()))

    def _warn(self, matter: str, text: str) -> None:
        if matter not in self.warned:
            self.warned.add(matter)
            self.progress.warn(text)


def dead_shares(model: AlexNet, images: Tensor) -> dict[str, float]:
    """For each ReLU layer the share of its maps or units that are 0 for every image and place; images (N, 3, C, C)."""
    names = [entry.name for entry in model.shapes if entry.name.startswith("relu")]
    out = {}
    for name, values in model.taps(images[:64], names).items():
        alive = (values > 0).transpose(0, 1).flatten(1).any(1)
        out[name] = 1 - float(alive.float().mean())
    return out
