"""cuda-convnet's published CIFAR-10 networks as data: 26, 18, 13 and 11 % test error, by their names."""

from __future__ import annotations

import dataclasses

from alexnet.architecture import LRN, Activation, Conv, Full, Layer, Local, MapNorm, Network, Pool
from alexnet.config import Augment, Config, Data, Optimizer, Schedule, Train


def _cifar(name: str, layers: tuple[Layer, ...], about: str, image: int = 32, **parts: object) -> Config:
    """What cuda-convnet's CIFAR-10 nets share: learning rate 0.001, the biases' twice that, and no decay of them."""
    network = Network(name, image=image, classes=10, columns=1, layers=layers, about=about)
    base = Config(
        preset=name,
        network=network,
        data=Data(size=32),
        augment=Augment(crop=image < 32, mirror=image < 32),
        optimizer=Optimizer(lr=0.001, bias_lr=2.0, bias_decay=0.0, weight_decay=0.004),
    )
    return dataclasses.replace(base, **parts)  # type: ignore[arg-type]


def cifar_26() -> Config:
    """cuda-convnet's 26 % net; with `activation` relu or tanh the four-layer nets of the paper's figure 1."""
    layers = (
        Conv("conv1", 32, 5, pad=2, std=0.0001),
        Pool("pool1"),
        Activation("relu1"),
        Conv("conv2", 32, 5, pad=2),
        Activation("relu2"),
        Pool("pool2", kind="avg"),
        Conv("conv3", 64, 5, pad=2),
        Activation("relu3"),
        Pool("pool3", kind="avg"),
        Full("fc4", 64, std=0.1, decay=0.03),
        Activation("relu4"),
        Full("fc5", std=0.1, decay=0.03),
    )
    return _cifar(
        "cifar-26",
        layers,
        "cuda-convnet, 26 % in 80 s on a GTX 580",
        schedule=Schedule(kind="epochs", milestones=(18, 20)),
        train=Train(epochs=22),
    )


def cifar_18() -> Config:
    """cuda-convnet's 18 % net: normalization within maps after the first two poolings."""

    def norm(name: str) -> MapNorm:
        return MapNorm(name, size=3, alpha=5e-5)

    layers = (
        Conv("conv1", 32, 5, pad=2, std=0.0001),
        Pool("pool1"),
        Activation("relu1"),
        norm("mapnorm1"),
        Conv("conv2", 32, 5, pad=2),
        Activation("relu2"),
        Pool("pool2", kind="avg"),
        norm("mapnorm2"),
        Conv("conv3", 64, 5, pad=2),
        Activation("relu3"),
        Pool("pool3", kind="avg"),
        Full("fc4", std=0.01, decay=1.0),
    )
    return _cifar(
        "cifar-18",
        layers,
        "cuda-convnet, 18 % in 20 min on a GTX 580",
        schedule=Schedule(kind="epochs", milestones=(120, 130)),
        train=Train(epochs=140),
    )


def cifar_13(norm: bool = False) -> Config:
    """cuda-convnet's 13 % net: locally-connected layers, crops and mirror images."""

    def normalized(layer: str) -> tuple[Layer, ...]:
        return (LRN(layer, alpha=0.001, k=1.0, divide=True),) if norm else ()

    layers = (
        Conv("conv1", 64, 5, pad=2, std=0.0001, decay=0),
        Activation("relu1"),
        *normalized("norm1"),
        Pool("pool1"),
        Conv("conv2", 64, 5, pad=2, decay=0),
        Activation("relu2"),
        *normalized("norm2"),
        Pool("pool2"),
        Local("local3", 32, 3, pad=1, std=0.04),
        Activation("relu3"),
        Local("local4", 32, 3, pad=1, std=0.04),
        Activation("relu4"),
        Full("fc5", std=0.01),
    )
    name = "cifar-11" if norm else "cifar-13"
    about = "cuda-convnet, 11 % with LRN" if norm else "cuda-convnet, 13 % in 25 min on a GTX 580"
    return _cifar(
        name,
        layers,
        about,
        image=24,
        data=Data(size=32, validation=0.2),
        schedule=Schedule(kind="epochs", milestones=(450, 460)),
        train=Train(epochs=470),
    )


def cifar_11() -> Config:
    """The 13 % net with LRN after the ReLUs of its convolutions (paper §3.3)."""
    return cifar_13(norm=True)
