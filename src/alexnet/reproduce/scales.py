"""The sizes at which claims are checked, from a laptop's minutes to the paper's own, and the networks compared there.

An arm is one of the networks that a claim compares: the scale's preset with an idea taken out or a setting changed. It
is data: `config_of` makes the settings of a run of it, which `alexnet train` could be given as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from alexnet import config as settings
from alexnet import presets
from alexnet.ablations import without
from alexnet.config import Config
from alexnet.errors import UsageError, quoted, suggestion

# What a run may differ in and still be the same network and recipe.
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PLACE = ("device", "threads", "save_every", "track", "log_every", "init")


@dataclass(frozen=True)
class Scale:
    """Images, the paper's network at their size, and how long it is trained."""

    name: str
    about: str
    preset: str
    data: str  # as people call it
    classes: int
    train_images: int  # without those held out
    settings: Mapping[str, str] = field(default_factory=dict)  # of every arm
    names: tuple[str, ...] = ()  # of the classes, where they tell the images from others
    seeds: int = 5  # when none are asked for: 0 … n−1
    source: str = ""  # where the images are when no place is given


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "digits",
            "scikit-learn's 8×8 digits, 144 of them to learn from: seconds a run",
            "digits",
            "scikit-learn's digits",
            10,
            144,
            {
                "data.validation": "0.9",
                "train.adapt": "false",
                "optimizer.lr": "0.002",
                "train.epochs": "100",
                "schedule.kind": "epochs",
                "schedule.milestones": "75,90",
                "train.log_every": "2",
            },
            source="digits",
        ),
        Scale(
            "cifar10",
            "CIFAR-10: minutes a run",
            "tiny-32",
            "CIFAR-10",
            10,
            45_000,
            {"train.epochs": "16", "schedule.kind": "epochs", "schedule.milestones": "12,15", "train.log_every": "10"},
            names=CIFAR,
        ),
        Scale(
            "tiny-imagenet",
            "Tiny ImageNet brought to 32×32: 200 classes, minutes a run",
            "tiny-32",
            "Tiny ImageNet",
            200,
            90_000,
            {
                "train.epochs": "12",
                "schedule.kind": "epochs",
                "schedule.milestones": "9,11",
                "train.log_every": "10",
            },
            seeds=3,
        ),
        Scale(
            "imagenet",
            "ILSVRC-2012 with the paper's own settings: days a run on a GPU",
            "paper",
            "ILSVRC-2012",
            1000,
            1_281_167,
            seeds=1,
        ),
    )
}


@dataclass(frozen=True)
class Arm:
    """One of the networks compared: what differs from the scale's preset.

    `without` and `settings` are what `alexnet train` takes by these names; `at` are settings of one scale alone, and
    `preset` another preset for it. `start` names the arm from whose weights it begins, of the same seed, and `data` the
    scale whose images it sees where these are others. A `baseline` is trained by `alexnet baseline` instead.
    """

    name: str
    about: str
    without: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    preset: Mapping[str, str] = field(default_factory=dict)
    start: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    conv6: bool = False  # with a sixth convolution
    baseline: str = ""
    full: bool = False  # also measured by several views, with probabilities kept for ensembles
    most_seeds: int = 1000  # where fewer are enough


BASE = "paper"  # the arm that all others differ from
# The four-layer nets of figure 1: no regularization, one rate to the end.
PLAIN = {
    "optimizer.weight_decay": "0",
    "augment.crop": "false",
    "augment.mirror": "false",
    "augment.colour": "0",
    "schedule.kind": "epochs",
    "schedule.milestones": "",
}
FOUR = {
    "digits": {"network.drop4": "none"},
    "cifar10": {"network.fc4.decay": "none", "network.fc5.decay": "none"},
}
TANH = {"network.activation": "tanh"}
SMALL_RIVAL = {"validation": "0.9", "size": "16", "detail": "32", "patches": "8,12", "step": "2", "samples": "20000"}
FIRST, REST = "0-149", "150-199"  # classes of Tiny ImageNet: those of the larger set, and the target's


