"""Going on with a run by other settings: which may change, when what follows is still exact, and what is recorded.

Exact means: the run ends with the weights and metrics that it would have with these settings from the beginning. So
the schedule may change as far as the epochs that are done would have had the same learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping

from alexnet.config import Config, fields, replace, text_of
from alexnet.errors import RunError, UsageError
from alexnet.run import Run
from alexnet.training.history import ended, longer
from alexnet.training.schedule import LRSchedule
from alexnet.training.state import TrainState

ANY_TIME = ("data.source", "data.workers", "data.memory", "train.epochs", "train.steps", "train.save_every")
SCHEDULE = ("schedule.drops", "schedule.patience", "schedule.patience_steps", "schedule.milestones")
ROUNDING = ("train.device", "train.threads")  # sums are made in another order
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
    """Why a run that goes on with changed settings is not what it would have been with them; empty if it is.

    `images` says what of them has changed.
    """
    if not state.steps:
        return ""
    if images:
        return f"the images have changed: {images}"
    rounding = [path for path in ROUNDING if path in changed]
    if rounding:
        words = ", ".join(f"{path} {changed[path][1]} instead of {changed[path][0]}" for path in rounding)
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
