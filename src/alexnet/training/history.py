"""What metrics.jsonl says of the state in a checkpoint's header: how far the run had come, and what it had reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.config import Train
from alexnet.errors import CheckpointError, RunError, quoted
from alexnet.run import Run
from alexnet.training.schedule import LRSchedule, ScheduleState
from alexnet.training.state import SavedState, order

Lines = Sequence[Mapping[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class Replay:
    """What a schedule makes of a run's epochs: its state after them, and the rates of each epoch begun, by tensor."""

    state: ScheduleState
    rates: tuple[dict[str, float], ...]


def replay(
    schedule: LRSchedule,
    epochs: Lines,
    validations: Lines,
    groups: Iterable[Mapping[str, Any]] = (),
    begun: bool = False,
) -> Replay:
    """Let a schedule go through the lines of the epochs done, and through the next where it is `begun`.

    `groups` are the optimizer's, whose rates are asked for.
    """
    replayed = LRSchedule(schedule.schedule, schedule.optimizer)
    errors = {line["epoch"]: line["top1_error"] for line in validations}
    own = [dict(group) for group in groups]
    rates = []
    for epoch in range(1, len(epochs) + 1 + begun):
        replayed.apply(own, epoch)
        rates.append({group["name"]: group["lr"] for group in own})
        if epoch <= len(epochs):
            replayed.after_epoch(epoch, errors.get(epoch), epochs[epoch - 1]["step"])
    return Replay(replayed.state, tuple(rates))


def check_history(
    saved: SavedState, run: Run, schedules: Sequence[LRSchedule], groups: Iterable[Mapping[str, Any]]
) -> ScheduleState:
    """Where the first schedule is after the lines of metrics that a checkpoint counts on.

    Raises CheckpointError naming the first field of the state that does not agree with these lines and with one of the
    `schedules`: the run's, and those before its settings were changed. Raises RunError where the first would have
    trained an epoch with another rate than that one did. `groups` are the optimizer's.
    """
    train, every = saved.train, run.config.train.log_every
    length = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    if train.metrics_bytes > length:
        _refuse("train.metrics_bytes", train.metrics_bytes, f"at most {length}, the length of {run.metrics_file}")
    logged, lines = 0, []
    for line in run.read_metrics(train.metrics_bytes):
        if line["kind"] == "train":  # the many
            logged = max(logged, line["step"])
        else:
            lines.append(line)
    if not logged <= train.steps < logged + every:
        _refuse("train.steps", train.steps, f"at least {logged} and below {logged + every}, by the lines of metrics")
    epochs = [line for line in lines if line["kind"] == "epoch"]
    validations = [_measured(line) for line in lines if line["kind"] == "validation"]
    best = min(validations, key=order, default={})
    for name, value, wanted in (
        ("train.epoch", train.epoch, len(epochs) + 1),
        ("train.step", train.step, train.steps - (epochs[-1]["step"] if epochs else 0)),
        ("train.best", train.best, best),
        ("train.last", train.last, validations[-1] if validations else {}),
    ):
        if value != wanted:
            _refuse(name, value, f"{quoted(wanted)}, by the lines of metrics")
    for name, mean, steps in (("mean", train.mean, train.step), ("interval", train.interval, train.steps - logged)):
        if ("loss" in mean.sums) != bool(mean.count) or (mean.count and not steps):
            _refuse(f"train.{name}", mean, f"the sums and the number of images of {steps} steps")
    if train.seconds < 0:
        _refuse("train.seconds", train.seconds, "at least 0")
    groups = [dict(group) for group in groups]
    replays = [replay(schedule, epochs, validations, groups, train.step > 0) for schedule in schedules]
    then = next((one for one in replays if one.state == saved.schedule), replays[0])
    for name, value in vars(saved.schedule).items():
        if value != getattr(then.state, name):
            _refuse(f"schedule.{name}", value, f"{quoted(getattr(then.state, name))}, by the lines of metrics")
    for name, rate in saved.velocity_lr.items():
        rates = {given[name] for given in then.rates if name in given}
        if rates and not any(math.isclose(rate, given) for given in rates - {0.0}):
            _refuse(f"velocity_lr.{name}", rate, f"a rate that the schedule gave: {sorted(rates)}")
    for epoch, (now, before) in enumerate(zip(replays[0].rates, then.rates, strict=True), 1):
        if now != before:
            raise RunError(
                f"with these settings of the schedule epoch {epoch}, which is done, would have had another learning "
                f"rate; they can be changed from epoch {len(then.rates) + 1} on, or begin another run with "
                f"`--init {run.path}`"
            )
    return replays[0].state


def ended(settings: Train, schedule: LRSchedule, epochs: int, steps: int) -> str:
    """Why a run that has done so many epochs and steps is at its end; empty if it is not."""
    if schedule.finished:
        return (
            f"finished after epoch {epochs} of {settings.epochs}: the plateau after the last of "
            f"{schedule.schedule.drops} drops of the learning rate is over"
        )
    if epochs >= settings.epochs:
        return f"finished after {epochs} of {settings.epochs} epochs"
    if 0 < settings.steps <= steps:
        return f"finished after {steps} of {settings.steps} steps"
    return ""


def longer(settings: Train, schedule: LRSchedule, epochs: int, steps: int) -> str:
    """The flags that train a finished run longer, as `--epochs N`: all that are needed."""
    flags = []
    if schedule.finished:
        flags.append(f"--schedule.drops {schedule.schedule.drops + 1} (or more)")
    if epochs >= settings.epochs:
        flags.append("--epochs N")
    if 0 < settings.steps <= steps:
        flags.append("--train.steps N")
    return " and ".join(flags)


def _measured(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "kind"}


def _refuse(name: str, value: Any, wanted: str) -> None:
    raise CheckpointError(f"state.{name} {quoted(value)} should be {wanted}")