def _four(scale: str, epochs: int, lr: str) -> dict[str, str]:
    return {**FOUR[scale], "train.epochs": str(epochs), "optimizer.lr": lr}


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(BASE, "the paper's network and recipe at this size", full=True),
        Arm(
            "full-schedule",
            "the same, trained by the preset's own schedule until the validation error stops improving",
            at={"cifar10": {"train.epochs": "60", "schedule.kind": "plateau"}},
            full=True,
            most_seeds=3,
        ),
        Arm(
            "wide",
            "the paper's network for 64×64 pictures, three epochs",
            preset={"tiny-imagenet": "tiny-64"},
            at={"tiny-imagenet": {"train.epochs": "3", "schedule.milestones": ""}},
            full=True,
        ),
        Arm("one-column", "one column with half the kernels in every convolution but the last", ("second-column",)),
        Arm("no-lrn", "without local response normalization", ("lrn",)),
        Arm(
            "lrn-across",
            "normalization across both columns",
            settings={"network.norm1.within": "all", "network.norm2.within": "all"},
        ),
        Arm("no-overlap", "pooling over 2×2 windows", ("overlap",)),
        Arm(
            "no-augmentation",
            "without random crops and mirror images",
            settings={"augment.crop": "false", "augment.mirror": "false"},
        ),
        Arm("no-colour", "without colour noise", ("colour",)),
        Arm(
            "literal-colour",
            "colour noise scaled by λ, the text read literally",
            settings={"augment.colour_scale": "value"},
        ),
        Arm("no-dropout", "without dropout", ("dropout",)),
        Arm("no-decay", "without weight decay", ("decay",)),
        Arm("no-conv3", "without conv3", ("conv3",)),
        Arm("no-conv4", "without conv4", ("conv4",)),
        Arm("no-conv5", "without conv5", ("conv5",)),
        Arm("tanh", "tanh in place of ReLU", ("relu",)),
        Arm("no-biases", "all biases start at 0", ("biases",)),
        Arm("no-mean", "without subtracting the mean image", ("mean",)),
        Arm(
            "relu-four-layer",
            "four layers with ReLUs, no regularization, the rate that is fastest for it",
            settings=PLAIN,
            at={"digits": _four("digits", 40, "0.004"), "cifar10": _four("cifar10", 15, "0.001")},
            preset={"cifar10": "cifar-26"},
        ),
        Arm(
            "tanh-four-layer",
            "four layers with tanh, no regularization, the rate that is fastest for it",
            settings={**PLAIN, **TANH},
            at={"digits": _four("digits", 40, "0.128"), "cifar10": _four("cifar10", 40, "0.001")},
            preset={"cifar10": "cifar-26"},
        ),
        Arm("conv6", "with a sixth convolution", conv6=True, full=True),
        Arm(
            "larger-set",
            "with a sixth convolution, trained on more categories",
            conv6=True,
            at={
                "cifar10": {"train.epochs": "12", "schedule.milestones": "9,11"},
                "tiny-imagenet": {"data.classes": FIRST},
            },
            data={"cifar10": "tiny-imagenet"},
        ),
        Arm(
            "fine-tuned",
            "with a sixth convolution, begun from the weights of more categories, at a tenth of the rate",
            conv6=True,
            settings={"optimizer.lr": "0.0003", "schedule.layers": "conv1=x0.1,fc8=x10"},
            at={"tiny-imagenet": {"data.classes": REST}},
            start="larger-set",
            full=True,
        ),
        Arm(
            "target-alone",
            "the paper's network on the target's categories alone",
            at={"tiny-imagenet": {"data.classes": REST}},
            full=True,
        ),
        Arm(
            "sparse-coding",
            "sparse coding of dense SIFT, HOG, LBP and colour, linear SVMs, averaged",
            at={"digits": {**SMALL_RIVAL, "words": "256", "atoms": "128"}},
            baseline="sparse-coding",
            most_seeds=1,
        ),
        Arm(
            "sift-fv",
            "SIFT and local colour statistics as Fisher vectors, linear SVMs, averaged",
            at={"digits": {**SMALL_RIVAL, "gaussians": "16"}},
            baseline="sift-fv",
            most_seeds=1,
        ),
        Arm("hinge", "the multi-class hinge loss", settings={"train.task": "hinge"}),
        Arm(
            "order-2012",
            "ReLU after normalization and pooling in the first layer, as the 2012 source has it",
            ("printed-order",),
        ),
    )
}


def scale_of(name: str) -> Scale:
    """The scale of a name. Raises UsageError for an unknown one."""
    if name not in SCALES:
        hint = suggestion(name, SCALES) or f"; there are {', '.join(SCALES)}"
        raise UsageError(f"there is no scale {quoted(name)}{hint}")
    return SCALES[name]


def config_of(arm: Arm, scale: Scale, seed: int) -> Config:
    """The settings of an arm's run, without the place of its images."""
    config = presets.preset(arm.preset.get(scale.name, scale.preset))
    config = without(settings.replace(config, scale.settings), arm.without)
    if arm.conv6:
        config = presets.with_conv6(config)
    return settings.replace(config, {**arm.settings, **arm.at.get(scale.name, {}), "train.seed": str(seed)})


def fingerprint(config: Config) -> str:
    """Twelve hexadecimal digits of all settings that decide what is learned; seeds have the same."""
    document = Config.from_dict(config.to_dict()).to_dict()  # as it is read from a run: 1 for a number is 1.0
    for name in (*PLACE, "seed"):
        del document["train"][name]
    for name in ("source", "workers", "memory"):
        del document["data"][name]
    for name in ("name", "about"):
        del document["network"][name]
    del document["preset"]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
