"""The network without X, as data: each ablation takes one idea of the paper out of a config.

`without(presets.preset("paper"), ["lrn"])` is the paper's network and recipe without local response normalization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from alexnet.architecture import (
    LRN,
    Activation,
    Conv,
    Dropout,
    Full,
    Layer,
    Local,
    MapNorm,
    Network,
    Pool,
    infer_shapes,
    pooled_side,
)
from alexnet.config import Config, check
from alexnet.errors import UsageError, quoted, suggestion


@dataclass(frozen=True)
class Ablation:
    """What is taken out, in words, and how. `remove` returns None where a config does not have it."""

    about: str
    remove: Callable[[Config], Config | None]


def without(config: Config, names: Iterable[str]) -> Config:
    """The config without what is named (keys of `ABLATIONS`), the rest unchanged.

    Raises UsageError for an unknown name (with the nearest) or one given twice, for what the config does not have, and
    where the network that is left cannot be built.
    """
    names = list(names)
    for place, name in enumerate(names):
        if name not in ABLATIONS:
            hint = suggestion(str(name), ABLATIONS)
            raise UsageError(f"without {quoted(name)} is unknown{hint}; known: {', '.join(ABLATIONS)}")
        if name in names[:place]:
            raise UsageError(f"without names {name} twice; leave one of them out")
        changed = ABLATIONS[name].remove(config)
        if changed is None:
            raise UsageError(f"without {name} does not apply to {config.preset}: it has no {ABLATIONS[name].about}")
        config = changed
    check(config)
    return config


def _kind(kind: type[Layer]) -> Callable[[Config], Config | None]:
    """Remove every layer of a kind."""
    return lambda config: _network(config, [layer for layer in config.network.layers if not isinstance(layer, kind)])


def _set(section: str, name: str, value: Any) -> Callable[[Config], Config | None]:
    """Give one setting the value that takes its idea out."""

    def remove(config: Config) -> Config | None:
        part = getattr(config, section)
        changed = dataclasses.replace(part, **{name: value})
        return None if changed == part else dataclasses.replace(config, **{section: changed})

    return remove


def _convolution(name: str) -> Callable[[Config], Config | None]:
    """Remove a convolution with its nonlinearity; a pooling after it stays, so that later sizes do (paper §7)."""

    def remove(config: Config) -> Config | None:
        kept: list[Layer] = []
        inside = False
        for layer in config.network.layers:
            if isinstance(layer, Conv | Local | Full):
                inside = layer.name == name and isinstance(layer, Conv)
            if not inside or isinstance(layer, Pool):
                kept.append(layer)
        return _network(config, kept)

    return remove


def _overlap(config: Config) -> Config | None:
    """Pool over windows of the stride's size, with outputs of the same size as before (paper §3.4)."""
    shapes = infer_shapes(config.network)
    return _network(config, [_apart(entry.layer, entry.inputs[-1], entry.shape[-1]) for entry in shapes])


def _apart(layer: Layer, side: int, wanted: int) -> Layer:
    """A pooling without overlap, sized up or down so that its output has the side it had; another layer as it is."""
    if not isinstance(layer, Pool) or layer.size <= layer.stride:
        return layer
    sizes = {ceil: pooled_side(side, layer.stride, layer.stride, ceil) for ceil in (layer.ceil, not layer.ceil)}
    ceil = next((ceil for ceil, size in sizes.items() if size == wanted), layer.ceil)
    return dataclasses.replace(layer, size=layer.stride, ceil=ceil)


def _second_column(config: Config) -> Config | None:
    """Leave one column, with half the kernels in each convolution but the last: the paper's one-GPU net (§3.2)."""
    network = config.network
    if network.columns == 1:
        return None
    last = [layer.name for layer in network.layers if isinstance(layer, Conv)][-1:]
    layers = tuple(
        dataclasses.replace(layer, kernels=layer.kernels // network.columns)
        if isinstance(layer, Conv) and layer.name not in last
        else layer
        for layer in network.layers
    )
    return dataclasses.replace(config, network=dataclasses.replace(network, columns=1, layers=layers))


def _printed_order(config: Config) -> Config | None:
    """Put the first nonlinearity after the first pooling, where the 2012 source has it; the text has it before."""
    layers = list(config.network.layers)
    kinds = [type(layer) for layer in layers]
    if LRN not in kinds or Pool not in kinds or Activation not in kinds:
        return None
    rectifier, pool = kinds.index(Activation), kinds.index(Pool)
    if not rectifier < kinds.index(LRN) < pool:
        return None
    return _network(
        config, [*layers[:rectifier], *layers[rectifier + 1 : pool + 1], layers[rectifier], *layers[pool + 1 :]]
    )


def _relu(config: Config) -> Config | None:
    """Use tanh in place of ReLU (paper §3.1)."""
    rectifies = any(isinstance(layer, Activation) for layer in config.network.layers)
    return _set("network", "activation", "tanh")(config) if rectifies else None


def _crops(config: Config) -> Config | None:
    return None if config.data.size == config.network.image else _set("augment", "crop", False)(config)


def _decay(config: Config) -> Config | None:
    layers = [
        dataclasses.replace(layer, decay=None) if isinstance(layer, Conv | Local | Full) else layer
        for layer in config.network.layers
    ]
    changed = _network(config, layers)
    if changed is None and not config.optimizer.weight_decay:
        return None
    return dataclasses.replace(changed or config, optimizer=dataclasses.replace(config.optimizer, weight_decay=0.0))


def _mean(config: Config) -> Config | None:
    return _set("data", "center", "none")(config) if config.data.center == "mean-image" else None


def _biases(config: Config) -> Config | None:
    layers = [
        dataclasses.replace(layer, bias=0.0) if isinstance(layer, Conv | Local | Full) else layer
        for layer in config.network.layers
    ]
    return _network(config, layers)


def _network(config: Config, layers: Iterable[Layer]) -> Config | None:
    """The config with other layers; None where they are the same."""
    network: Network = dataclasses.replace(config.network, layers=tuple(layers))
    return None if network == config.network else dataclasses.replace(config, network=network)


ABLATIONS: dict[str, Ablation] = {
    "lrn": Ablation("local response normalization", _kind(LRN)),
    "map-norm": Ablation("normalization within maps", _kind(MapNorm)),
    "overlap": Ablation("overlapping pooling", _overlap),
    "columns": Ablation("second column", _set("network", "columns", 1)),
    "second-column": Ablation("second column", _second_column),
    "printed-order": Ablation("ReLU before the first normalization", _printed_order),
    "conv3": Ablation("convolution conv3", _convolution("conv3")),
    "conv4": Ablation("convolution conv4", _convolution("conv4")),
    "conv5": Ablation("convolution conv5", _convolution("conv5")),
    "relu": Ablation("ReLU that tanh could replace", _relu),
    "dropout": Ablation("dropout layer", _kind(Dropout)),
    "mirror": Ablation("mirror images in training", _set("augment", "mirror", False)),
    "crops": Ablation("random crops in training", _crops),
    "colour": Ablation("colour noise", _set("augment", "colour", 0.0)),
    "decay": Ablation("weight decay", _decay),
    "mean": Ablation("mean image that is subtracted", _mean),
    "biases": Ablation("initial biases other than 0", _biases),
}
