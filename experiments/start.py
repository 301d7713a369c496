"""Which difference lets `code-145` start where the literal `paper` stands still: one at a time, both ways, in a record.

    alexnet data prepare ../shared/data/tiny-imagenet .data/tiny-40 --size 40 --codec raw
    python -m experiments.start --data .data/tiny-40

The network is the paper's in small, for 36×36 crops: two columns, the same layers, and of every layer but the first the
same σ·√fan-in, so that the signal shrinks as it does there. Each arm is trained for the same steps with the same seeds.
A run has started at the first step from which on every mean loss over 20 steps is 1 % or more below that of guessing.
A killed run goes on, a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet import presets, resume, train
from alexnet.ablations import without
from alexnet.architecture import Activation, Conv, Full, Layer, MapNorm, Network, weight_shapes
from alexnet.config import Config, replace
from alexnet.data.augment import Augmentation
from alexnet.data.run_data import open_run_data
from alexnet.data.statistics import Statistics
from alexnet.files import write_json
from alexnet.model.zoo import build
from alexnet.run import Run
from benchmarks.records import Json, Record, Result, make_record
from experiments.records import RECORDS

NAME = "start"
LITERAL, CODE = "paper", "code-145"
CLASSES, SIDE, CROP, UNITS = 200, 40, 36, 512
STEPS, LONG, LOG = 600, 2000, 20
STARTED = 0.99  # of the loss of guessing
LOOKED_AT = 256  # images whose activations are measured before the first step


def fan_ins(network: Network) -> dict[str, int]:
    """What a unit of each layer with weights sums over, by the layer's name."""
    shapes = weight_shapes(network).items()
    return {name.removesuffix(".weight"): math.prod(shape[1:]) for name, shape in shapes if name.endswith(".weight")}


def small(name: str) -> Config:
    """A preset's network and recipe in small: a third of the kernels, 36×36 crops, 512 units in fc6 and fc7.

    conv1 keeps its σ, every other layer its σ·√fan-in.
    """
    whole = presets.preset(name, classes=CLASSES)
    layers: list[Layer] = []
    for layer in whole.network.layers:
        if isinstance(layer, Conv):
            layer = dataclasses.replace(layer, kernels=layer.kernels // 12 * 4)
            layer = dataclasses.replace(layer, size=5, stride=2) if layer.name == "conv1" else layer
        elif isinstance(layer, Full) and layer.units:
            layer = dataclasses.replace(layer, units=UNITS)
        layers.append(layer)
    network = dataclasses.replace(whole.network, name=f"small {name}", image=CROP, layers=tuple(layers))
    before, after = fan_ins(whole.network), fan_ins(network)
    for layer in layers:
        if isinstance(layer, Conv | Full) and layer.name != "conv1" and layer.std is not None:
            std = float(f"{layer.std * math.sqrt(before[layer.name] / after[layer.name]):.3g}")
            network = network.replace_layer(layer.name, dataclasses.replace(layer, std=std))
    return dataclasses.replace(whole, network=network, data=dataclasses.replace(whole.data, size=SIDE))


Take = Callable[[Config, Config], Config]  # a config and another → the first with something of the second


def _layers(names: Iterable[str], *settings: str) -> Take:
    def take(config: Config, other: Config) -> Config:
        network, theirs = config.network, {layer.name: layer for layer in other.network.layers}
        for layer in network.layers:
            if layer.name in names:
                values = {setting: getattr(theirs[layer.name], setting) for setting in settings}
                network = network.replace_layer(layer.name, dataclasses.replace(layer, **values))
        return dataclasses.replace(config, network=network)

    return take


def _section(section: str, *settings: str) -> Take:
    def take(config: Config, other: Config) -> Config:
        values = {setting: getattr(getattr(other, section), setting) for setting in settings}
        return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})

    return take


def _relu1(config: Config, other: Config) -> Config:
    """The other's place of conv1's ReLU: behind the layer that it follows there."""
    theirs = [layer.name for layer in other.network.layers]
    before = theirs[theirs.index("relu1") - 1]
    layers = [layer for layer in config.network.layers if layer.name != "relu1"]
    layers.insert([layer.name for layer in layers].index(before) + 1, Activation("relu1"))
    return dataclasses.replace(config, network=dataclasses.replace(config.network, layers=tuple(layers)))


