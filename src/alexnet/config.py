"""The settings of a run: frozen dataclasses, and one route to a `Config` from a preset, flags or a file.

Nothing here imports torch, so `alexnet --help` is instant. Every field's help text says its unit;
`alexnet train --help` and the comments of `alexnet config` are made from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alexnet.architecture import Layer, Network, check_network, layer_from_dict
from alexnet.errors import UsageError, quoted, suggestion
from alexnet.setting import Field, checked, fields_of, setting


@dataclass(frozen=True)
class Data:
    """Where the images come from and how they reach the network (paper §2)."""

    source: str = setting(
        "", "digits, a folder of class folders, a folder of Parquet files, …; only preset digits has one"
    )
    size: int = setting(
        256, "pixels: the shorter side is scaled to this, then the central square is cut", minimum=1, maximum=4096
    )
    exif_rotate: bool = setting(False, "turn pictures as their EXIF orientation says (nobody did in 2012)")
    center: Literal["mean-image", "imagenet", "none"] = setting(
        "mean-image",
        "mean-image subtracts each pixel's mean over the training set; imagenet scales to 0..1 and "
        "normalizes with ImageNet's channel means and deviations; none leaves 0..255",
    )
    classes: tuple[str, ...] = setting(
        (), "only these of the source's classes: names, or numbers from 0 on and ranges of them, as 0-149 (all)"
    )
    validation: float = setting(
        0.1, "share of train held out for validation when the source has no val split", above=0, below=1
    )
    workers: int = setting(0, "decoding threads; 0: one per core", minimum=0)
    memory: int = setting(2048, "MiB: a split that fits is decoded once and kept", minimum=0)


@dataclass(frozen=True)
class Augment:
    """What is drawn each time an image is used in training (paper §4.1)."""

    crop: bool = setting(True, "random crops of the network's input size; otherwise the centre")
    mirror: bool = setting(True, "mirror every second image, by the toss of a coin")
    colour: float = setting(0.0, "σ of the PCA colour noise's three factors; 0: none (the paper: 0.1)", minimum=0)
    colour_scale: Literal["sqrt", "value"] = setting(
        "sqrt",
        "what multiplies a component: sqrt(λ), its standard deviation (2012 source), or λ, the text read literally",
    )
    colour_divisor: float = setting(1.0, "the noisy image is divided by this (2012 source: 1.1)", above=0)
    colour_until: int = setting(0, "epoch after which colour noise is off; 0: never", minimum=0)
    shared: int = setting(1, "consecutive images that share one crop and one coin (2012 source: 32)", minimum=1)


@dataclass(frozen=True)
class Optimizer:
    """The paper's update rule: v ← m·v − decay·lr·w − lr·∂L/∂w, w ← w + v (§5)."""

    lr: float = setting(0.01, "the learning rate of the weights", above=0)
    momentum: float = setting(0.9, "m, what is kept of the last update", minimum=0, below=1)
    weight_decay: float = setting(0.0005, "decay per step, multiplied by the learning rate", minimum=0)
    bias_lr: float = setting(1.0, "the biases' learning rate as a multiple of the weights'", minimum=0)
    bias_decay: float = setting(1.0, "the biases' decay as a multiple of the weights'", minimum=0)
    bias_lr_drops: bool = setting(True, "whether the biases' learning rate is lowered with the weights'")


@dataclass(frozen=True)
class Schedule:
    """When the learning rate is divided (paper §5), and learning rates of single layers."""

    kind: Literal["plateau", "epochs"] = setting(
        "plateau", "plateau: when the validation error stops improving; epochs: after given ones"
    )
    factor: float = setting(10.0, "the learning rate is divided by this", above=1)
    drops: int = setting(
        3, "plateau: divide at most this often; the next plateau after the last ends the run", minimum=0
    )
    patience: int = setting(5, "plateau: epochs without improvement before a drop", minimum=1)
    patience_steps: int = setting(
        1000, "plateau: and at least so many steps, which are more epochs where a set is small", minimum=0
    )
    threshold: float = setting(0.1, "plateau: points of validation error that count as an improvement", minimum=0)
    milestones: tuple[int, ...] = setting((), "epochs: after these (as 23,51,78)", minimum=1)
    layers: tuple[str, ...] = setting(
        (),
        "learning rates of layers, as conv1@68=1e-5 (after epoch 68 this one), conv1@72=0 (frozen) or fc8=x10 (ten "
        "times the others'); the later entry wins",
    )


