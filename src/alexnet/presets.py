"""The presets: networks and recipes as data, each with its source.

`paper` is what the text of 2012 says, `code-145` what the released source of that year did, `caffe` and
`one-weird-trick` the two best-known later versions; the CIFAR nets are cuda-convnet's published configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from alexnet import cifar
from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, Layer, MapNorm, Network, Pool
from alexnet.config import Augment, Config, Data, Optimizer, Schedule, Train, check
from alexnet.errors import UsageError, suggestion
from alexnet.setting import Field


def _paper_layers() -> tuple[Layer, ...]:
    return (
        Conv("conv1", 96, 11, stride=4),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 256, 5, pad=2, sees="own", bias=1),
        Activation("relu2"),
        LRN("norm2"),
        Pool("pool2"),
        Conv("conv3", 384, 3, pad=1),
        Activation("relu3"),
        Conv("conv4", 384, 3, pad=1, sees="own", bias=1),
        Activation("relu4"),
        Conv("conv5", 256, 3, pad=1, sees="own", bias=1),
        Activation("relu5"),
        Pool("pool5"),
        *_head(4096),
    )


def _head(units: int, std: float = 0.01, bias: float = 1.0, last_std: float = 0.01) -> tuple[Layer, ...]:
    """fc6, fc7 with dropout on their outputs, and fc8."""
    return (
        Full("fc6", units, std, bias),
        Activation("relu6"),
        Dropout("drop6"),
        Full("fc7", units, std, bias),
        Activation("relu7"),
        Dropout("drop7"),
        Full("fc8", std=last_std),
    )


def _paper() -> Config:
    """The network and recipe of the paper's text (§3 to §5)."""
    return Config(
        preset="paper",
        network=Network("paper", layers=_paper_layers(), about="the paper's text, §3 to §5"),
        augment=Augment(colour=0.1),
    )


def _code_145() -> Config:
    """The 2012 source's configuration whose logged errors are the paper's."""

    def norm(name: str) -> LRN:
        return LRN(name, divide=True)

    layers = (
        Conv("conv1", 96, 11, stride=4),
        norm("norm1"),
        Pool("pool1"),
        Activation("relu1"),
        Conv("conv2", 256, 5, pad=2, sees="own", bias=1),
        Activation("relu2"),
        norm("norm2"),
        MapNorm("mapnorm2"),
        Pool("pool2"),
        Conv("conv3", 384, 3, pad=1, std=0.03),
        Activation("relu3"),
        Conv("conv4", 384, 3, pad=1, sees="own", std=0.03, bias=1),
        Activation("relu4"),
        Conv("conv5", 256, 3, pad=1, sees="own", std=0.03, bias=1),
        Pool("pool5"),
        Activation("relu5"),
        *_head(4096),
    )
    return Config(
        preset="code-145",
        network=Network("code-145", layers=layers, about="the 2012 source, ILSVRC-2010 run"),
        augment=Augment(colour=0.1, colour_divisor=1.1, colour_until=68, shared=32),
        optimizer=Optimizer(bias_lr=2.0, bias_decay=0.0, bias_lr_drops=False),
        schedule=Schedule(kind="epochs", milestones=(23, 51, 78), layers=("conv1@68=1e-5", "conv1@72=0")),
        train=Train(epochs=93),
    )


def _caffe() -> Config:
    """The version most labs know: LRN over all maps with α/n and k=1, small biases, 227-pixel input."""

    def conv(name: str, kernels: int, size: int, **rest: object) -> Conv:
        return Conv(name, kernels, size, ceil=False, **rest)  # type: ignore[arg-type]

    def norm(name: str) -> LRN:
        return LRN(name, k=1.0, divide=True, within="all")

    layers = (
        conv("conv1", 96, 11, stride=4),
        Activation("relu1"),
        norm("norm1"),
        Pool("pool1"),
        conv("conv2", 256, 5, pad=2, sees="own", bias=0.1),
        Activation("relu2"),
        norm("norm2"),
        Pool("pool2"),
        conv("conv3", 384, 3, pad=1),
        Activation("relu3"),
        conv("conv4", 384, 3, pad=1, sees="own", bias=0.1),
        Activation("relu4"),
        conv("conv5", 256, 3, pad=1, sees="own", bias=0.1),
        Activation("relu5"),
        Pool("pool5"),
        *_head(4096, std=0.005, bias=0.1),
    )
    return Config(
        preset="caffe",
        network=Network("caffe", image=227, layers=layers, about="Caffe's bvlc_alexnet"),
        optimizer=Optimizer(bias_lr=2.0, bias_decay=0.0),
        schedule=Schedule(kind="epochs", milestones=(20, 40, 60, 80)),
        train=Train(batch_size=256),
    )