def _mapnorm(config: Config, other: Config) -> Config:
    """With the normalization within maps after norm2 where the other has it, else without."""
    layers: list[Layer] = [layer for layer in config.network.layers if not isinstance(layer, MapNorm)]
    at = [layer.name for layer in layers].index("norm2") + 1
    layers[at:at] = [layer for layer in other.network.layers if isinstance(layer, MapNorm)]
    return dataclasses.replace(config, network=dataclasses.replace(config.network, layers=tuple(layers)))


# All that `alexnet presets paper code-145` names and that can matter in the first epoch; max-pooling and the ReLU of
# conv5 give the same in either order.
DIFFERENCES: dict[str, Take] = {
    "σ of conv3 to conv5 (0.01, 0.03)": _layers(("conv3", "conv4", "conv5"), "std"),
    "conv1's ReLU (before norm1, after pool1)": _relu1,
    "normalization within maps (no, yes)": _mapnorm,
    "α of the LRN (whole, divided by n)": _layers(("norm1", "norm2"), "divide"),
    "biases (as weights, twice the rate and no decay)": _section("optimizer", "bias_lr", "bias_decay", "bias_lr_drops"),
    "divisor of the coloured image (1, 1.1)": _section("augment", "colour_divisor"),
    "images that share a crop (1, 32)": _section("augment", "shared"),
}
SINGLE: dict[str, Take] = {
    f"σ of {name} alone (0.01, 0.03)": _layers((name,), "std") for name in ("conv3", "conv4", "conv5")
}


@dataclass(frozen=True)
class Arm:
    """What is trained: one of the two presets in small, with one thing changed or none."""

    base: str
    change: str = ""
    steps: int = STEPS

    @property
    def name(self) -> str:
        """As it stands in the record."""
        return f"{self.base}, {self.change}" if self.change else self.base

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return "start-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def config(self) -> Config:
        """Its settings."""
        base, other = small(self.base), small(CODE if self.base == LITERAL else LITERAL)
        if self.change == NO_DROPOUT:
            return without(base, ["dropout"])
        take = (DIFFERENCES | SINGLE).get(self.change)
        return take(base, other) if take else base


NO_DROPOUT = "no dropout"
ARMS = (
    Arm(LITERAL, steps=LONG),
    Arm(CODE),
    *(Arm(base, change) for change in DIFFERENCES for base in (LITERAL, CODE)),
    *(Arm(LITERAL, change) for change in (*SINGLE, NO_DROPOUT)),
)


@dataclass(frozen=True)
class StartRun(Json):
    """One run: the mean loss of each 20 steps, and the step at which it had started, None where it did not."""

    arm: str
    seed: int
    steps: int
    started: int | None
    seconds: float
    loss_curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Signal(Json):
    """A layer's output before the first step, mean over the seeds.

    `level` is the root mean square of its values, `differs` that of what differs between images (their deviation from
    the mean over the images); `gradient` is the norm of the loss's gradient by the layer's weights over the weights'.
    """

    base: str
    layer: str
    level: float
    differs: float
    gradient: float


@dataclass(frozen=True)
class StartRecord(Record):
    """The runs of every arm, and what the networks make of images before the first step."""

    data: str
    note: str
    runs: tuple[StartRun, ...]
    signals: tuple[Signal, ...]

    def of(self, arm: Arm) -> list[StartRun]:
        """The runs of an arm."""
        return [run for run in self.runs if run.arm == arm.name]


def started(curve: Sequence[tuple[int, float]], limit: float = STARTED * math.log(CLASSES)) -> int | None:
    """The first step from which on the loss stays at or below a limit; None where it does not."""
    first = None
    for step, loss in reversed(curve):
        if loss > limit:
            break
        first = step
    return first