@dataclass(frozen=True)
class Train:
    """Length, batch, arithmetic and bookkeeping of a run."""

    epochs: int = setting(90, "passes over the training set at most", minimum=1)
    steps: int = setting(0, "stop after this many steps; 0: no such limit", minimum=0)
    batch_size: int = setting(128, "images per step", minimum=1)
    adapt: bool = setting(
        True,
        "fit what is not given of batch_size, epochs and optimizer.lr to a training set of few images, and say so",
    )
    precision: Literal["float32", "bfloat16", "auto"] = setting(
        "float32", "bfloat16: autocast; the weights stay float32; auto: bfloat16 where the processor multiplies it"
    )
    device: str = setting("auto", "auto (a GPU where there is one), cpu, cuda or cuda:N")
    seed: int = setting(0, "decides initial weights, order and every draw", minimum=0, below=2**63)
    threads: int = setting(0, "CPU threads; 0: one per core. Exact resume needs the same number", minimum=0)
    log_every: int = setting(50, "steps between two lines of metrics", minimum=1)
    task: Literal["softmax", "hinge"] = setting("softmax", "softmax: cross-entropy; hinge: the multi-class SVM loss")
    margin: float = setting(1.0, "hinge: Δ, by how much the true class's score should exceed every other", minimum=0)
    init: str = setting("", "a model whose weights are copied by name and shape before the first step")
    track: tuple[str, ...] = setting((), "where else metrics go: tensorboard, wandb, mlflow")
    save_every: float = setting(300.0, "seconds between two checkpoints within an epoch", minimum=0)
    evaluate_every: int = setting(1, "epochs between two evaluations of the validation split", minimum=1)