def _one_weird_trick() -> Config:
    """torchvision's `alexnet`: the one-column net of a later paper, without LRN."""

    def conv(name: str, kernels: int, size: int, pad: int, stride: int = 1) -> Conv:
        return Conv(name, kernels, size, stride=stride, pad=pad, std=None, ceil=False)

    def pool(name: str) -> Pool:
        return Pool(name, ceil=False)

    layers = (
        conv("conv1", 64, 11, 2, stride=4),
        Activation("relu1"),
        pool("pool1"),
        conv("conv2", 192, 5, 2),
        Activation("relu2"),
        pool("pool2"),
        conv("conv3", 384, 3, 1),
        Activation("relu3"),
        conv("conv4", 256, 3, 1),
        Activation("relu4"),
        conv("conv5", 256, 3, 1),
        Activation("relu5"),
        pool("pool5"),
        Dropout("drop5"),
        Full("fc6", 4096, std=None),
        Activation("relu6"),
        Dropout("drop6"),
        Full("fc7", 4096, std=None),
        Activation("relu7"),
        Full("fc8", std=None),
    )
    return Config(
        preset="one-weird-trick",
        network=Network("one-weird-trick", columns=1, layers=layers, about="torchvision's alexnet"),
        data=Data(center="imagenet"),
        optimizer=Optimizer(weight_decay=1e-4),
        schedule=Schedule(kind="epochs", milestones=(30, 60)),
    )


def _one_gpu() -> Config:
    """The net the paper trained on one GPU: half the kernels in each convolution but the last (§3.2)."""
    halves = {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192}
    layers = tuple(
        dataclasses.replace(layer, kernels=halves[layer.name])
        if isinstance(layer, Conv) and layer.name in halves
        else layer
        for layer in _paper_layers()
    )
    network = Network("one-gpu", columns=1, layers=layers, about="the paper's one-GPU net, §3.2")
    return dataclasses.replace(_paper(), preset="one-gpu", network=network)


def _conv6() -> Config:
    """The net with a sixth convolution over the last pooling layer, for 10,184 and 22,000 categories (§6, §7)."""
    config = with_conv6(_paper())
    network = dataclasses.replace(config.network, name="conv6", about="the paper's conv6 net, §6")
    return dataclasses.replace(config, preset="conv6", network=network)


def with_conv6(config: Config) -> Config:
    """The config with a sixth convolution before fc6: as many kernels as conv5, which see all columns (§6, §7).

    Raises UsageError for a network without conv5 or fc6.
    """
    layers = {layer.name: layer for layer in config.network.layers}
    conv5 = layers.get("conv5")
    if not isinstance(conv5, Conv) or "fc6" not in layers:
        raise UsageError(f"{config.network.name} has no conv5 and fc6 between which conv6 could be")
    conv6 = dataclasses.replace(conv5, name="conv6", sees="all", bias=0.0)
    network = config.network.replace_layer("fc6", conv6, Activation("relu_conv6"), layers["fc6"])
    return dataclasses.replace(config, network=network)


def _tiny_64() -> Config:
    """The paper's network scaled to 64×64 pictures, 56×56 crops.

    conv1 keeps the paper's σ; the other layers keep σ·√fan-in of the 2012 source.
    """
    layers = (
        Conv("conv1", 64, 5, stride=2),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 192, 5, pad=2, sees="own", std=0.0122, bias=1),
        Activation("relu2"),
        LRN("norm2"),
        Pool("pool2"),
        Conv("conv3", 256, 3, pad=1, std=0.0346),
        Activation("relu3"),
        Conv("conv4", 256, 3, pad=1, sees="own", std=0.0367, bias=1),
        Activation("relu4"),
        Conv("conv5", 192, 3, pad=1, sees="own", std=0.0367, bias=1),
        Activation("relu5"),
        Pool("pool5"),
        Full("fc6", 1024, 0.0231, 1),
        Activation("relu6"),
        Dropout("drop6"),
        Full("fc7", 1024, 0.02, 1),
        Activation("relu7"),
        Dropout("drop7"),
        Full("fc8", std=0.02),
    )
    return Config(
        preset="tiny-64",
        network=Network("tiny-64", image=56, classes=200, layers=layers, about="the paper's network for 64×64"),
        data=Data(size=64),
        augment=Augment(colour=0.1),
        schedule=Schedule(patience=3, threshold=0.3),
        train=Train(epochs=70, precision="auto"),
    )


