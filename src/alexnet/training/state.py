"""Where a training is: what a checkpoint keeps besides weights and velocities, and what a finished one returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alexnet.training.diagnostics import DiagnosticsState
from alexnet.training.schedule import ScheduleState


@dataclass
class RunningMean:
    """Means over images of the loss and of what else a task measures, added up batch by batch."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, sums: dict[str, float], count: int) -> None:
        """Add a batch: the sums over its `count` images."""
        self.count += count
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Rounded for files; nothing where there was no image."""
        if not self.count:
            return {}
        return {name: round(total / self.count, 6 if name == "loss" else 4) for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start again from nothing."""
        self.sums, self.count = {}, 0


@dataclass
class TrainState:
    """A run's place in its epochs, and what it has reached. `best` and `last` are validation lines of metrics.jsonl."""

    epoch: int = 1  # counted from 1
    step: int = 0  # steps done within the epoch
    steps: int = 0  # steps done in all
    mean: RunningMean = field(default_factory=RunningMean)  # of the epoch so far
    interval: RunningMean = field(default_factory=RunningMean)  # since the last line of metrics
    seconds: float = 0.0  # of this epoch's steps
    metrics_bytes: int = 0  # length of metrics.jsonl
    best: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """Step over to the first step of the next epoch."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.mean.clear()


def order(validation: Mapping[str, Any]) -> tuple[float, float]:
    """What the best validation has least of: the top-1 error, and among equal ones the loss."""
    return validation["top1_error"], validation["loss"]


@dataclass(frozen=True)
class SavedState:
    """The JSON of a checkpoint's header; `velocity_lr` has the learning rate each velocity was divided by."""

    train: TrainState
    schedule: ScheduleState
    diagnostics: DiagnosticsState
    velocity_lr: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """What a run reached: epochs and steps done in all, and of this process seconds and speed.

    `best` and `last` are the validation of the best weights and the newest one: epoch, step, errors (percent), loss, …,
    empty before the first. Where `steps` are more than the step of `last`, the last weights were not validated.
    """

    run: str
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    best: dict[str, Any]
    last: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `alexnet train --json` prints."""
        return dataclasses.asdict(self)


class StepLog:
    """What steps measured, kept on the device until it is read: reading waits for the device."""

    KEEP = 50  # steps at most before a CUDA device is waited for

    def __init__(self, device: torch.device) -> None:
        self.limit = self.KEEP if device.type == "cuda" else 1
        self.entries: list[tuple[int, list[str], Tensor, int]] = []

    def add(self, step: int, names: list[str], sums: Tensor, count: int) -> None:
        """Keep a step's sums over `count` images, one of each name."""
        self.entries.append((step, names, sums, count))

    @property
    def full(self) -> bool:
        """Whether it is time to read."""
        return len(self.entries) >= self.limit

    def read(self) -> list[tuple[int, dict[str, float], int]]:
        """Step, sums over its images by name, and number of images, for each step since the last reading."""
        if not self.entries:
            return []
        rows = torch.stack([sums for _, _, sums, _ in self.entries]).tolist()
        out = [
            (step, dict(zip(names, row, strict=True)), count)
            for (step, names, _, count), row in zip(self.entries, rows, strict=True)
        ]
        self.entries = []
        return out
