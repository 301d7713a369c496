"""Which difference lets `code-145` start where the literal `paper` stands still: one at a time, both ways, in a record.

    alexnet data prepare ../shared/data/tiny-imagenet .data/tiny-40 --size 40 --codec raw
    python -m experiments.start --data .data/tiny-40 --whole ../shared/data/tiny-imagenet

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
from torch import Tensor

from alexnet import presets, resume, train
from alexnet.ablations import without
from alexnet.architecture import Activation, Conv, Full, Layer, MapNorm, Network, hidden_layer, weight_shapes
from alexnet.config import Config, replace
from alexnet.data.augment import Augmentation
from alexnet.data.run_data import load_statistics, open_known_source, open_run_data
from alexnet.files import write_json
from alexnet.inference.load import open_model
from alexnet.model.zoo import build
from alexnet.run import Run
from benchmarks.records import Json, Record, Result, make_record
from experiments.records import RECORDS

NAME = "start"
LITERAL, CODE = "paper", "code-145"
CLASSES, SIDE, CROP, UNITS = 200, 40, 36, 512
STEPS, LONG, LOG = 600, 2000, 20
FIRST = 300  # steps of the network at full size
STARTED = 0.99  # of the loss of guessing
LOOKED_AT = 128  # training images whose activations are measured


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
SIGMA = "σ of conv3 to conv5 (0.01, 0.03)"
DIFFERENCES: dict[str, Take] = {
    SIGMA: _layers(("conv3", "conv4", "conv5"), "std"),
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


def _small_biases(config: Config) -> Config:
    network = config.network
    for layer in network.layers:
        if isinstance(layer, Conv | Full) and layer.bias == 1:
            network = network.replace_layer(layer.name, dataclasses.replace(layer, bias=0.1))
    return dataclasses.replace(config, network=network)


# What a reader may try who wants to keep the literal σ.
BIASES = "biases of 0.1 instead of 1"
TRIED: dict[str, Callable[[Config], Config]] = {
    "no dropout": lambda config: without(config, ["dropout"]),
    BIASES: _small_biases,
    "a learning rate of 0.001 instead of 0.01": lambda config: replace(config, {"optimizer.lr": "0.001"}),
}


@dataclass(frozen=True)
class Arm:
    """What is trained: one of the two presets, in small or whole, with one thing changed or none."""

    base: str
    change: str = ""
    steps: int = STEPS
    whole: bool = False

    @property
    def name(self) -> str:
        """As it stands in the record."""
        return f"{self.base}{' at full size' if self.whole else ''}{f', {self.change}' if self.change else ''}"

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return "start-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def config(self) -> Config:
        """Its settings."""
        base, other = (
            presets.preset(name, classes=CLASSES) if self.whole else small(name)
            for name in (self.base, CODE if self.base == LITERAL else LITERAL)
        )
        if self.change in TRIED:
            return TRIED[self.change](base)
        return (DIFFERENCES | SINGLE)[self.change](base, other) if self.change else base


ARMS = (
    Arm(LITERAL),
    Arm(CODE),
    *(Arm(base, change) for change in DIFFERENCES for base in (LITERAL, CODE)),
    *(Arm(LITERAL, change) for change in (*SINGLE, *TRIED)),
)
LONGER = Arm(LITERAL, "", LONG)  # in the place of the first arm, with the first seed: whether it starts later
WHOLE = (Arm(LITERAL, SIGMA, FIRST, whole=True),)  # one seed; `real_images` has both presets as they are


@dataclass(frozen=True)
class StartRun(Json):
    """One run: the mean loss of each 20 steps, and the step at which it had started, None where it did not.

    `silent` is the share of the last hidden layer's units that are 0 for every image, after the last step.
    """

    arm: str
    seed: int
    steps: int
    started: int | None
    silent: float
    seconds: float
    loss_curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Signal(Json):
    """A layer's output before the first step, of the first seed's network.

    `level` is the root mean square of its values, `differs` that of what differs between images (their deviation from
    the mean over the images); `gradient` is the norm of the loss's gradient by the layer's weights over the weights'.
    """

    arm: str
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


def train_arm(arm: Arm, seed: int, data: str, folder: Path) -> Run:
    """Train an arm, or go on where it was left."""
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
        resume(out, changes={"train.steps": str(arm.steps)})
    return Run.open(out)


def measured(arm: Arm, run: Run) -> StartRun:
    """What a finished run did."""
    lines = run.metrics("train")
    curve = tuple((line["step"], round(line["loss"], 4)) for line in lines)
    seconds = sum(LOG * run.config.train.batch_size / line["images_per_second"] for line in lines)
    layer = hidden_layer(run.config.network)
    model = open_model(str(run.path), "last").torch_model().eval()
    with torch.no_grad():
        units = model.taps(examples(run)[0], [layer])[layer]
    silent = 1 - float((units > 0).any(0).float().mean())
    return StartRun(
        arm.name, run.config.train.seed, arm.steps, started(curve), round(silent, 4), round(seconds, 1), curve
    )


def examples(run: Run) -> tuple[Tensor, Tensor]:
    """Training images of a run as its network takes them, in the centre view, (N, 3, C, C), and their labels (N,)."""
    source, place, _ = open_known_source(run)
    data = open_run_data(run.config, source, place)
    statistics = load_statistics(run.statistics_file, run.config.data.size)
    chosen = np.linspace(0, len(data.train) - 1, LOOKED_AT).astype(int)
    squares = np.stack([data.train.resize_crop(int(i), run.config.data.size) for i in chosen])
    images = Augmentation(data.config, statistics, torch.device("cpu")).test(torch.from_numpy(squares))
    return images, torch.from_numpy(data.train.labels[chosen])


def signals(arm: Arm, run: Run) -> list[Signal]:
    """What an arm's layers with weights make of a run's images before the first step, and their first gradients."""
    images, labels = examples(run)
    network = dataclasses.replace(arm.config().network, classes=run.config.network.classes)
    model = build(network, run.config.train.seed).eval()
    taps = model.taps(images, list(fan_ins(network)))
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    weights = {name.split(".")[-2]: value for name, value in model.named_parameters() if name.endswith("weight")}
    found = []
    for name, output in taps.items():
        values, weight = output.detach(), weights[name]
        assert weight.grad is not None
        level, differs = (float(part.square().mean().sqrt()) for part in (values, values - values.mean(0)))
        gradient = float(weight.grad.norm() / weight.detach().norm())
        found.append(Signal(arm.name, name, *(float(f"{value:.3g}") for value in (level, differs, gradient))))
    return found


def summary(runs: Sequence[StartRun], arm: Arm) -> Result:
    """The mean loss of the last 100 of `STEPS` steps, its range over the runs, and how many had started by then."""
    steps = min(STEPS, arm.steps)
    losses = [statistics.mean(loss for step, loss in run.loss_curve if steps - 100 < step <= steps) for run in runs]
    count = sum(run.started is not None and run.started <= steps for run in runs)
    spread = (round(min(losses), 4), round(max(losses), 4))
    return Result(arm.name, round(statistics.mean(losses), 4), "", spread, len(runs), also={"started": count})


def load(folder: Path = RECORDS) -> StartRecord | None:
    """The record, or None where there is none."""
    path = folder / f"{NAME}.json"
    return StartRecord.from_json(json.loads(path.read_text())) if path.exists() else None


def main(argv: Sequence[str] | None = None) -> StartRecord:
    """Train every arm with every seed, keep the record up to date, say what each did and return the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Tiny ImageNet, or a store of it at 40 pixels, which is faster")
    parser.add_argument("--whole", help="Tiny ImageNet as it is, for the network at full size; without it left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--more", type=int, nargs="*", default=[3, 4], help="seeds of the four arms that decide")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--note", default="", help="what a reader of the record should know")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records")
    args = parser.parse_args(argv)
    runs: list[StartRun] = []
    looks: list[Signal] = []
    for arm, seed, data in plan(args.seeds, args.more, args.data, args.whole):
        run = train_arm(arm, seed, data, args.runs)
        runs.append(measured(arm, run))
        if seed == args.seeds[0] and arm.change in ("", SIGMA):
            looks += signals(arm, run)
        if arm.whole:
            looks += signals(Arm(arm.base, whole=True), run)
        record = recorded(runs, looks, args.note)
        args.records.mkdir(parents=True, exist_ok=True)
        write_json(args.records / f"{NAME}.json", record.to_json())
        print(f"{arm.name}, seed {seed}: started at {runs[-1].started}, silent {runs[-1].silent:.0%}", flush=True)
    return record