def _tiny_32() -> Config:
    """The paper's network scaled to 32×32 pictures, 24×24 crops.

    conv1 keeps the paper's σ; the other layers keep σ·√fan-in of the 2012 source. On validation images of CIFAR-10, one
    seed each, a learning rate of 0.003 was ahead of 0.01 after eleven epochs and of 0.001 after one.
    """
    layers = (
        Conv("conv1", 32, 5, pad=2),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 48, 5, pad=2, sees="own", std=0.02, bias=1),
        Activation("relu2"),
        LRN("norm2"),
        Pool("pool2"),
        Conv("conv3", 64, 3, pad=1, std=0.07),
        Activation("relu3"),
        Conv("conv4", 64, 3, pad=1, sees="own", std=0.07, bias=1),
        Activation("relu4"),
        Conv("conv5", 48, 3, pad=1, sees="own", std=0.07, bias=1),
        Activation("relu5"),
        Pool("pool5"),
        *_head(512, std=0.04, last_std=0.04),
    )
    return Config(
        preset="tiny-32",
        network=Network("tiny-32", image=24, classes=10, layers=layers, about="the paper's network for 32×32"),
        data=Data(size=32),
        augment=Augment(colour=0.1),
        optimizer=Optimizer(lr=0.003),
        schedule=Schedule(patience=3, threshold=0.3),
        train=Train(epochs=60, precision="auto"),
    )


def _digits() -> Config:
    """A two-column network in miniature for scikit-learn's 8×8 digits, brought to 16×16."""
    layers = (
        Conv("conv1", 32, 5, pad=2, std=0.03),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 64, 3, pad=1, sees="own", std=0.06, bias=0.1),
        Activation("relu2"),
        LRN("norm2"),
        Pool("pool2"),
        Conv("conv3", 64, 3, pad=1, std=0.06),
        Activation("relu3"),
        Full("fc4", 256, 0.03, 0.1),
        Activation("relu4"),
        Dropout("drop4"),
        Full("fc5", std=0.06),
    )
    return Config(
        preset="digits",
        network=Network("digits", image=14, classes=10, layers=layers, about="two columns in miniature"),
        data=Data("digits", size=16),
        augment=Augment(mirror=False),
        optimizer=Optimizer(lr=0.005),  # the paper's 0.01 is for 128 images per step, not 32
        schedule=Schedule(patience=10, patience_steps=400, threshold=0.1),
        train=Train(epochs=100, batch_size=32, log_every=20),
    )


def _fine_tune() -> Config:
    """The recipe for going on from another run (§7); `training.init` puts that run's network in the place of this."""
    return Config(preset="fine-tune", network=_digits().network, schedule=Schedule(patience=3, drops=2))


_PRESETS: dict[str, Callable[[], Config]] = {
    "paper": _paper,
    "code-145": _code_145,
    "caffe": _caffe,
    "one-weird-trick": _one_weird_trick,
    "one-gpu": _one_gpu,
    "conv6": _conv6,
    "cifar-26": cifar.cifar_26,
    "cifar-18": cifar.cifar_18,
    "cifar-13": cifar.cifar_13,
    "cifar-11": cifar.cifar_11,
    "tiny-64": _tiny_64,
    "tiny-32": _tiny_32,
    "digits": _digits,
}


def names() -> list[str]:
    """The presets' names, the paper's first."""
    return list(_PRESETS)


def preset(name: str, classes: int | None = None, activation: str | None = None) -> Config:
    """The config of a preset, or of `torchvision:NAME` with the paper's recipe.

    `classes` and `activation` ("relu" or "tanh") replace the preset's own. Raises UsageError for an unknown name,
    naming the nearest, and for a class count below 2.
    """
    if name.startswith("torchvision:"):
        config = _torchvision(name)
    elif name in _PRESETS:
        config = _PRESETS[name]()
    elif name == "fine-tune":  # a recipe without a network of its own
        config = _fine_tune()
    else:
        hint = suggestion(name, _PRESETS) or f"; choose one of {', '.join(_PRESETS)} or torchvision:NAME"
        raise UsageError(f"no preset is named {name!r}{hint}")
    network = config.network
    if classes is not None:
        Field("num_classes", int, None, "", {"minimum": 2}).check(classes)
        network = dataclasses.replace(network, classes=classes)
    if activation is not None:
        Field("activation", Literal["relu", "tanh"], None, "").check(activation)
        network = dataclasses.replace(network, activation=activation)  # type: ignore[arg-type]
    config = dataclasses.replace(config, network=network)
    check(config)
    return config


def _torchvision(name: str) -> Config:
    image = {"torchvision:inception_v3": 299}.get(name, 224)
    network = Network(name, image=image, columns=1, about="built by torchvision, initial weights its own")
    size = 256 if image == 224 else 320
    return Config(preset=name, network=network, data=Data(size=size, center="imagenet"), augment=Augment())
