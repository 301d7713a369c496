"""The one training loop: from a config to a run directory (paper §5).

Order, crops, coins, colour and dropout are pure functions of (seed, epoch, step), so that a run that is killed and
resumed at any moment ends with the same weights and metrics, to the bit, on one device.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F

from alexnet.checkpoint import has_checkpoint, load_weights, recover_checkpoint, save_checkpoint
from alexnet.config import Config
from alexnet.data.augment import Augmentation
from alexnet.data.loader import Batch, BatchLoader
from alexnet.data.random import fold_in
from alexnet.data.run_data import RunData, SourceManifest, open_run_data
from alexnet.device import autocast, choose_device
from alexnet.engine import keep_freed_memory
from alexnet.errors import TrainingError
from alexnet.evaluation.measure import measure_split
from alexnet.model.zoo import Net, build
from alexnet.progress import Progress, quiet
from alexnet.run import Run
from alexnet.training.diagnostics import Health
from alexnet.training.schedule import RateSchedule
from alexnet.training.sgd import SGD, parameter_groups

UNREADABLE_LIMIT = 0.01  # share of the training images


@dataclass
class Position:
    """Where a run is: everything a checkpoint keeps besides weights, velocities and the schedule."""

    epoch: int = 1  # counted from 1
    step: int = 0  # steps done within the epoch
    steps: int = 0  # steps done in all
    loss_sum: float = 0.0  # over the images of the epoch so far
    wrong: int = 0
    images: int = 0
    interval_loss_sum: float = 0.0  # over the images since the last line of metrics
    interval_wrong: int = 0
    interval_images: int = 0
    seconds: float = 0.0  # of this epoch's steps
    metrics_bytes: int = 0  # length of metrics.jsonl
    best_error: float = math.inf
    best: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)


def train(
    config: Config, out: str | Path, resume: bool = False, progress: Progress = quiet, command: list[str] | None = None
) -> dict[str, Any]:
    """Train a network and return `{"run", "epochs", "steps", "seconds", "images_per_second", "best", "last"}`.

    `out` is the run directory; with `resume` an interrupted run there goes on as if it had not been interrupted.
    Raises RunError, DataError or ValueError for a wrong request, TrainingError when the loss is not finite or too many
    images cannot be read, KeyboardInterrupt (state saved) on Ctrl-C.
    """
    run = Run.open(out) if resume else None
    if run is not None:
        config = run.config
    inputs = open_run_data(config)
    config = inputs.config
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = choose_device(config.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = build(config.network, config.train.seed).to(device)
    if run is None:  # only now, so that a wrong request leaves nothing behind
        run = Run.create(Path(out), config, command)
    with run.held():
        return Trainer(run, config, inputs, model, device, progress).train()


class Trainer:
    """A run in memory: model, optimizer, schedule and position, and the loop over them."""

    def __init__(
        self,
        run: Run,
        config: Config,
        inputs: RunData,
        model: Net,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.run, self.config, self.inputs, self.progress = run, config, inputs, progress
        self.model, self.device = model, device
        self.optimizer = SGD(parameter_groups(self.model, config.network, config.optimizer), lr=config.optimizer.lr)
        self.schedule = RateSchedule(config.schedule, config.optimizer)
        self.position = Position()
        self.health = Health(config.network.classes, progress)
        self.record = SourceManifest(run, inputs, progress)
        statistics = inputs.statistics(run.statistics_file, progress)
        self.augmentation = Augmentation(config, statistics, self.device)
        self.feed = inputs.loader(inputs.train, progress, crop=self.augmentation.crop, draws=self.augmentation.draws)
        self.validation = inputs.loader(inputs.validation, quiet, shuffle=False)
        self.noted = False
        self._restore()

    def train(self) -> dict[str, Any]:
        """Run to the end and return the summary that `--json` prints."""
        began, images, steps = time.perf_counter(), 0, self.position.steps
        with self.progress.training(self.config.train.epochs, self.feed.steps), _interruptible() as interrupted:
            try:
                while not self._finished():
                    images += self._epoch(interrupted)
            finally:
                self.events.close()
        seconds = time.perf_counter() - began
        p = self.position
        return {
            "run": str(self.run.path),
            "epochs": p.epoch - 1,
            "steps": p.steps,
            "seconds": round(seconds, 2),
            "images_per_second": round(images / seconds, 1) if p.steps > steps else 0.0,
            "best": p.best,
            "last": p.last,
        }

    def _finished(self) -> bool:
        settings, p = self.config.train, self.position
        return p.epoch > settings.epochs or self.schedule.finished or 0 < settings.steps <= p.steps

    def _epoch(self, interrupted: threading.Event) -> int:
        settings, p = self.config.train, self.position
        self.schedule.apply(self.optimizer.param_groups, p.epoch)
        self.model.train()
        clock = _Clock()
        saved = time.perf_counter()
        began = saved - p.seconds
        images, whole = 0, p.step == 0
        for batch in self.feed.epoch(p.epoch, p.step):
            self._check_unreadable()
            if not len(batch.labels):
                continue
            loss, wrong = self._step(batch)
            if not math.isfinite(loss):
                self._diverged(f"the loss is {loss} at", p.steps + 1)
            n = len(batch.labels)
            p.step = batch.step + 1
            p.steps += 1
            p.loss_sum += loss * n
            p.wrong += wrong
            p.images += n
            p.interval_loss_sum += loss * n
            p.interval_wrong += wrong
            p.interval_images += n
            p.seconds = time.perf_counter() - began
            images += n
            clock.add(n, batch.wait_seconds)
            self.health.after_step(p.steps, loss, self.model, self.last_images)
            self.progress.step(p.epoch, p.step, n, loss, clock.waiting)
            if p.steps % settings.log_every == 0:
                self._log(
                    "train",
                    {
                        "lr": self.schedule.lr,
                        "loss": round(p.interval_loss_sum / p.interval_images, 6),
                        "top1_error": round(100 * p.interval_wrong / p.interval_images, 4),
                        **clock.result(),
                    },
                )
                p.interval_loss_sum, p.interval_wrong, p.interval_images = 0.0, 0, 0
                clock = _Clock()
            halt = interrupted.is_set()  # looked at once: a signal that comes later waits for the next step
            stop = halt or (0 < settings.steps <= p.steps)
            if stop or time.perf_counter() - saved > settings.save_every:
                self._check_weights()
                self._save("last")
                saved = time.perf_counter()
            if halt:
                raise KeyboardInterrupt
            if stop and p.step < self.feed.steps:
                return images
        self._check_unreadable()
        if whole:  # every image was tried, so what an earlier process could not read is known anew
            self.record.before = {}
        self._end_epoch()
        return images

    def _step(self, batch: Batch) -> tuple[float, int]:
        """One update; returns the batch's mean loss and how many of its images were wrong."""
        p = self.position
        images = self.augmentation.training(batch)
        labels = batch.labels.to(self.device, non_blocking=True)
        torch.manual_seed(fold_in(self.config.train.seed, p.epoch, batch.step, 3))  # dropout's draws
        with autocast(self.config.train.precision, self.device):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.last_images = images
        return loss.item(), int((logits.detach().argmax(1) != labels).sum())

    def _check_weights(self) -> None:
        """A last update may have spoilt them although the loss before it was finite."""
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            self._diverged("a weight is not finite after")

    def _diverged(self, what: str, steps: int | None = None) -> NoReturn:
        p = self.position
        raise TrainingError(
            f"{what} step {p.steps if steps is None else steps} (epoch {p.epoch}); the last checkpoint is kept: try a "
            f"lower --optimizer.lr than {self.config.optimizer.lr:g}"
        )

    def _end_epoch(self) -> None:
        p, epoch = self.position, self.position.epoch
        self._check_weights()
        self._log(
            "epoch",
            {
                "lr": self.schedule.lr,
                "loss": round(p.loss_sum / p.images, 6),
                "top1_error": round(100 * p.wrong / p.images, 4),
                "seconds": round(p.seconds, 2),
            },
        )
        error = None
        if epoch % self.config.train.evaluate_every == 0 or epoch == self.config.train.epochs:
            result = evaluate_split(self.model, self.validation, self.augmentation, self.config)
            if not math.isfinite(result["loss"]):
                self._diverged(f"the validation loss is {result['loss']} after")
            error = float(result["top1_error"])
            p.last = {"epoch": epoch, **result}
            self._log("validation", result)
            self.progress.validated(epoch, result, self.schedule.lr)
        better = error is not None and error < p.best_error
        if better:
            p.best_error, p.best = float(error or 0), dict(p.last)
        if self.schedule.after_epoch(epoch, error):
            self.progress.note(f"epoch {epoch}: the learning rate drops to {self.schedule.lr:g}")
        p.epoch, p.step = epoch + 1, 0
        p.loss_sum, p.wrong, p.images, p.seconds = 0.0, 0, 0, 0.0
        if better:
            self._save("best")
        self._save("last")

    def _log(self, kind: str, values: dict[str, Any]) -> None:
        p = self.position
        line = json.dumps({"kind": kind, "epoch": p.epoch, "step": p.steps, **values}) + "\n"
        with open(self.run.metrics_file, "ab") as file:
            file.write(line.encode())
            p.metrics_bytes = file.tell()
        for name, value in values.items():
            if isinstance(value, int | float):
                self.events.add_scalar(f"{kind}/{name}", value, p.steps)

    def _save(self, name: str) -> None:
        p = self.position
        state: dict[str, Any] = {"position": vars(p), "schedule": self.schedule.state(), "health": self.health.state()}
        if name == "last":
            self._note_unreadable()
            names = [group["name"] for group in self.optimizer.param_groups]
            params = [group["params"][0] for group in self.optimizer.param_groups]
            state["velocity"] = {
                key: self.optimizer.state[value]["velocity"].cpu()
                for key, value in zip(names, params, strict=True)
                if value in self.optimizer.state
            }
        save_checkpoint(self.run.checkpoints, name, self.model.state_dict(), state, f"{name} {p.steps} {p.epoch}")

    def _restore(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        p = self.position
        if has_checkpoint(self.run.checkpoints, "last"):
            checkpoint = recover_checkpoint(self.run.checkpoints, "last")
            load_weights(self.model, checkpoint.weights, str(self.run.checkpoints / "last.safetensors"))
            for group in self.optimizer.param_groups:
                velocity = checkpoint.state["velocity"].get(group["name"])
                if velocity is not None:
                    weight = group["params"][0]
                    self.optimizer.state[weight]["velocity"] = torch.empty_like(weight).copy_(velocity)
            self.schedule.load_state(checkpoint.state["schedule"])
            self.health.load_state(checkpoint.state.get("health", {}))
            vars(p).update(checkpoint.state["position"])
        if self.run.metrics_file.exists():
            with open(self.run.metrics_file, "ab") as file:
                file.truncate(p.metrics_bytes)
        self.events = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=p.steps or None)

    def _check_unreadable(self) -> None:
        if len(self.feed.unreadable) > UNREADABLE_LIMIT * len(self.inputs.train):
            self.record.write(self.feed.unreadable)
            raise TrainingError(
                f"{self._unreadable()}; more than {UNREADABLE_LIMIT:.0%}, so training stops: mend or remove them"
            )

    def _note_unreadable(self) -> None:
        self.record.write(self.feed.unreadable | self.validation.unreadable)
        if self.feed.unreadable and not self.noted:
            self.noted = True
            self.progress.note(f"{self._unreadable()}; they are left out and listed in source.json")

    def _unreadable(self) -> str:
        first, why = min(self.feed.unreadable.copy().items())
        return (
            f"{len(self.feed.unreadable)} of {len(self.inputs.train)} training images cannot be read "
            f"(first: {first}: {why})"
        )


class _Clock:
    """Speed since the last line of metrics, or since the epoch began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.images = 0
        self.waited = 0.0

    def add(self, images: int, waited: float) -> None:
        self.images += images
        self.waited += waited

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / max(time.perf_counter() - self.began, 1e-9)

    def result(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.began
        return {"images_per_second": round(self.images / seconds, 1), "waiting": round(self.waited / seconds, 4)}


def evaluate_split(
    model: torch.nn.Module, feed: BatchLoader, augmentation: Augmentation, config: Config
) -> dict[str, Any]:
    """Centre-view errors (percent) and loss of the validation split, as used for the schedule and `best`."""

    def scores(images: torch.Tensor) -> torch.Tensor:
        with autocast(config.train.precision, augmentation.device):
            return F.log_softmax(model(augmentation.test(images)).float(), 1)

    def loss(found: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(found, labels, reduction="none")

    model.eval()
    result = measure_split(feed, scores, loss, config.network.classes)
    model.train()
    return result.to_json()


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the step in hand is finished and saved; a second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