@dataclass(frozen=True)
class Config:
    """All there is to know to repeat a run; written to its `config.json`.

    `chosen` are the settings given by name, whatever their value, which nothing adapts; no part of what is written.
    """

    preset: str
    network: Network
    data: Data = Data()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
    chosen: frozenset[str] = field(default=frozenset(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        out = {s.name: dataclasses.asdict(getattr(self, s.name)) for s in sections()}
        return {"preset": self.preset, "network": self.network.to_dict(), **out}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Config:
        """Read back what `to_dict` wrote; a missing section or setting has its default.

        Raises UsageError naming the first setting that is unknown, missing or wrong.
        """
        if (
            not isinstance(data, Mapping)
            or not isinstance(data.get("preset"), str)
            or not isinstance(data.get("network"), Mapping)
        ):
            raise UsageError("settings should name their preset and describe their network")
        config = cls(preset=data["preset"], network=Network.from_dict(data["network"]))
        return merge(config, {name: value for name, value in data.items() if name not in ("preset", "network")})


def sections() -> list[dataclasses.Field[Any]]:
    """The groups of settings: data, augment, optimizer, schedule, train."""
    return [f for f in dataclasses.fields(Config) if f.name not in ("preset", "network", "chosen")]


def fields(config: Config) -> Iterator[Field]:
    """Every setting of a config with its current value, in order; those of the network and of its layers last."""
    for section in sections():
        yield from fields_of(getattr(config, section.name), section.name)
    yield from config.network.fields()


def replace(config: Config, changes: Mapping[str, str]) -> Config:
    """A config with settings changed by path: `{"optimizer.lr": "0.02", "network.norm1": "none"}`.

    `none` removes a layer, or leaves open a setting that may be. Raises UsageError for an unknown path (naming the
    nearest) and for a value of the wrong type or range.
    """
    for path, text in changes.items():
        names = path.split(".")
        entry = {field.path: field for field in fields(config)}.get(path)
        if entry is not None:
            value: Any = entry.parse(text)
        elif len(names) == 2 and names[0] == "network" and names[1] in _layers(config):
            value = text
        else:
            known = [*(field.path for field in fields(config)), *(f"network.{name}" for name in _layers(config))]
            raise UsageError(f"{path} is not a setting{suggestion(path, known)}; `alexnet train --help` lists them")
        for name in reversed(names):
            value = {name: value}
        config = _merged(config, value)
    check(config)
    return dataclasses.replace(config, chosen=config.chosen | changes.keys())


def merge(config: Config, document: Mapping[str, Any]) -> Config:
    """A config with the settings of a file in the place of its own: `{"optimizer": {"lr": 0.02}}`.

    In `network`, tables named for layers change these layers' settings, and "none" removes one. Where the tables say
    what kind of layer they describe, as `alexnet config` writes them, they are the whole network, in their order.
    What differs from before counts as chosen, as a file may list all there is. Raises UsageError.
    """
    before = {entry.path: entry.default for entry in fields(config)}
    config = _merged(config, document)
    check(config)
    changed = {entry.path for entry in fields(config) if entry.default != before.get(entry.path)}
    return dataclasses.replace(config, chosen=config.chosen | changed)


def _merged(config: Config, document: Mapping[str, Any]) -> Config:
    parts: dict[str, Any] = {}
    for name, values in document.items():
        known = [section.name for section in sections()]
        if name == "network":
            parts[name] = _merged_network(config.network, values)
        elif name in known:
            part = getattr(config, name)
            parts[name] = checked(type(part), name, values, part)
        else:
            raise UsageError(f"{name} is not a section of settings{suggestion(name, [*known, 'network'])}")
    return dataclasses.replace(config, **parts)


def _merged_network(network: Network, values: Any) -> Network:
    if not isinstance(values, Mapping):
        raise UsageError(f"network {quoted(values)} should be a table of settings")
    own = {field.path.partition(".")[2] for field in fields_of(Network, "network")}
    texts = {name: values[name] for name in ("name", "about") if isinstance(values.get(name), str)}
    settings = {name: value for name, value in values.items() if name in own}
    tables = {name: value for name, value in values.items() if name not in own and name not in texts}
    whole = [name for name, table in tables.items() if isinstance(table, Mapping) and "layer" in table]
    if whole and len(whole) < len(tables):
        odd = next(name for name in tables if name not in whole)
        raise UsageError(f'network.{odd} should say its kind, as network.{whole[0]} does, for example layer = "Conv"')
    network = dataclasses.replace(checked(Network, "network", settings, network), **texts)
    if whole:
        layers = tuple(layer_from_dict({**table, "name": name}) for name, table in tables.items())
        return dataclasses.replace(network, layers=layers)
    for name, table in tables.items():
        layer = {layer.name: layer for layer in network.layers}.get(name)
        if layer is None:
            names = [layer.name for layer in network.layers]
            raise UsageError(f"network.{name} is not a setting or layer{suggestion(name, [*own, *names])}")
        network = network.replace_layer(name, *_changed(layer, table))
    return network


def _changed(layer: Layer, table: Any) -> list[Layer]:
    path = f"network.{layer.name}"
    if table == "none":
        return []
    if not isinstance(table, Mapping):
        raise UsageError(
            f"{path} {quoted(table)} should be none, which removes the layer; its settings are {path}.NAME"
        )
    return [checked(type(layer), path, table, layer)]


def _layers(config: Config) -> list[str]:
    return [layer.name for layer in config.network.layers]


def flags(base: Config, config: Config) -> dict[str, str]:
    """The changes by path that make one config of another: `replace(base, flags(base, config))` is `config`.

    Layers are only removed or changed. Raises UsageError where the other has a layer that `base` does not have in this
    place; only a file describes that.
    """
    before = {field.path: field.default for field in fields(base)}
    changes = {}
    for name in _layers(base):
        if name not in _layers(config):
            changes[f"network.{name}"] = "none"
    for entry in fields(config):
        if entry.path not in before:
            raise UsageError(f"{entry.path} is not a setting of {base.preset}; only a file of settings can add a layer")
        if entry.default != before[entry.path]:
            changes[entry.path] = text_of(entry.default)
    kept = [layer for layer in base.network.layers if f"network.{layer.name}" not in changes]
    if [(layer.name, type(layer)) for layer in kept] != [(layer.name, type(layer)) for layer in config.network.layers]:
        raise UsageError(f"the layers of {config.preset} differ from those of {base.preset} in more than settings")
    return changes


def text_of(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check(config: Config) -> None:
    """Raise UsageError for the first setting that cannot work, naming it and what it should be."""
    for entry in fields(config):
        entry.check(entry.default)
    check_network(config.network)
    size, image = config.data.size, config.network.image
    if size < image:
        raise UsageError(f"data.size {size} should be at least the network's {image} (network.image)")
