"""Small folders of pictures and runs trained on one of them; and at the end, the kernels that the tests ran on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import presets
from alexnet.config import Config, replace

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
SIDE = 16  # pixels: what the preset digits brings its images to, so nothing is scaled


def paint(folder: Path, count: int, place: int, seed: int, side: int = SIDE) -> None:
    """Write `count` noisy PNGs into a class folder; each class has a colour of its own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng((seed, place))
    colour = np.random.default_rng(place).integers(40, 216, 3)
    for i in range(count):
        pixels = np.clip(rng.normal(colour, 60, (side, side, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Path]:
    """Make a folder: `pictures(root, {"train": 8, "test": 4})`; the split "" has the class folders at the top."""

    def make(root: Path, splits: Mapping[str, int], classes: tuple[str, ...] = CLASSES, side: int = SIDE) -> Path:
        for number, (split, count) in enumerate(splits.items()):
            for place, name in enumerate(classes):
                paint(root / split / name, count, place, number, side)
        return root

    return make


@pytest.fixture(scope="session")
def seven(pictures: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven classes with train, val and test."""
    return pictures(tmp_path_factory.mktemp("seven") / "seven", {"train": 8, "val": 3, "test": 4})


def brief(source: Path | str, **changes: str) -> Config:
    """A run of moments with the preset digits; `train__epochs="2"` sets train.epochs."""
    base = {
        "data.source": str(source),
        "train.epochs": "2",
        "train.batch_size": "16",
        "train.log_every": "3",
        "train.threads": "1",
        "data.workers": "1",
        "optimizer.lr": "0.003",
    }
    return replace(presets.preset("digits"), base | {name.replace("__", "."): v for name, v in changes.items()})


@pytest.fixture(scope="session")
def short() -> Callable[..., Config]:
    """`short(source, train__epochs="3")`: the config of a run of moments."""
    return brief


@pytest.fixture(scope="session")
def trained(seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `seven`; look, do not touch."""
    from alexnet.training.loop import train

    out = tmp_path_factory.mktemp("runs") / "first"
    train(brief(seven), out)
    return out


@pytest.fixture(scope="session")
def second(seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another finished run on `seven`, from another seed."""
    from alexnet.training.loop import train

    out = tmp_path_factory.mktemp("runs") / "second"
    train(brief(seven, train__seed="1"), out)
    return out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which kernels the tests ran on."""
    terminalreporter.section("kernels")
    for line in kernel_lines():
        terminalreporter.write_line(line)


def kernel_lines() -> list[str]:
    """The processor's instructions, the compiled engine or why there is none, and what it computes."""
    from alexnet.commands.doctor import engine
    from alexnet.environment import cpu_name, instruction_sets

    flags, name = instruction_sets()
    found = engine()
    return [
        f"processor: {cpu_name()}, {name} ({' '.join(flags) or 'no vector instructions named'})",
        f"compiled engine: {f'in use, {found.target}' if found.in_use else f'none: {found.why_not}'}",
        f"compiled convolution: {', '.join(found.convolution_dtypes) or 'none, torch computes it'}",
        f"ALEXNET_ENGINE: {os.environ.get('ALEXNET_ENGINE', 'not set')}",
    ]
