"""What a run does otherwise than its preset because its training set is small, or its processor lacks bfloat16.

The presets are made for tens of thousands of pictures and more. Of a few hundred they would make a dozen steps, where
random weights need thousands. What is given by name (`Config.chosen`) stays as it is; what is adapted is written to the
run's config.json as if it had been given, so that a resumed run goes on with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from alexnet.config import Config
from alexnet.data.run_data import RunData
from alexnet.errors import quoted
from alexnet.model.native import multiplies_bfloat16
from alexnet.progress import Progress

EPOCH_STEPS = 16  # an epoch has at least so many, with a smaller batch where need be
SMALLEST_BATCH = 8
LEAST_STEPS = 4000  # in all
SMALL = 2000  # training images below which weights that have seen others are the better beginning
UNEQUAL = 10  # times as many images of one class as of another


class Later(Progress):
    """Keeps what is said until it is sure that there will be a training."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        """As `Progress.note`."""
        self.kept.append(("note", text))

    def warn(self, text: str) -> None:
        """As `Progress.warn`."""
        self.kept.append(("warn", text))

    def tell(self, progress: Progress) -> None:
        """Say it all."""
        for how, text in self.kept:
            getattr(progress, how)(text)


def fitted(data: RunData, device: torch.device, progress: Progress) -> RunData:
    """The data of a new run, with the config fitted to them and to the device; says what they are and what changed."""
    of_precision = Later()
    config, changes = adapt(choose_precision(data.config, device, of_precision), len(data.train))
    data = dataclasses.replace(data, config=config)
    progress.note(data.summary_line())
    of_precision.tell(progress)
    if changes:
        progress.note(f"adapted to few images: {', '.join(changes)} (--train.adapt false keeps the preset's)")
    if len(data.train) < SMALL and not data.config.train.init and data.config.data.source != "digits":
        progress.note(
            f"{len(data.train):,} pictures are few for random weights; weights that have seen many do better: "
            "--preset fine-tune --init MODEL"
        )
    for words in advice(data):
        progress.warn(words)
    return data


def adapt(config: Config, images: int) -> tuple[Config, list[str]]:
    """The config for a training set of so many images, and in words what is changed.

    A smaller batch makes at least `EPOCH_STEPS` an epoch, with a learning rate lowered in proportion, and more epochs
    make `LEAST_STEPS` in all; epochs at which something changes move with them. An adapted config, and any for
    more images, stays as it is.
    """
    train = config.train
    notes: list[str] = []
    if not train.adapt:
        return config, notes
    before = train.batch_size
    batch = min(before, max(SMALLEST_BATCH, images // EPOCH_STEPS))
    if batch < before and "train.batch_size" not in config.chosen:
        train = dataclasses.replace(train, batch_size=batch)
        notes.append(f"{batch} images per step instead of {before}")
        if "optimizer.lr" not in config.chosen:
            lr = float(f"{config.optimizer.lr * batch / before:.3g}")
            config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=lr))
            notes.append(f"learning rate {lr:g}")
    times = -(-LEAST_STEPS // (train.epochs * -(-images // train.batch_size)))
    if times > 1 and "train.epochs" not in config.chosen:
        train = dataclasses.replace(train, epochs=times * train.epochs)
        config = _stretched(config, times)
        notes.append(f"up to {train.epochs} epochs")
    return dataclasses.replace(config, train=train), notes


def _stretched(config: Config, times: int) -> Config:
    """The epochs at which the schedule or the augmentation changes, so many times later."""
    layers = []
    for entry in config.schedule.layers:
        pattern, at, rest = entry.partition("@")
        after, _, value = rest.partition("=")
        layers.append(f"{pattern}@{times * int(after)}={value}" if at else entry)
    schedule = dataclasses.replace(
        config.schedule,
        milestones=tuple(times * epoch for epoch in config.schedule.milestones),
        layers=tuple(layers),
    )
    augment = dataclasses.replace(config.augment, colour_until=times * config.augment.colour_until)
    return dataclasses.replace(config, schedule=schedule, augment=augment)


def choose_precision(
    config: Config, device: torch.device, progress: Progress, capable: Callable[[torch.device], bool] | None = None
) -> Config:
    """The config with `auto` made bfloat16 where the device multiplies it, else float32, which is said.

    bfloat16 asked for by name is kept, with a warning where it is slow. `capable` answers for the device, by default
    as torch says.
    """
    wanted = config.train.precision
    if wanted == "float32":
        return config
    fast = (capable or _multiplies_bfloat16)(device)
    if wanted == "bfloat16":
        if not fast:
            progress.warn("this processor has no products of bfloat16, which makes it slower than --precision float32")
        return config
    if not fast:
        progress.note("float32 instead of the preset's bfloat16, which this processor does not multiply")
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, precision="bfloat16" if fast else "float32")
    )


def _multiplies_bfloat16(device: torch.device) -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else multiplies_bfloat16()


def advice(data: RunData) -> list[str]:
    """What is wrong with a training on these images before it begins, with what to do: few steps, unequal classes."""
    config, counts = data.config, data.class_counts
    steps = config.train.epochs * data.steps_per_epoch
    steps = min(steps, config.train.steps) if config.train.steps else steps
    words = []
    if steps < LEAST_STEPS // 4 and not config.train.init:
        words.append(
            f"few steps per epoch, {data.steps_per_epoch}, and {steps:,} in all, where random weights need thousands: "
            "more --epochs, or fewer images in --train.batch_size"
        )
    (first, most), (last, least) = ((at, counts[at]) for at in (int(counts.argmax()), int(counts.argmin())))
    if most >= UNEQUAL * least:
        many, few = quoted(data.source.classes[first]), quoted(data.source.classes[last])
        words.append(
            f"the classes are very unequal, {most:,} images of {many} and {least:,} of {few}: compare the errors with "
            "that of always answering the former, or even them out"
        )
    return words
