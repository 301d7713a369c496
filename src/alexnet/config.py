"""The settings of a run: frozen dataclasses, one route from a preset and flags to a `Config`.

Nothing here imports torch, so `alexnet --help` is instant. Every field's help text says its unit;
`alexnet train --help` is made from them.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alexnet.architecture import Network
from alexnet.errors import UsageError, nearest


def setting(default: Any, about: str) -> Any:
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": about})


@dataclass(frozen=True)
class Data:
    """Where the images come from and how they reach the network (paper §2)."""

    source: str = setting("digits", "digits, a folder of class folders, a folder of Parquet files, …")
    size: int = setting(256, "pixels: the shorter side is scaled to this, then the central square is cut")
    exif_rotate: bool = setting(False, "turn pictures as their EXIF orientation says (nobody did in 2012)")
    center: Literal["mean-image", "imagenet", "none"] = setting(
        "mean-image",
        "mean-image subtracts each pixel's mean over the training set; imagenet scales to 0..1 and "
        "normalises with ImageNet's channel means and deviations; none leaves 0..255",
    )
    validation: float = setting(0.1, "share of train held out for validation when the source has no val split")
    workers: int = setting(0, "decoding threads; 0: one a core")
    memory: int = setting(2048, "MiB: a split that fits is decoded once and kept")


@dataclass(frozen=True)
class Augment:
    """What is drawn anew each time an image is used in training (paper §4.1)."""

    crop: bool = setting(True, "random crops of the network's input size; otherwise the centre")
    mirror: bool = setting(True, "mirror every second image, drawn by a coin")
    colour: float = setting(0.0, "σ of the PCA colour noise's three factors; 0: none (the paper: 0.1)")
    colour_scale: Literal["sqrt", "value"] = setting(
        "sqrt",
        "what multiplies a component: sqrt(λ), its standard deviation (2012 source), or λ, the text read literally",
    )
    colour_divisor: float = setting(1.0, "the noisy image is divided by this (2012 source: 1.1)")
    colour_until: int = setting(0, "epoch after which colour noise is off; 0: never")
    shared: int = setting(1, "consecutive images that share one crop and one coin (2012 source: 32)")


@dataclass(frozen=True)
class Optimizer:
    """The paper's update rule: v ← m·v − decay·ε·w − ε·∂L/∂w, w ← w + v (§5)."""

    lr: float = setting(0.01, "ε, the learning rate of the weights")
    momentum: float = setting(0.9, "m, what is kept of the last update")
    weight_decay: float = setting(0.0005, "decay per step, multiplied by ε")
    bias_lr: float = setting(1.0, "the biases' rate as a multiple of the weights'")
    bias_decay: float = setting(1.0, "the biases' decay as a multiple of the weights'")
    bias_lr_drops: bool = setting(True, "whether the biases' rate is lowered with the weights'")


@dataclass(frozen=True)
class Schedule:
    """When the rate is divided (paper §5), and what the 2012 source did late in a run."""

    kind: Literal["plateau", "epochs"] = setting(
        "plateau", "plateau: when the validation error stops improving; epochs: after given ones"
    )
    factor: float = setting(10.0, "the rate is divided by this")
    drops: int = setting(3, "plateau: divide at most this often; the next plateau after the last ends the run")
    patience: int = setting(5, "plateau: epochs without improvement before a drop")
    threshold: float = setting(0.1, "plateau: points of validation error that count as an improvement")
    milestones: tuple[int, ...] = setting((), "epochs: after these (as 23,51,78)")
    conv1_epoch: int = setting(0, "after this epoch conv1 learns at conv1_lr; 0: never")
    conv1_lr: float = setting(1e-5, "conv1's rate after conv1_epoch")
    layers: tuple[str, ...] = setting(
        (),
        "learning rates of layers, as conv1@68=1e-5 (after epoch 68 this rate), conv1@72=0 (frozen) or fc8=x10 (ten "
        "times the others'); the later entry wins",
    )
    freeze_conv1: int = setting(0, "after this epoch conv1 no longer learns; 0: never")


