"""Learning rates: when they drop (paper §5), and the layers that have their own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from alexnet.config import Optimizer, Schedule
from alexnet.errors import UsageError, suggestion


@dataclass(frozen=True)
class LayerLR:
    """One entry of `schedule.layers`: after epoch `after`, layers that fit `pattern` have this learning rate.

    `lr` is their weights' learning rate, or None where the schedule's is multiplied by `factor`.
    """

    entry: str
    pattern: str
    after: int
    lr: float | None
    factor: float = 1.0

    @classmethod
    def parse(cls, entry: str) -> LayerLR:
        """Read `conv1@68=1e-5`, `conv1@72=0` or `fc8=x10`. Raises UsageError naming the entry."""
        left, _, value = entry.partition("=")
        pattern, at, after = left.partition("@")
        try:
            number = float(value.removeprefix("x"))
            epoch = int(after) if at else 0
            if not pattern or epoch < 0 or not 0 <= number < math.inf:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"schedule.layers {entry!r} should be as conv1@68=1e-5 (after epoch 68 this learning rate), "
                "conv1@72=0 (frozen) or fc8=x10 (ten times the schedule's)"
            ) from None
        if value.startswith("x"):
            return cls(entry, pattern, epoch, None, number)
        return cls(entry, pattern, epoch, number)


@dataclass
class ScheduleState:
    """Where a schedule is: what a checkpoint keeps of it."""

    best: float | None = None  # the least validation error so far, percent
    waited: int = 0  # epochs without improvement
    since: int = 0  # steps done when the waiting began
    decays: int = 0  # how often the learning rate was divided
    finished: bool = False


class LRSchedule:
    """The learning rate after each epoch, from the validation errors seen so far or from the epoch's number."""

    def __init__(self, schedule: Schedule, optimizer: Optimizer) -> None:
        """Raises UsageError for an entry of `schedule.layers` that cannot be read."""
        self.schedule, self.optimizer = schedule, optimizer
        self.layers = [LayerLR.parse(entry) for entry in schedule.layers]
        self.state = ScheduleState()

    def check_layers(self, names: Iterable[str]) -> None:
        """Raise UsageError for an entry of `schedule.layers` that fits none of the network's layers."""
        known = list(names)
        for layer in self.layers:
            if not any(fnmatchcase(name, layer.pattern) for name in known):
                hint = suggestion(layer.pattern, known) or f"; it has {', '.join(known)}"
                raise UsageError(f"schedule.layers {layer.entry!r} fits no layer of the network{hint}")

    @property
    def lr(self) -> float:
        """The learning rate of the weights now."""
        return self.optimizer.lr / self.schedule.factor**self.state.decays

    @property
    def finished(self) -> bool:
        """Whether the plateau that follows the last drop is over."""
        return self.state.finished

    def after_epoch(self, epoch: int, validation_error: float | None, steps: int) -> bool:
        """Record a finished epoch (from 1), its validation error in percent and the steps done in all.

        True when the lr drops. With `plateau`, an epoch without a validation error changes nothing.
        """
        state = self.state
        if self.schedule.kind == "epochs":
            before, state.decays = state.decays, sum(epoch >= milestone for milestone in self.schedule.milestones)
            return state.decays > before
        if validation_error is None:
            return False
        if validation_error <= (math.inf if state.best is None else state.best) - self.schedule.threshold:
            state.best, state.waited, state.since = validation_error, 0, steps
            return False
        state.waited += 1
        if state.waited < self.schedule.patience or steps - state.since < self.schedule.patience_steps:
            return False
        state.waited, state.since = 0, steps
        if state.decays == self.schedule.drops:
            state.finished = True
            return False
        state.decays += 1
        return True

    def apply(self, groups: list[dict[str, Any]], epoch: int) -> None:
        """Set the `lr` of every parameter group for `epoch` (from 1); 0 where the group is frozen."""
        for group in groups:
            bias = group["kind"] == "bias"
            lr = self.optimizer.lr if bias and not self.optimizer.bias_lr_drops else self.lr
            own = [entry for entry in self.layers if entry.after < epoch and fnmatchcase(group["layer"], entry.pattern)]
            if own:
                lr = lr * own[-1].factor if own[-1].lr is None else own[-1].lr
            group["lr"] = lr * (self.optimizer.bias_lr if bias else 1.0)