def train_arm(arm: Arm, seed: int, data: str, folder: Path) -> StartRun:
    """Train an arm, or go on where it was left, and say what it did."""
    out = folder / f"{arm.folder}-{seed}"
    if not (out / "config.json").exists():
        changes: dict[str, Any] = {
            "train.precision": "auto",
            "train.evaluate_every": 90,
            "train.steps": arm.steps,
            "train.log_every": LOG,
            "train.threads": 1,
            "train.seed": seed,
        }
        train(arm.config(), out, data=data, **changes)
    elif max((line["step"] for line in Run.open(out).metrics("train")), default=0) < arm.steps:
        resume(out)
    lines = Run.open(out).metrics("train")
    curve = tuple((line["step"], round(line["loss"], 4)) for line in lines)
    seconds = sum(LOG * Run.open(out).config.train.batch_size / line["images_per_second"] for line in lines)
    return StartRun(arm.name, seed, arm.steps, started(curve), round(seconds, 1), curve)


def signals(base: str, seeds: Sequence[int], data: str, folder: Path) -> list[Signal]:
    """What the layers with weights give and are given before the first step, for the first images of the split."""
    arm = Arm(base)
    opened = open_run_data(replace(arm.config(), {"data.source": data}))
    statistics_file = folder / f"{Arm(base).folder}-{seeds[0]}" / "statistics.npz"
    augmentation = Augmentation(opened.config, Statistics.load(statistics_file), torch.device("cpu"))
    chosen = np.linspace(0, len(opened.train) - 1, LOOKED_AT).astype(int)
    squares = np.stack([opened.train.resize_crop(int(i), SIDE) for i in chosen])
    images = augmentation.test(torch.from_numpy(squares))
    labels = torch.from_numpy(opened.train.labels[chosen])
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in seeds:
        model = build(opened.config.network, seed).eval()
        taps = model.taps(images, list(fan_ins(opened.config.network)))
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        weights = {name.split(".")[-2]: value for name, value in model.named_parameters() if name.endswith("weight")}
        for name, values in taps.items():
            values, weight = values.detach(), weights[name]
            assert weight.grad is not None
            level, differs = (float(part.square().mean().sqrt()) for part in (values, values - values.mean(0)))
            found.setdefault(name, []).append((level, differs, float(weight.grad.norm() / weight.detach().norm())))
    mean = {name: [statistics.mean(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    return [Signal(base, name, *(float(f"{value:.3g}") for value in values)) for name, values in mean.items()]


def summary(arm: Arm, runs: Sequence[StartRun]) -> Result:
    """The mean loss of the last 100 of `STEPS` steps, its range over the runs, and how many had started by then."""
    losses = [statistics.mean(loss for step, loss in run.loss_curve if STEPS - 100 < step <= STEPS) for run in runs]
    count = sum(run.started is not None and run.started <= STEPS for run in runs)
    spread = (round(min(losses), 4), round(max(losses), 4))
    return Result(arm.name, round(statistics.mean(losses), 4), "", spread, len(runs), also={"started": count})


def load(folder: Path = RECORDS) -> StartRecord | None:
    """The record, or None where there is none."""
    path = folder / f"{NAME}.json"
    return StartRecord.from_json(json.loads(path.read_text())) if path.exists() else None


def main(argv: Sequence[str] | None = None) -> StartRecord:
    """Train every arm with every seed, write the record, print its summary and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Tiny ImageNet, or a store of it at 40 pixels, which is faster")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], help="some arms only, by name")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--note", default="", help="what a reader of the record should know")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records")
    args = parser.parse_args(argv)
    arms = [arm for arm in ARMS if arm.name in args.arms]
    runs: list[StartRun] = []
    for seed in args.seeds:
        for arm in arms:
            runs.append(train_arm(arm, seed, args.data, args.runs))
            print(
                f"{arm.name}, seed {seed}: started at {runs[-1].started}, loss {runs[-1].loss_curve[-1][1]:.3f}",
                flush=True,
            )
    made = make_record(NAME, [summary(arm, [run for run in runs if run.arm == arm.name]) for arm in arms])
    found = [signal for base in (LITERAL, CODE) for signal in signals(base, args.seeds, args.data, args.runs)]
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    record = StartRecord(
        **fields, data=f"Tiny ImageNet at {SIDE}×{SIDE}", note=args.note, runs=tuple(runs), signals=tuple(found)
    )
    args.records.mkdir(parents=True, exist_ok=True)
    write_json(args.records / f"{NAME}.json", record.to_json())
    return record


if __name__ == "__main__":
    main()
