"""Going on with a run by other settings, or elsewhere: what may change, when it is still exact, and what is recorded.

Exact means: the run ends with the weights and metrics that it would have with these settings from the beginning. So
the schedule may change as far as the epochs that are done would have had the same learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alexnet.config import Config, fields, replace, text_of
from alexnet.environment import instruction_sets
from alexnet.errors import RunError, UsageError, quoted
from alexnet.run import Run
from alexnet.training.history import ended, longer
from alexnet.training.schedule import LRSchedule
from alexnet.training.state import TrainState

ANY_TIME = ("data.source", "data.workers", "data.memory", "train.epochs", "train.steps", "train.save_every")
SCHEDULE = ("schedule.drops", "schedule.patience", "schedule.patience_steps", "schedule.milestones")
ROUNDING = ("train.device", "train.threads")  # sums are made in another order
# What a run's environment.json says of its machine that rounds sums otherwise, and the setting that may ask for it.
HARDWARE = {"hardware.device": "train.device", "hardware.threads": "train.threads", "hardware.instruction_class": ""}
CHANGEABLE = (*ANY_TIME, *SCHEDULE, *ROUNDING)


def changed_config(run: Run, changes: Mapping[str, str]) -> Config:
    """A run's settings with changes by path. Raises UsageError for one that cannot be changed, naming it."""
    for path in changes:
        if path not in CHANGEABLE:
            known = path in {field.path for field in fields(run.config)}
            raise UsageError(
                f"{path} cannot be changed in a run; begin another with `--init {run.path}`"
                if known
                else f"{path} is no setting that can be changed in a run, as {', '.join(CHANGEABLE)} can"
            )
    return replace(run.config, changes)


def differences(before: Config, after: Config) -> dict[str, list[str]]:
    """Path → the texts of a setting before and after, for those that may change in a run."""
    values = [{field.path: text_of(field.default) for field in fields(config)} for config in (before, after)]
    return {path: [values[0][path], values[1][path]] for path in CHANGEABLE if values[0][path] != values[1][path]}


def hardware_differences(run: Run, device: torch.device) -> dict[str, list[str]]:
    """Names as in `HARDWARE` → the machine that a run had last and the one that it goes on with, where they differ.

    What a `train.device` of auto and `train.threads` of 0 come to. On a GPU its name alone tells.
    """
    if not (run.path / "environment.json").exists():
        return {}
    known, gpus = run.environment["hardware"], run.environment["hardware"]["gpus"]
    kind, _, number = run.config.train.device.partition(":")
    before = {
        "hardware.device": "cpu" if kind == "cpu" else next(iter(gpus[int(number or 0) :]), "cpu"),
        "hardware.threads": str(known["threads"]),
        "hardware.instruction_class": known.get("instruction_class"),
    }
    for change in run.environment.get("changes", []):
        before |= {name: values[1] for name, values in change["settings"].items() if name in HARDWARE}
    if device.type == "cuda":
        now = {"hardware.device": torch.cuda.get_device_name(device)}
    else:
        now = dict(zip(HARDWARE, (device.type, str(torch.get_num_threads()), instruction_sets()[1]), strict=True))
    told = {name: value for name, value in before.items() if isinstance(value, str)}
    return {name: [told[name], value] for name, value in now.items() if told.get(name, value) != value}


def schedules(run: Run, config: Config) -> list[LRSchedule]:
    """The schedule of `config`, then those that a run had before, the newest first: a checkpoint is of one of them.

    Raises RunError where environment.json tells of changes that cannot have been.
    """
    configs = [config, run.config]
    for change in reversed(run.environment.get("changes", []) if (run.path / "environment.json").exists() else []):
        before = {path: values[0] for path, values in change["settings"].items() if path in SCHEDULE}
        try:
            configs.append(replace(configs[-1], before))
        except UsageError as error:
            raise RunError(f"{run.path / 'environment.json'}: changes: {error}") from None
    kinds = dict.fromkeys((one.schedule, one.optimizer) for one in configs)
    return [LRSchedule(schedule, optimizer) for schedule, optimizer in kinds]


def exactness(run: Run, changed: Mapping[str, list[str]], state: TrainState, images: str = "") -> str:
    """Why a run that goes on with changes is not what it would have been with them from the beginning; empty if it is.

    `changed` are settings and hardware, `images` says what of them has changed.
    """
    if not state.steps:
        return ""
    if images:
        return f"the images have changed: {images}"
    rounding = [path for path in ROUNDING if path in changed]
    rounding += [name for name, path in HARDWARE.items() if name in changed and path not in changed]
    if rounding:
        words = ", ".join(_instead(path, *changed[path]) for path in rounding)
        return f"with {words} sums are rounded otherwise"
    epochs, every = run.config.train.epochs, run.config.train.evaluate_every
    if "train.epochs" in changed and state.epoch > epochs and epochs % every:
        return f"epoch {epochs} was validated as the last one, which train.evaluate_every {every} would not have done"
    return ""


def check_length(
    run: Run, config: Config, state: TrainState, schedule: LRSchedule, changed: Mapping[str, object]
) -> None:
    """Raise RunError where a run would be shorter than what is done of it, or where what is asked trains nothing."""
    done, settings = state.epoch - 1, config.train
    if settings.epochs < (begun := done + (state.step > 0)):
        raise RunError(f"{run.path} is in epoch {begun} already; epochs {settings.epochs} is fewer")
    if 0 < settings.steps < state.steps:
        raise RunError(f"{run.path} has done {state.steps} steps; steps {settings.steps} is fewer")
    why = ended(settings, schedule, done, state.steps)
    if why and {"train.epochs", "train.steps", *SCHEDULE} & changed.keys():
        raise RunError(f"{run.path} {why}; to train it longer give {longer(settings, schedule, done, state.steps)}")


def entry(state: TrainState, changed: Mapping[str, list[str]], why: str) -> dict[str, object]:
    """What the run's environment.json keeps of a change."""
    return {"epoch": state.epoch, "step": state.steps, "exact": not why, "settings": dict(changed)}


def _instead(path: str, before: str, after: str) -> str:
    """`train.threads 2 instead of 1`, `threads 2 instead of 1` where the machine has them."""
    before, after = (quoted(value)[1:-1] for value in (before, after))
    return f"{path.removeprefix('hardware.').replace('_', ' ')} {after} instead of {before}"
