"""When the rate drops (paper §5) and what the 2012 source changed late in a run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from alexnet.config import Optimizer, Schedule


class RateSchedule:
    """The rate after each epoch, from the validation errors seen so far or from the epoch's number."""

    def __init__(self, schedule: Schedule, optimizer: Optimizer) -> None:
        self.schedule, self.optimizer = schedule, optimizer
        self.best = float("inf")
        self.waited = 0
        self.drops = 0
        self.finished = False

    @property
    def lr(self) -> float:
        """ε of the weights now."""
        return self.optimizer.lr / self.schedule.factor**self.drops

    def after_epoch(self, epoch: int, validation_error: float | None) -> bool:
        """Take note of a finished epoch (counted from 1) and its validation error in percent; True when ε drops.

        With `plateau`, an epoch without a validation error changes nothing. `finished` is set at the plateau that
        follows the last drop.
        """
        if self.schedule.kind == "epochs":
            before, self.drops = self.drops, sum(epoch >= milestone for milestone in self.schedule.milestones)
            return self.drops > before
        if validation_error is None:
            return False
        if validation_error <= self.best - self.schedule.threshold:
            self.best, self.waited = validation_error, 0
            return False
        self.waited += 1
        if self.waited < self.schedule.patience:
            return False
        self.waited = 0
        if self.drops == self.schedule.drops:
            self.finished = True
            return False
        self.drops += 1
        return True

    def apply(self, groups: list[dict[str, Any]], epoch: int) -> None:
        """Set the rate of every parameter group for `epoch` (counted from 1)."""
        for group in groups:
            bias = group["kind"] == "bias"
            base = self.lr
            if bias and not self.optimizer.bias_lr_drops:
                base = self.optimizer.lr
            for entry in self.schedule.layers:
                layers, _, rate = entry.partition("=")
                pattern, _, after = layers.partition("@")
                if fnmatchcase(group["layer"], pattern) and int(after or 0) < epoch:
                    base = self.lr * float(rate[1:]) if rate.startswith("x") else float(rate)
            group["frozen"] = base == 0
            group["lr"] = base * (self.optimizer.bias_lr if bias else 1.0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited, "drops": self.drops, "finished": self.finished}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.best, self.waited = state["best"], state["waited"]
        self.drops, self.finished = state["drops"], state["finished"]