@dataclass(frozen=True)
class Train:
    """Length, batch, arithmetic and bookkeeping of a run."""

    epochs: int = setting(90, "passes over the training set at most")
    steps: int = setting(0, "stop after this many steps; 0: no such limit")
    batch_size: int = setting(128, "images a step")
    precision: Literal["float32", "bfloat16"] = setting("float32", "bfloat16: autocast; the weights stay float32")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    seed: int = setting(0, "decides initial weights, order and every draw")
    threads: int = setting(0, "CPU threads; 0: one a core. Exact resume needs the same number")
    log_every: int = setting(50, "steps between two lines of metrics")
    task: Literal["softmax", "hinge"] = setting("softmax", "softmax: cross-entropy; hinge: the multi-class SVM loss")
    margin: float = setting(1.0, "hinge: Δ, by how much the true class's score should exceed every other")
    init: str = setting("", "a model whose weights are copied by name and shape before the first step")
    track: tuple[str, ...] = setting((), "where else metrics go: tensorboard, wandb, mlflow")
    save_every: float = setting(300.0, "seconds between two checkpoints within an epoch")
    evaluate_every: int = setting(1, "epochs between two evaluations of the validation split")


@dataclass(frozen=True)
class Config:
    """All there is to know to repeat a run; written to its `config.json`."""

    preset: str
    network: Network
    data: Data = Data()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        out = {s.name: dataclasses.asdict(getattr(self, s.name)) for s in sections()}
        return {"preset": self.preset, "network": self.network.to_dict(), **out}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Config:
        """Read back what `to_dict` wrote. Raises ValueError for fields that are not known."""
        parts: dict[str, Any] = {}
        for section in sections():
            kind = _hint(cls, section.name)
            known = {f.name for f in dataclasses.fields(kind)}
            values = dict(data.get(section.name, {}))
            for name in values:
                if name not in known:
                    raise UsageError(f"{section.name}.{name} is no setting{nearest(name, known)}")
            for f in dataclasses.fields(kind):
                if f.name in values:
                    field_ = Field(f"{section.name}.{f.name}", _hint(kind, f.name), f.default, "")
                    values[f.name] = _read(field_, values[f.name])
            parts[section.name] = kind(**values)
        config = cls(preset=data["preset"], network=Network.from_dict(data["network"]), **parts)
        check(config)
        return config


def sections() -> list[dataclasses.Field[Any]]:
    """The groups of settings: data, augment, optimizer, schedule, train."""
    return [f for f in dataclasses.fields(Config) if f.name not in ("preset", "network")]


def _hint(owner: type, name: str) -> Any:
    return typing.get_type_hints(owner)[name]


@dataclass(frozen=True)
class Field:
    """One setting as the command line sees it: `path` is `optimizer.lr`."""

    path: str
    hint: Any
    default: Any
    about: str

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The allowed values of a Literal, or None."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else None


def fields(config: Config) -> Iterator[Field]:
    """Every setting of a config with its current value, in order."""
    for section in sections():
        kind = _hint(Config, section.name)
        for f in dataclasses.fields(kind):
            value = getattr(getattr(config, section.name), f.name)
            yield Field(f"{section.name}.{f.name}", _hint(kind, f.name), value, f.metadata["help"])
    yield Field(
        "network.activation",
        _hint(Network, "activation"),
        config.network.activation,
        "relu or tanh, for every layer (the four-layer nets of claim 1)",
    )


def replace(config: Config, changes: Mapping[str, str]) -> Config:
    """A config with settings changed by path (`{"optimizer.lr": "0.02"}`).

    Raises ValueError for an unknown path (naming the nearest) and for a value of the wrong type or range.
    """
    known = {f.path: f for f in fields(config)}
    for path, text in changes.items():
        if path not in known:
            raise UsageError(f"--{path} is no setting{nearest(path, known)}; `alexnet train --help` lists them")
        section, _, name = path.partition(".")
        value = _parse(known[path], text)
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    check(config)
    return config


def _parse(setting: Field, text: str) -> Any:
    hint = setting.hint
    try:
        if setting.choices:
            if text not in setting.choices:
                raise ValueError
            return text
        if hint is bool:
            return {
                "true": True,
                "false": False,
                "1": True,
                "0": False,
                "yes": True,
                "no": False,
                "on": True,
                "off": False,
            }[text.lower()]
        if hint is int or hint is float:
            return hint(text)
        if typing.get_origin(hint) is tuple:
            kind = typing.get_args(hint)[0]
            return tuple(kind(part) for part in text.replace(",", " ").split())
        return text
    except (ValueError, KeyError):
        raise UsageError(f"--{setting.path} {text!r} should be {_wanted(setting)}") from None


