"""The paper's two error rates and the loss, added up over batches (§2).

Shapes: `N` images, `C` classes.
"""

from __future__ import annotations

from torch import Tensor


class ErrorCounter:
    """Counts top-1 and top-5 errors and sums the loss of predicted probabilities."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.count = self.wrong = self.missed = 0
        self.loss_sum = 0.0

    def add(self, log_probabilities: Tensor, labels: Tensor) -> None:
        """log_probabilities: float (N, C); labels: int64 (N,). A tie counts against the prediction."""
        truth = log_probabilities.gather(1, labels[:, None])
        ahead = (~(log_probabilities < truth)).sum(1) - 1  # classes at least as probable, and what is not a number
        self.count += len(labels)
        self.wrong += int((ahead >= 1).sum())
        self.missed += int((ahead >= 5).sum())
        self.loss_sum += float(-truth.double().sum())

    @property
    def top1_error(self) -> float:
        """Percent of images whose most probable label is not the true one."""
        return 100 * self.wrong / self.count

    @property
    def top5_error(self) -> float | None:
        """Percent of images whose true label is not among the five most probable; None up to 5 classes."""
        return 100 * self.missed / self.count if self.classes > 5 else None

    @property
    def loss(self) -> float:
        """Mean −log probability of the true label, in nats."""
        return self.loss_sum / self.count

    def result(self) -> dict[str, float | int | None]:
        """`top1_error` and `top5_error` in percent, `loss` in nats, `count`."""
        return {"top1_error": round(self.top1_error, 4),
                "top5_error": None if self.top5_error is None else round(self.top5_error, 4),
                "loss": round(self.loss, 6), "count": self.count}
