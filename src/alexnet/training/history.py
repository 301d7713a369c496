"""What metrics.jsonl says of the state in a checkpoint's header: how far the run had come, and what it had reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from alexnet.errors import CheckpointError
from alexnet.run import Run
from alexnet.training.schedule import LRSchedule
from alexnet.training.state import SavedState


def check_history(saved: SavedState, run: Run, schedule: LRSchedule, groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise CheckpointError naming the first field that does not agree with the lines of metrics up to then.

    `groups` are the optimizer's: the rates that the schedule gave them are those their velocities can have.
    """
    train, every = saved.train, run.config.train.log_every
    length = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    if train.metrics_bytes > length:
        _refuse("train.metrics_bytes", train.metrics_bytes, f"at most {length}, the length of {run.metrics_file}")
    lines = run.metrics(length=train.metrics_bytes)
    logged = max((line["step"] for line in lines if line["kind"] == "train"), default=0)
    if not logged <= train.steps < logged + every:
        _refuse("train.steps", train.steps, f"at least {logged} and below {logged + every}, by the lines of metrics")
    epochs = [line for line in lines if line["kind"] == "epoch"]
    validations = [_measured(line) for line in lines if line["kind"] == "validation"]
    best = min(validations, key=lambda line: line["top1_error"], default={})
    errors = {line["epoch"]: line["top1_error"] for line in validations}
    replayed = LRSchedule(schedule.schedule, schedule.optimizer)
    own = [dict(group) for group in groups]
    rates: dict[str, set[float]] = {group["name"]: set() for group in own}
    for epoch in range(1, len(epochs) + 1 + (train.step > 0)):
        replayed.apply(own, epoch)
        for group in own:
            rates[group["name"]].add(group["lr"])
        if epoch <= len(epochs):
            replayed.after_epoch(epoch, errors.get(epoch), epochs[epoch - 1]["step"])
    for name, value, wanted in (
        ("train.epoch", train.epoch, len(epochs) + 1),
        ("train.step", train.step, train.steps - (epochs[-1]["step"] if epochs else 0)),
        ("train.best", train.best, best),
        ("train.best_error", train.best_error, best.get("top1_error")),
        ("train.last", train.last, validations[-1] if validations else {}),
        *((f"schedule.{name}", value, getattr(replayed.state, name)) for name, value in vars(saved.schedule).items()),
    ):
        if value != wanted:
            _refuse(name, value, f"{wanted}, by the lines of metrics")
    for name, mean, steps in (("mean", train.mean, train.step), ("interval", train.interval, train.steps - logged)):
        if ("loss" in mean.sums) != bool(mean.count) or (mean.count and not steps):
            _refuse(f"train.{name}", mean, f"the sums and the number of images of {steps} steps")
    for name, rate in saved.velocity_lr.items():
        if name in rates and not any(math.isclose(rate, given) for given in rates[name] - {0.0}):
            _refuse(f"velocity_lr.{name}", rate, f"a rate that the schedule gave: {sorted(rates[name])}")
    if train.seconds < 0:
        _refuse("train.seconds", train.seconds, "at least 0")


def _measured(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("kind", "step")}


def _refuse(name: str, value: Any, wanted: str) -> None:
    raise CheckpointError(f"state.{name} {value} should be {wanted}")
