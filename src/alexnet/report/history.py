"""How a run went: its metrics as curves over epochs, where the learning rate dropped, and whether it has ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.errors import RunError
from alexnet.run import Run
from alexnet.training.history import ended, replay
from alexnet.training.schedule import LRSchedule
from alexnet.training.state import order

Points = tuple[tuple[float, float], ...]  # (epoch, value)
POINTS = 20_000  # of a curve of training, at most: more than a figure can show


@dataclass(frozen=True)
class Curve:
    """One quantity over the run; `key` names its colour: `train`, `top1` or `top5`."""

    key: str
    name: str
    points: Points

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class History:
    """The curves of a run: losses in nats, errors in percent, and (epoch, new learning rate) of each of its drops.

    `epochs` and `steps` are how far the run came; `seconds` of training, `estimated` before the first epoch is over,
    None without metrics; `unfinished` says in words how far a run is, or where it stopped, and `finished` of one that
    ended why; the other is empty.
    """

    losses: tuple[Curve, ...]
    errors: tuple[Curve, ...]
    drops: Points
    validations: tuple[dict[str, Any], ...]
    epochs: float
    steps: int
    seconds: float | None
    estimated: bool
    unfinished: str
    finished: str

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation line with the lowest top-1 error, of equal ones that with the lowest loss."""
        return min(self.validations, key=order, default=None)


def read_history(run: Run) -> History:
    """The history in a run's metrics.jsonl as far as it is written; a run without metrics has no curves."""
    train, epochs, validations = _read(run)
    steps = _steps_per_epoch(run, epochs)
    lines = [(line["step"] / steps, line) for line in sorted(train + epochs, key=lambda line: line["step"])]
    measured = [(line["step"] / steps, line) for line in validations]
    losses = [
        Curve("train", "training", _points(lines, "loss")),
        Curve("top1", "validation", _points(measured, "loss")),
    ]
    errors = [
        Curve("train", "training", _points(lines, "top1_error")),
        Curve("top1", "validation", _points(measured, "top1_error")),
        Curve("top5", "validation top-5", _points(measured, "top5_error")),
    ]
    done, last = (lines[-1][0], lines[-1][1]["step"]) if lines else (0.0, 0)
    seconds, estimated = _seconds(run, train, epochs)
    return History(
        tuple(curve for curve in losses if curve.points),
        tuple(curve for curve in errors if curve.points),
        _drops([line for _, line in lines]),
        tuple(validations),
        done,
        last,
        seconds,
        estimated,
        *_standing(run, done, last, epochs, validations),
    )


def _read(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of metrics.jsonl by kind: train, epoch and validation.

    Of those of train, which may be millions, every second is left out as often as there are more than `POINTS`, but
    for the newest.
    """
    lines: dict[str, list[dict[str, Any]]] = {"train": [], "epoch": [], "validation": []}
    train, every, seen, newest = lines["train"], 1, 0, None
    for line in run.read_metrics():
        if line["kind"] != "train":
            lines[line["kind"]].append(line)
            continue
        newest = line
        if seen % every == 0:
            train.append(line)
        seen += 1
        if len(train) > POINTS:
            del train[1::2]
            every *= 2
    if newest is not None and train[-1] is not newest:
        train.append(newest)
    return train, lines["epoch"], lines["validation"]


def in_training(run: Run) -> bool:
    """Whether a process trains the run at this moment."""
    if not (run.path / ".lock").exists():
        return False
    try:
        with run.held():
            return False
    except RunError:
        return True


def _standing(
    run: Run, done: float, steps: int, epochs: Sequence[dict[str, Any]], validations: Sequence[dict[str, Any]]
) -> tuple[str, str]:
    """How far a run is that has not ended, such as `stopped in epoch 24 of 30`, and of one that has, why."""
    settings, schedule = run.config.train, LRSchedule(run.config.schedule, run.config.optimizer)
    at = min(math.floor(done + 1e-9) + 1, settings.epochs)
    if in_training(run):
        return f"epoch {at} of {settings.epochs}, still training", ""
    schedule.state = replay(schedule, epochs, validations).state
    if why := ended(settings, schedule, len(epochs), steps):
        return "", why
    whole = done > 0 and abs(done - round(done)) < 1e-9
    return f"stopped {f'after epoch {round(done)}' if whole else f'in epoch {at}'} of {settings.epochs}", ""


def _seconds(run: Run, train: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]]) -> tuple[float | None, bool]:
    """Seconds of training, and whether they are estimated from the images per second."""
    if epochs:
        return sum(float(line["seconds"]) for line in epochs), False
    settings = run.config.train
    if not train:
        return None, False
    images = settings.batch_size * settings.log_every
    measured = sum(images / float(line["images_per_second"]) for line in train if line["images_per_second"])
    last = max(line["step"] for line in [*train, *epochs])
    return measured * last / (len(train) * settings.log_every), True


def _steps_per_epoch(run: Run, epochs: Sequence[dict[str, Any]]) -> float:
    if epochs:
        return max(1, epochs[-1]["step"]) / epochs[-1]["epoch"]
    return max(1, -(-run.source["splits"]["train"] // run.config.train.batch_size))


def _points(lines: Sequence[tuple[float, dict[str, Any]]], key: str) -> Points:
    values: dict[float, float] = {}
    for epoch, line in lines:
        if line.get(key) is not None and line["kind"] != "epoch":
            values[epoch] = float(line[key])
    if not values:  # a short epoch may end before the first interval is logged
        values = {epoch: float(line[key]) for epoch, line in lines if line.get(key) is not None}
    return tuple(sorted(values.items()))


def _drops(lines: Sequence[dict[str, Any]]) -> Points:
    return tuple(
        (float(line["epoch"] - 1), float(line["lr"]))
        for before, line in zip(lines, lines[1:], strict=False)
        if line["lr"] != before["lr"]
    )