def plan(seeds: Sequence[int], more: Sequence[int], data: str, whole: str | None) -> list[tuple[Arm, int, str]]:
    """Arms, seeds and images in turn: the differences, more seeds of σ, what else is tried, at last full size.

    With `more` seeds both presets are trained as they are and with the other's σ.
    """
    todo = [(LONGER if (arm, seed) == (ARMS[0], seeds[0]) else arm, seed, data) for seed in seeds for arm in ARMS]
    first = [entry for entry in todo if entry[0].change in ("", BIASES, *DIFFERENCES)]
    once = [entry for entry in todo if entry not in first and entry[1] == seeds[0]]
    again = [(arm, seed, data) for seed in more for arm in ARMS if arm.change in ("", SIGMA)]
    full = [(arm, seeds[0], whole) for arm in WHOLE if whole]
    return [*first, *once, *again, *full, *(entry for entry in todo if entry not in first and entry not in once)]


def recorded(runs: Sequence[StartRun], looks: Sequence[Signal], note: str) -> StartRecord:
    """The record of what was run so far."""
    by_arm = [([run for run in runs if run.arm == arm.name], arm) for arm in (*ARMS, *WHOLE)]
    made = make_record(NAME, [summary(own, arm) for own, arm in by_arm if own])
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    return StartRecord(**fields, data="Tiny ImageNet", note=note, runs=tuple(runs), signals=tuple(looks))


if __name__ == "__main__":
    main()
