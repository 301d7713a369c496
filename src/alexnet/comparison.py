"""The presets side by side, and how two of them differ, read from the data that they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alexnet import presets
from alexnet.architecture import LRN, Conv, Full, Layer, Local, MapNorm, Network, Pool, parameters
from alexnet.config import Config, fields
from alexnet.setting import Field

NONE_WORDS = {"std": "uniform in ±1/√fan-in", "decay": "the optimizer's", "units": "one per class"}
ABSENT = "–"


@dataclass(frozen=True)
class PresetRow:
    """One preset in the table: its network in a few numbers and words, and its source."""

    preset: str
    input: int  # side in pixels
    columns: int
    classes: int
    convolutions: int
    locally_connected: int
    kernels: tuple[int, ...]  # of each convolution or locally-connected layer
    full: tuple[int, ...]  # units of each fully-connected layer
    normalization: str
    pooling: str
    activation: str
    parameters: int
    source: str

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Difference:
    """One thing that differs: where (`norm1`, `optimizer`), which field, and both values as text."""

    where: str
    field: str
    a: str
    b: str

    def to_json(self) -> dict[str, str]:
        """The difference as JSON."""
        return dataclasses.asdict(self)


def preset_rows() -> list[PresetRow]:
    """One row per preset, the paper's first."""
    return [_row(presets.preset(name)) for name in presets.names()]


def difference(a: Config, b: Config) -> list[Difference]:
    """What differs between two configs: the network layer by layer (order, then fields), then the recipe."""
    first, second = a.network, b.network
    rows = [
        Difference("network", name, *_values(name, getattr(first, name), getattr(second, name)))
        for name in ("image", "classes", "columns", "activation")
        if getattr(first, name) != getattr(second, name)
    ]
    rows += _orders(first, second)
    rows += _layers(first, second)
    for setting, other in zip(_recipe(a), _recipe(b), strict=True):
        where, _, name = setting.path.partition(".")
        if setting.default != other.default and setting.path != "data.source":
            rows.append(Difference(where, name, *_values(name, setting.default, other.default)))
    return rows


def _recipe(config: Config) -> list[Field]:
    """The settings of everything but the network."""
    return [setting for setting in fields(config) if not setting.path.startswith("network.")]


def _row(config: Config) -> PresetRow:
    network = config.network
    return PresetRow(
        preset=config.preset,
        input=network.image,
        columns=network.columns,
        classes=network.classes,
        convolutions=sum(isinstance(layer, Conv) for layer in network.layers),
        locally_connected=sum(isinstance(layer, Local) for layer in network.layers),
        kernels=tuple(layer.kernels for layer in network.layers if isinstance(layer, Conv | Local)),
        full=tuple(layer.units or network.classes for layer in network.layers if isinstance(layer, Full)),
        normalization=_normalization(network),
        pooling=_pooling(network),
        activation=network.activation,
        parameters=parameters(network),
        source=network.about,
    )


def _normalization(network: Network) -> str:
    words = []
    for layer in network.layers:
        if isinstance(layer, LRN):
            across = ", all maps" if layer.within == "all" and network.columns > 1 else ""
            words.append(f"LRN {'α/n' if layer.divide else 'α'}, k={layer.k:g}{across}")
        elif isinstance(layer, MapNorm):
            words.append("within maps")
    return " + ".join(_once(words)) or "none"


def _pooling(network: Network) -> str:
    kinds = [f"{layer.size}/{layer.stride}" for layer in network.layers if isinstance(layer, Pool)]
    words = [layer.kind for layer in network.layers if isinstance(layer, Pool)]
    return f"{' + '.join(_once(words))} {', '.join(_once(kinds))}"


def _once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _stages(network: Network) -> dict[str, list[str]]:
    """Each layer with weights, and the names of the layers up to the next one."""
    stages: dict[str, list[str]] = {}
    for layer in network.layers:
        if isinstance(layer, Conv | Local | Full):
            stages[layer.name] = []
        elif stages:
            stages[list(stages)[-1]].append(layer.name)
    return stages


def _orders(a: Network, b: Network) -> list[Difference]:
    first, second = _stages(a), _stages(b)
    rows = []
    for name in _once([*first, *second]):
        left, right = first.get(name), second.get(name)
        if left != right:
            texts = [ABSENT if stage is None else " → ".join([name, *stage]) for stage in (left, right)]
            rows.append(Difference(name, "order", *texts))
    return rows


def _layers(a: Network, b: Network) -> list[Difference]:
    first, second = ({layer.name: layer for layer in network.layers} for network in (a, b))
    rows = []
    for name in _once([*first, *second]):
        left, right = first.get(name), second.get(name)
        if left is None or right is None:
            there = left or right
            assert there is not None
            texts = [ABSENT if layer is None else _whole(layer) for layer in (left, right)]
            rows.append(Difference(name, type(there).__name__, *texts))
        elif type(left) is not type(right):
            rows.append(Difference(name, "kind", type(left).__name__, type(right).__name__))
        else:
            for field in dataclasses.fields(left):
                values = getattr(left, field.name), getattr(right, field.name)
                if values[0] != values[1]:
                    rows.append(Difference(name, field.name, *_values(field.name, *values)))
    return rows


def _whole(layer: Layer) -> str:
    values = [(f.name, getattr(layer, f.name)) for f in dataclasses.fields(layer) if f.name != "name"]
    return ", ".join(f"{name} {_value(name, value)}" for name, value in values if value is not None)


def _values(name: str, a: Any, b: Any) -> tuple[str, str]:
    return _value(name, a), _value(name, b)


def _value(name: str, value: Any) -> str:
    if value is None:
        return NONE_WORDS.get(name, ABSENT)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