def _read(setting: Field, value: Any) -> Any:
    """A value from a file, checked against the setting's type."""
    hint = setting.hint
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    kinds: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    right = kinds.get(hint, (object,))
    good = isinstance(value, right) and (hint is bool or not isinstance(value, bool))
    if setting.choices:
        good = value in setting.choices
    if typing.get_origin(hint) is tuple:
        good = isinstance(value, tuple) and all(type(part) is typing.get_args(hint)[0] for part in value)
    if not good:
        raise UsageError(f"{setting.path} {value!r} should be {_wanted(setting)}")
    return value


def _wanted(setting: Field) -> str:
    if setting.choices:
        return " or ".join(setting.choices)
    if isinstance(setting.hint, types.GenericAlias):
        return "whole numbers, as 23,51,78"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(setting.hint, "a text")


def check(config: Config) -> None:
    """Raise ValueError for the first setting that cannot work, naming it and its range."""
    t, o, a, d, s = config.train, config.optimizer, config.augment, config.data, config.schedule
    rules = [
        (t.epochs >= 1, "train.epochs", t.epochs, "at least 1"),
        (t.steps >= 0, "train.steps", t.steps, "0 or more"),
        (t.batch_size >= 1, "train.batch_size", t.batch_size, "at least 1"),
        (t.log_every >= 1, "train.log_every", t.log_every, "at least 1"),
        (t.evaluate_every >= 1, "train.evaluate_every", t.evaluate_every, "at least 1"),
        (0 <= t.seed < 2**63, "train.seed", t.seed, "from 0 to 2^63 − 1"),
        (t.threads >= 0, "train.threads", t.threads, "0 or more"),
        (0 < o.lr < math.inf, "optimizer.lr", o.lr, "above 0"),
        (0 <= o.bias_lr < math.inf, "optimizer.bias_lr", o.bias_lr, "0 or more"),
        (0 <= o.bias_decay < math.inf, "optimizer.bias_decay", o.bias_decay, "0 or more"),
        (0 <= o.momentum < 1, "optimizer.momentum", o.momentum, "from 0 to below 1"),
        (0 <= o.weight_decay < math.inf, "optimizer.weight_decay", o.weight_decay, "0 or more"),
        (0 <= a.colour < math.inf, "augment.colour", a.colour, "0 or more"),
        (0 < a.colour_divisor < math.inf, "augment.colour_divisor", a.colour_divisor, "above 0"),
        (a.shared >= 1, "augment.shared", a.shared, "at least 1"),
        (d.size >= config.network.image, "data.size", d.size, f"at least the network's {config.network.image}"),
        (0 < d.validation < 1, "data.validation", d.validation, "between 0 and 1"),
        (a.colour_until >= 0, "augment.colour_until", a.colour_until, "0 or more"),
        (d.workers >= 0, "data.workers", d.workers, "0 or more"),
        (d.memory >= 0, "data.memory", d.memory, "0 or more"),
        (0 <= t.save_every < math.inf, "train.save_every", t.save_every, "0 or more seconds"),
        (0 <= s.threshold < math.inf, "schedule.threshold", s.threshold, "0 or more"),
        (all(m >= 1 for m in s.milestones), "schedule.milestones", s.milestones, "epochs from 1 on"),
        (0 <= s.conv1_lr < math.inf, "schedule.conv1_lr", s.conv1_lr, "0 or more"),
        (s.conv1_epoch >= 0, "schedule.conv1_epoch", s.conv1_epoch, "0 or more"),
        (s.freeze_conv1 >= 0, "schedule.freeze_conv1", s.freeze_conv1, "0 or more"),
        (1 < s.factor < math.inf, "schedule.factor", s.factor, "above 1"),
        (s.drops >= 0, "schedule.drops", s.drops, "0 or more"),
        (s.patience >= 1, "schedule.patience", s.patience, "at least 1"),
    ]
    for holds, path, value, wanted in rules:
        if not holds:
            raise UsageError(f"--{path} {value} should be {wanted}")
