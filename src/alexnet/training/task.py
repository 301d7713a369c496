"""What a network is trained for: the loss of each image, and what is measured of its outputs.

Shapes: `N` images, `C` classes.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.config import Config


class Task(Protocol):
    """All that the trainer knows of its purpose.

    A task without labels makes its own targets in `prepare`: the images themselves for an auto-encoder; for rotations
    four copies of each image, turned, and by how much.
    """

    def prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the network takes and what its outputs are compared with, from float (N, 3, C, C) and int64 (N,).

        Several versions of each image follow one another as whole batches, (k·N, 3, C, C); they share dropout's masks.
        """
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, (N,); its mean is minimized."""
        ...

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What else is averaged over images and logged, each (N,), by the name it has in metrics.jsonl."""
        ...

    def scores(self, outputs: Tensor) -> Tensor:
        """(N, C), higher for a more probable class: what errors are counted of."""
        ...

    def chance(self, classes: int) -> float | None:
        """The loss of a network that has learnt nothing, or None where that is not known."""
        ...


class Classification:
    """What softmax and hinge share: labels as targets, and the top-1 error in percent."""

    def prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The images and their labels as they are."""
        return images, labels

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`top1_error`: 100 where the highest output is not the label's, else 0."""
        return {"top1_error": 100.0 * (outputs.argmax(1) != targets)}


class Softmax(Classification):
    """Multinomial logistic regression (§3.5): the loss is −log of the true class's probability, in nats."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """logits or log probabilities (N, C), labels (N,) → (N,)."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def scores(self, outputs: Tensor) -> Tensor:
        """Log probabilities (N, C)."""
        return F.log_softmax(outputs, 1)

    def chance(self, classes: int) -> float:
        """That of equal probabilities."""
        return math.log(classes)


class Hinge(Classification):
    """The multi-class SVM: per image, the sum over the wrong classes j of max(0, s_j − s_y + Δ)."""

    def __init__(self, margin: float = 1.0) -> None:
        """`margin` is Δ, by how much the true class's score s_y should exceed every other."""
        self.margin = margin

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """scores (N, C), labels (N,) → (N,)."""
        truth = targets[:, None]
        excess = (outputs - outputs.gather(1, truth) + self.margin).clamp_min(0)
        return torch.scatter(excess, 1, truth, 0.0).sum(1)

    def scores(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def chance(self, classes: int) -> float:
        """That of equal scores."""
        return (classes - 1) * self.margin


def task_of(config: Config) -> Task:
    """The task that a config's `train.task` names."""
    return Hinge(config.train.margin) if config.train.task == "hinge" else Softmax()
