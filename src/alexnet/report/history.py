"""How a run went: its metrics as curves over epochs, and where the learning rate dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.run import Run

Points = tuple[tuple[float, float], ...]  # (epoch, value)


@dataclass(frozen=True)
class Curve:
    """One quantity over the run; `key` tells what is drawn how: `train`, `top1` or `top5`."""

    key: str
    name: str
    points: Points


@dataclass(frozen=True)
class History:
    """The curves of a run: losses in nats, errors in percent, and (epoch, new rate) of every change of the rate."""

    losses: tuple[Curve, ...]
    errors: tuple[Curve, ...]
    drops: Points
    validations: tuple[dict[str, Any], ...]
    epochs: float  # how far the run came
    steps: int

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation line with the lowest top-1 error, the first of equals."""
        return min(self.validations, key=lambda line: float(line["top1_error"]), default=None)


def read_history(run: Run) -> History:
    """The curves of a run's metrics.jsonl; a run without metrics has none."""
    train, epochs, validations = run.metrics("train"), run.metrics("epoch"), run.metrics("validation")
    steps = _steps_an_epoch(run, epochs)
    when = [(line["step"] / steps, line) for line in sorted(train + epochs, key=lambda line: line["step"])]
    measured = [(line["step"] / steps, line) for line in validations]
    losses = [Curve("train", "training", _points(when, "loss")), Curve("top1", "validation", _points(measured, "loss"))]
    errors = [
        Curve("train", "training", _points(when, "top1_error")),
        Curve("top1", "validation", _points(measured, "top1_error")),
        Curve("top5", "validation top-5", _points(measured, "top5_error")),
    ]
    return History(
        tuple(curve for curve in losses if curve.points),
        tuple(curve for curve in errors if curve.points),
        _drops([line for _, line in when]),
        tuple(validations),
        when[-1][0] if when else 0.0,
        when[-1][1]["step"] if when else 0,
    )


def training_seconds(run: Run) -> tuple[float, bool] | None:
    """Seconds of training and whether they are estimated from the images a second; None without metrics."""
    epochs, train = run.metrics("epoch"), run.metrics("train")
    if epochs and all("seconds" in line for line in epochs):
        return sum(float(line["seconds"]) for line in epochs), False
    settings = run.config.train
    if not train:
        return None
    images = settings.batch_size * settings.log_every
    measured = sum(images / float(line["images_per_second"]) for line in train if line["images_per_second"])
    last = max(line["step"] for line in train + epochs)
    return measured * last / (len(train) * settings.log_every), True


def _steps_an_epoch(run: Run, epochs: Sequence[dict[str, Any]]) -> float:
    if epochs:
        return epochs[-1]["step"] / epochs[-1]["epoch"]
    return max(1, -(-run.source["splits"]["train"] // run.config.train.batch_size))


def _points(lines: Sequence[tuple[float, dict[str, Any]]], key: str) -> Points:
    found: dict[float, float] = {}
    for epoch, line in lines:
        if line.get(key) is not None and line["kind"] != "epoch":
            found[epoch] = float(line[key])
    if not found:  # a short epoch may end before the first interval is logged
        found = {epoch: float(line[key]) for epoch, line in lines if line.get(key) is not None}
    return tuple(sorted(found.items()))


def _drops(lines: Sequence[dict[str, Any]]) -> Points:
    drops = []
    for before, line in zip(lines, lines[1:], strict=False):
        if line["lr"] != before["lr"]:
            drops.append((float(line["epoch"] - 1), float(line["lr"])))
    return tuple(drops)
