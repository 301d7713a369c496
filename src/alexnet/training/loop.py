"""The one training loop: from a config to a run directory (paper §5).

Order, crops, coins, colour and dropout are pure functions of seed, epoch and image, so that a run that is killed and
resumed at any moment ends with the same weights and metrics, to the bit, on one device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from alexnet.checkpoint import (
    Checkpoint,
    arrays,
    check_fit,
    has_checkpoint,
    load_weights,
    read_record,
    recover_checkpoint,
)
from alexnet.config import Config
from alexnet.data.batch import Batch
from alexnet.data.run_data import RunData, open_resumed_data, open_run_data
from alexnet.device import autocast, choose_device, to_device
from alexnet.engine.memory import keep_freed_memory
from alexnet.errors import CheckpointError, TrainingError
from alexnet.evaluation.measure import measure_split
from alexnet.evaluation.metrics import Measurement
from alexnet.model.zoo import build
from alexnet.progress import Progress, quiet
from alexnet.run import Run
from alexnet.training import resuming
from alexnet.training.adapt import Later, fitted
from alexnet.training.batches import Batches
from alexnet.training.diagnostics import Diagnostics
from alexnet.training.history import check_history, ended, longer
from alexnet.training.init import copy_initial_weights
from alexnet.training.parallel import World, unwrap
from alexnet.training.schedule import LRSchedule
from alexnet.training.sgd import SGD, parameter_groups
from alexnet.training.signals import StopRequest, stop_on_signals
from alexnet.training.state import SavedState, StepLog, TrainingResult, TrainState, order
from alexnet.training.step import Step
from alexnet.training.task import Task, task_of
from alexnet.training.trackers import Trackers
from alexnet.training.writer import RunWriter


def train(
    config: Config, out: str | Path, progress: Progress = quiet, command: list[str] | None = None
) -> TrainingResult:
    """Train a network; `out` is the run directory to be made.

    Raises UsageError, RunError or DataError for a wrong request (which leaves nothing behind), TrainingError when the
    loss is not finite or too many images cannot be read, KeyboardInterrupt (state saved) on Ctrl-C, SIGTERM or SIGUSR1.
    """
    return _train(Run(Path(out)), config, progress, command, None)


def resume(
    run: str | Path, progress: Progress = quiet, changes: Mapping[str, str] = MappingProxyType({})
) -> TrainingResult:
    """Go on with an interrupted run as if it had not been interrupted.

    `changes` are settings by path as on the command line; `resuming.CHANGEABLE` may change. The run remembers them and
    says where it is no longer exact; a finished run says so, and what trains it longer. Raises as `train` does, and
    CheckpointError for a checkpoint that is damaged or of another network.
    """
    opened = Run.open(run)
    return _train(opened, resuming.changed_config(opened, changes), progress, None, changes)


def _train(
    run: Run, config: Config, progress: Progress, command: list[str] | None, changes: Mapping[str, str] | None
) -> TrainingResult:
    """`changes` is None for a new run."""
    resumed = changes is not None
    with stop_on_signals() as stop, ExitStack() as stack:
        source = changes.get("data.source") if changes is not None else None
        data = open_resumed_data(run, config, progress, source) if resumed else open_run_data(config)
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        device = choose_device(config.train.device)
        if device.type == "cpu":
            keep_freed_memory()
        later = Later()
        if not resumed:
            data = fitted(data, device, later)
        saved = resumed and has_checkpoint(run.checkpoints, "last")
        if saved:
            check_fit(run.checkpoints, "last", data.config.network)
        model = build(data.config.network, config.train.seed).to(device)
        trackers = Trackers(config.train.track, progress)
        trainer = Trainer(run, data, model, task_of(config), trackers, progress)
        report = copy_initial_weights(model, data, later) if config.train.init and not saved else None
        # Only now, so that a wrong request leaves nothing behind.
        stack.enter_context(run.held() if resumed else run.begun(data.config, command, data.describe()))
        later.tell(progress)
        if report:
            report.save(run.init_file)
        if saved:
            trainer.restore()
        if resumed:
            progress.note(data.summary_line())
            trainer.change()
        return trainer.fit(Batches(run, data, device, progress, trainer.world), stop)


class Trainer:
    """A run in memory: model, optimizer, schedule and state, and the loop over them.

    Making one reads and writes nothing; `restore` reads the last checkpoint, `fit` trains.
    """

    def __init__(
        self,
        run: Run,
        data: RunData,
        model: nn.Module,
        task: Task,
        trackers: Trackers,
        progress: Progress = quiet,
        world: World | None = None,
    ) -> None:
        """`model` may be wrapped. Raises UsageError where a setting fits no layer of the network."""
        self.run, self.config, self.model, self.task, self.progress = run, data.config, model, task, progress
        self.images_changed = data.changed
        self.world = world or World()
        config = data.config
        self.device = next(model.parameters()).device
        groups = parameter_groups(model, config.network, config.optimizer)
        self.optimizer = SGD(groups, lr=config.optimizer.lr, capturable=self.device.type == "cuda")
        self.update = Step(model, task, self.optimizer, config.train.seed, config.train.precision)
        self.schedule = LRSchedule(config.schedule, config.optimizer)
        self.schedule.check_layers(dict.fromkeys(group["layer"] for group in self.optimizer.param_groups))
        self.state = TrainState()
        self.diagnostics = Diagnostics(task.chance(config.network.classes), progress)
        self.writer = RunWriter(run, trackers, self.world)
        self.step_log = StepLog(self.device)
        self.clock = Clock()
        self.loss = math.nan  # of the newest step that was read
        self.saved = 0.0  # when, by time.perf_counter

    def restore(self) -> None:
        """Go back to the last checkpoint. Raises CheckpointError naming what does not fit the network or the schema."""
        checkpoint = recover_checkpoint(self.run.checkpoints, "last", self.config.network)
        if checkpoint.damage:
            self.progress.warn(checkpoint.damage)
        origin = checkpoint.origin
        try:
            state = read_record(SavedState, checkpoint.state, "state")
            schedule = state.schedule
            if self.world.writes:
                schedules = resuming.schedules(self.run, self.config)
                schedule = check_history(state, self.run, schedules, self.optimizer.param_groups)
        except CheckpointError as error:
            raise CheckpointError(f"{origin}: {error}") from None
        load_weights(unwrap(self.model), checkpoint.weights, origin)
        velocities = {name: torch.from_numpy(value) for name, value in checkpoint.velocities.items()}
        self.optimizer.load_velocities(velocities, state.velocity_lr, origin)
        self.state, self.schedule.state, self.diagnostics.state = state.train, schedule, state.diagnostics

    def change(self) -> None:
        """Keep what is new in the settings and the machine in the run, and say where it ends to be exact.

        Raises RunError where the new settings make the run shorter than it is, or no longer.
        """
        state = self.state
        changed = resuming.differences(self.run.config, self.config)
        resuming.check_length(self.run, self.config, state, self.schedule, changed)
        if self.images_changed:
            changed.setdefault("data.source", [self.config.data.source] * 2)
        if not self._finished():
            changed |= resuming.hardware_differences(self.run, self.device)
        if changed and self.world.writes:
            why = resuming.exactness(self.run, changed, state, self.images_changed)
            if why:
                self.progress.warn(f"from step {state.steps} on the run is not exact: {why}")
            self.run.change(self.config, resuming.entry(state, changed, why))

    def fit(self, batches: Batches, stop: StopRequest | None = None) -> TrainingResult:
        """Run to the end and say why. Raises KeyboardInterrupt, with the state saved, once a stop is asked for."""
        stop = stop or StopRequest()
        state, began, first, images = self.state, time.perf_counter(), self.state.steps, 0
        self.writer.open(state.metrics_bytes, state.steps)
        with self.progress.training(self.config.train.epochs, batches.steps), stop.after_step():
            try:
                while not self._finished():
                    self._stop_if(stop)
                    images += self._epoch(batches, stop)
            finally:
                self.writer.close()
        seconds, length = time.perf_counter() - began, (self.schedule, state.epoch - 1, state.steps)
        why, flags = (words(self.config.train, *length) for words in (ended, longer))
        self.progress.note(f"the run {why}; to train it longer give {flags}")
        return TrainingResult(
            run=str(self.run.path),
            epochs=state.epoch - 1,
            steps=state.steps,
            seconds=round(seconds, 2),
            images_per_second=round(images / seconds, 1) if state.steps > first else 0.0,
            best=state.best,
            last=state.last,
        )

    def _finished(self) -> bool:
        return self.state.epoch > self.config.train.epochs or self.schedule.finished or self._limit_reached()

    def _limit_reached(self) -> bool:
        return 0 < self.config.train.steps <= self.state.steps

    def _stop_if(self, stop: StopRequest) -> None:
        if self.world.any(stop.requested):
            raise stop.interrupt()

    def _epoch(self, batches: Batches, stop: StopRequest) -> int:
        """Train for an epoch, or to its end where it was begun before; returns the number of images."""
        state, images = self.state, 0
        self.schedule.apply(self.optimizer.param_groups, state.epoch)
        self.model.train()
        self.clock = Clock()
        self.saved = time.perf_counter()
        began = self.saved - state.seconds
        for batch in batches.epoch(state.epoch, state.step):
            self._step(batches, batch)
            images += len(batch.labels)
            state.seconds = time.perf_counter() - began
            if state.steps % self.config.train.log_every == 0:
                self._log("train", {"lr": self.schedule.lr, **self._interval(), **self.clock.result()})
                self.clock = Clock()
            halt = self.world.any(stop.requested)  # looked at once: a later signal waits for the next step
            over = halt or self._limit_reached()
            if over or self.world.first(time.perf_counter() - self.saved > self.config.train.save_every):
                self._read_log()
                self._check_weights()
                self._save("last", batches)
            if halt:
                raise stop.interrupt()
            if over and state.step < batches.steps:
                return images
        self._end_epoch(batches)
        return images

    def _step(self, batches: Batches, batch: Batch) -> None:
        """One update, none for a batch without a readable image."""
        state, n = self.state, len(batch.labels)
        state.step = batch.step + 1
        state.steps += 1
        if n:
            inputs, targets, positions = batches.prepared(batch, self.task)
            sums = self.update(inputs, targets, positions, state.epoch, batch.step)
            self.step_log.add(state.steps, self.update.names, sums, len(inputs))
            if self.step_log.full:
                self._read_log()
            self.diagnostics.look(state.steps, self.model, inputs)
        self.clock.add(n, batch.wait_seconds)
        self.progress.step(state.epoch, state.step, n, self.loss, self.clock.waiting)

    def _read_log(self) -> None:
        """Bring the means up to date. Raises TrainingError naming the first step whose loss is not finite."""
        for step, sums, count in self.step_log.read():
            self.loss = sums["loss"] / count
            if not math.isfinite(self.loss):
                self._diverged(f"the loss is {self.loss} at", step)
            self.state.mean.add(sums, count)
            self.state.interval.add(sums, count)
            self.diagnostics.after_step(step, self.loss)

    def _interval(self) -> dict[str, float]:
        """The means since the last call."""
        self._read_log()
        means = self.state.interval.means()
        self.state.interval.clear()
        return means

    def _check_weights(self) -> None:
        """The last update may have spoilt them, although the loss before it was finite."""
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            self._diverged("a weight is not finite after", self.state.steps)

    def _diverged(self, what: str, step: int) -> NoReturn:
        kept = "the last checkpoint is kept"
        if not has_checkpoint(self.run.checkpoints, "last"):
            kept = "nothing was saved yet, so that the same command may begin anew"
        raise TrainingError(
            f"{what} step {step} (epoch {self.state.epoch}, learning rate {self.schedule.lr:g}); {kept}: "
            f"try a lower --optimizer.lr than {self.config.optimizer.lr:g}"
        )

    def _end_epoch(self, batches: Batches) -> None:
        state, epoch = self.state, self.state.epoch
        self._read_log()
        self._check_weights()
        means = state.mean.means()
        self._log("epoch", {"lr": self.schedule.lr, **means, "seconds": round(state.seconds, 2)})
        error = result = None
        if epoch % self.config.train.evaluate_every == 0 or epoch == self.config.train.epochs:
            result = self._validate(batches)
            error = result.top1_error
        better = result is not None and (not state.best or order(state.last) < order(state.best))
        if better:
            state.best = dict(state.last)
        if self.schedule.after_epoch(epoch, self.world.first(error), state.steps):
            self.progress.note(f"epoch {epoch}: the learning rate drops to {self.schedule.lr:g}")
        state.next_epoch()
        if result is not None:
            loss = means.get("loss", 0.0)
            least = state.best["top1_error"]
            self.diagnostics.after_validation(result, least, loss, state.steps, self._finished())
        if better:
            self._save("best", batches)
        self._save("last", batches)

    def _validate(self, batches: Batches) -> Measurement:
        """Measure the validation split."""
        result = measure_validation(self.model, batches, self.task, self.config)
        if not math.isfinite(result.loss):
            self._diverged(f"the validation loss is {result.loss} after", self.state.steps)
        self.state.last = {"epoch": self.state.epoch, "step": self.state.steps, **result.to_json()}
        self._log("validation", result.to_json())
        self.progress.validated(self.state.epoch, result.to_json(), self.schedule.lr)
        return result

    def _log(self, kind: str, values: dict[str, Any]) -> None:
        self.state.metrics_bytes = self.writer.log(kind, self.state.epoch, self.state.steps, values)

    def _save(self, name: str, batches: Batches) -> None:
        self._read_log()
        velocities, lrs = self.optimizer.velocities()
        if name == "last":
            batches.note_unreadable()
        else:  # it is not gone on from
            velocities, lrs = {}, {}
        weights = arrays(unwrap(self.model).state_dict())
        state = SavedState(self.state, self.schedule.state, self.diagnostics.state, lrs)
        self.writer.save(name, Checkpoint(weights, arrays(velocities), state.to_json()))
        self.saved = time.perf_counter()


class Clock:
    """Speed since the last line of metrics, or since the epoch began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.images = 0
        self.waited = 0.0

    def add(self, images: int, waited: float) -> None:
        """Record a step and the seconds it waited for its batch."""
        self.images += images
        self.waited += waited

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / max(time.perf_counter() - self.began, 1e-9)

    def result(self) -> dict[str, float]:
        """What a line of metrics says of it."""
        seconds = time.perf_counter() - self.began
        return {"images_per_second": round(self.images / seconds, 1), "waiting": round(self.waited / seconds, 4)}


def measure_validation(model: nn.Module, batches: Batches, task: Task, config: Config) -> Measurement:
    """Centre-view errors (percent) and loss of the validation split, as used for the schedule and `best`."""

    device = batches.augmentation.device

    def prepare(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return task.prepare(batches.augmentation.test(images), to_device(labels, device))

    def scores(inputs: Tensor) -> Tensor:
        with autocast(config.train.precision, device):
            return task.scores(model(inputs).float())

    model.eval()
    result = measure_split(
        batches.validation,
        scores,
        task.loss,
        config.network.classes,
        prepare=prepare,
        majority=batches.data.majority,
    )
    model.train()
    return result
