"""What a long command says while it works: notes, warnings and a progress bar, all on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """Says nothing; the base of what does."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that looks wrong, with what to try."""

    def decoding(self, done: int, total: int) -> None:
        """So many of a split's images are decoded."""

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """A bar that `decoding` moves."""
        yield

    @contextmanager
    def training(self, epochs: int, steps: int) -> Iterator[None]:
        """The bar of a run of `epochs` of `steps` each."""
        yield

    def step(self, epoch: int, step: int, images: int, loss: float, waiting: float) -> None:
        """A training step is done; `waiting` is the share of time spent waiting for data."""

    def validated(self, epoch: int, result: dict[str, Any], lr: float) -> None:
        """An epoch's validation errors in percent."""


quiet = Progress()


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Terminal(Progress):
    """Prose and a bar on stderr; without a terminal, a line per epoch."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.bar: Bar | None = None
        self.counter: Bar | None = None
        self.epochs = 0

    def note(self, text: str) -> None:
        """As `Progress.note`."""
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """As `Progress.warn`."""
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """As `Progress.counting`."""
        if not self.console.is_terminal:
            yield
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            SpinnerColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

        columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        with Bar(*columns, console=self.console) as self.counter:
            yield
        self.counter = None

    def decoding(self, done: int, total: int) -> None:
        """As `Progress.decoding`."""
        if self.counter is None:
            return
        if not self.counter.tasks:
            self.counter.add_task("images", total=total)
        self.counter.update(self.counter.task_ids[0], completed=done, total=total)

    @contextmanager
    def training(self, epochs: int, steps: int) -> Iterator[None]:
        """As `Progress.training`."""
        self.epochs = epochs
        if not self.console.is_terminal:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f} images/s"),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("waiting {task.fields[waiting]:.0%}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.console) as self.bar:
            self.task = self.bar.add_task(
                "train", total=epochs * steps, epoch=1, rate=0.0, loss=float("nan"), waiting=0.0
            )
            self.steps = steps
            yield
        self.bar = None

    def step(self, epoch: int, step: int, images: int, loss: float, waiting: float) -> None:
        """As `Progress.step`."""
        if self.bar is None:
            return
        done = (epoch - 1) * self.steps + step
        speed = self.bar.tasks[0].speed or 0.0
        self.bar.update(self.task, completed=done, epoch=epoch, rate=speed * images, loss=loss, waiting=waiting)

    def validated(self, epoch: int, result: dict[str, Any], lr: float) -> None:
        """As `Progress.validated`."""
        top5 = "" if result["top5_error"] is None else f", top-5 {result['top5_error']:.2f} %"
        self.note(
            f"epoch {epoch}/{self.epochs}: validation error top-1 {result['top1_error']:.2f} %{top5}, "
            f"loss {result['loss']:.4f}, lr {lr:g}"
        )
