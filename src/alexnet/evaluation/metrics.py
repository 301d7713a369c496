"""The paper's two error rates and the loss, added up over batches (§2).

Shapes: `N` images, `C` classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Measurement:
    """Errors and loss of some images.

    `top1_error` and `top5_error` are in percent, the latter None up to 5 classes; `loss` is the mean per image (in nats
    for softmax), `count` the images measured, `unreadable` those left out. For comparison the top-1 errors of
    `chance_error`, a guess of equal odds, and of `majority_error`, always answering the most frequent class of train
    (None where that is not known). `answered` is how many classes were ever the most probable, of `present` that the
    images have.
    """

    top1_error: float
    top5_error: float | None
    loss: float
    count: int
    unreadable: int = 0
    chance_error: float | None = None
    majority_error: float | None = None
    answered: int | None = None
    present: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)


class ErrorCounter:
    """Counts top-1 and top-5 errors and sums the loss, on the scores' device until they are asked for."""

    def __init__(self, classes: int, majority: int | None = None) -> None:
        """`majority` is the label of the most frequent class of train, where it is known."""
        self.classes, self.majority = classes, majority
        self.count = 0
        self._begin(torch.device("cpu"))

    def _begin(self, device: torch.device) -> None:
        self.wrong, self.missed = torch.zeros(2, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.answers, self.truths = torch.zeros(2, self.classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, scores: Tensor, labels: Tensor, losses: Tensor | None = None) -> None:
        """Count a batch; a tie counts against the prediction. Nothing is read from the device.

        scores: float (N, C), such as log-probabilities; labels: int64 (N,); losses: (N,), by default −scores[label].
        All batches are on one device.
        """
        if self.count == 0:
            self._begin(scores.device)
        truth = scores.gather(1, labels[:, None])
        ahead = (~(scores < truth)).sum(1) - 1  # classes at least as probable, and what is not a number
        self.count += len(labels)
        self.wrong += (ahead >= 1).sum()
        self.missed += (ahead >= 5).sum()
        once = torch.ones_like(labels)
        self.answers.index_add_(0, scores.argmax(1), once)  # bincount would wait for the device
        self.truths.index_add_(0, labels, once)
        self.loss_sum += (-truth if losses is None else losses).double().sum()

    @property
    def top1_error(self) -> float:
        """Percent of images whose most probable label is not the true one."""
        return 100 * int(self.wrong) / self.count

    @property
    def top5_error(self) -> float | None:
        """Percent of images whose true label is not among the five most probable; None up to 5 classes."""
        return 100 * int(self.missed) / self.count if self.classes > 5 else None

    @property
    def loss(self) -> float:
        """The mean loss per image."""
        return float(self.loss_sum) / self.count

    def result(self, unreadable: int = 0) -> Measurement:
        """What was measured, rounded for people and files."""
        known = None if self.majority is None else 100 * (1 - int(self.truths[self.majority]) / self.count)
        top5 = self.top5_error
        return Measurement(
            top1_error=round(self.top1_error, 4),
            top5_error=None if top5 is None else round(top5, 4),
            loss=round(self.loss, 6),
            count=self.count,
            unreadable=unreadable,
            chance_error=round(100 * (1 - 1 / self.classes), 4),
            majority_error=None if known is None else round(known, 4),
            answered=int((self.answers > 0).sum()),
            present=int((self.truths > 0).sum()),
        )
