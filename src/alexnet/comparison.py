"""The presets side by side, and how two or more configs differ, read from the data that they are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
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
    """One thing that differs: where (`norm1`, `optimizer`), which field, and each config's value.

    A layer that not all have is a text, a value that a config lacks None.
    """

    where: str
    field: str
    values: tuple[Any, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The values in words."""
        return tuple(_value(self.field, value) for value in self.values)

    @property
    def a(self) -> str:
        """The first config's value in words."""
        return self.texts[0]

    @property
    def b(self) -> str:
        """The second config's value in words."""
        return self.texts[1]

    def to_json(self) -> dict[str, Any]:
        """`{"where", "field", "values"}`, JSON-ready."""
        return {"where": self.where, "field": self.field, "values": list(self.values)}


def preset_rows() -> list[PresetRow]:
    """One row per preset, the paper's first."""
    return [_row(presets.preset(name)) for name in presets.names()]


def difference(*configs: Config) -> list[Difference]:
    """What differs between two configs or more: the network layer by layer (order, then fields), then the recipe."""
    networks = [config.network for config in configs]
    rows = [
        _row_of("network", name, [getattr(network, name) for network in networks])
        for name in ("image", "classes", "columns", "activation")
    ]
    rows += _orders(networks)
    rows += _layers(networks)
    for settings in zip(*map(_recipe, configs), strict=True):
        where, _, name = settings[0].path.partition(".")
        if settings[0].path != "data.source":
            rows.append(_row_of(where, name, [setting.default for setting in settings]))
    return [row for row in rows if row is not None]


def _row_of(where: str, name: str, values: Sequence[Any]) -> Difference | None:
    """The difference of some values; None where they are all the same."""
    if all(value == values[0] for value in values):
        return None
    return Difference(where, name, tuple(values))


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


def _orders(networks: Sequence[Network]) -> list[Difference | None]:
    stages = [_stages(network) for network in networks]
    return [
        _row_of(name, "order", [" → ".join([name, *stage[name]]) if name in stage else None for stage in stages])
        for name in _once(itertools.chain(*stages))
    ]


def _layers(networks: Sequence[Network]) -> list[Difference | None]:
    """The layers in the order of their names in the first network that has them."""
    known = [{layer.name: layer for layer in network.layers} for network in networks]
    rows: list[Difference | None] = []
    for name in _once(itertools.chain(*known)):
        layers = [named.get(name) for named in known]
        kinds = _once(type(layer).__name__ for layer in layers if layer is not None)
        if None in layers or len(kinds) > 1:
            whole = "kind" if len(kinds) > 1 and None not in layers else " or ".join(kinds)
            texts = [layer and (type(layer).__name__ if whole == "kind" else _whole(layer)) for layer in layers]
            rows.append(_row_of(name, whole, texts))
        else:
            for field in dataclasses.fields(layers[0]):  # type: ignore[arg-type]  # none is None
                rows.append(_row_of(name, field.name, [getattr(layer, field.name) for layer in layers]))
    return rows


def _whole(layer: Layer) -> str:
    values = [(f.name, getattr(layer, f.name)) for f in dataclasses.fields(layer) if f.name != "name"]
    return ", ".join(f"{name} {_value(name, value)}" for name, value in values if value is not None) or "yes"


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
