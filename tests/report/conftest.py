"""A tiny network trained for a moment on small pictures whose class names are hostile."""

import numpy as np
import pytest
from PIL import Image

from alexnet import presets
from alexnet.config import replace
from alexnet.run import Run
from alexnet.training.loop import train

HOSTILE = ('<script>alert("1")<', '"><img src=x onerror=alert(2)>', "a&b'c $x_1^2$ \u202egnp", "plain")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Class folders with a test split; each class has a colour of its own."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    colours = ((220, 40, 40), (40, 200, 40), (40, 60, 220), (200, 200, 40))
    for split, count in (("train", 12), ("test", 4)):
        for name, colour in zip(HOSTILE, colours, strict=True):
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(colour, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory):
    """A run of three epochs whose learning rate drops after the first two."""
    changes = {
        "data.source": str(folder),
        "train.epochs": "3",
        "train.batch_size": "16",
        "train.log_every": "1",
        "train.threads": "1",
        "schedule.kind": "epochs",
        "schedule.milestones": "1,2",
    }
    out = tmp_path_factory.mktemp("runs") / "first"
    train(replace(presets.preset("digits"), changes), out)
    return Run.open(out)


@pytest.fixture(scope="session")
def unvalidated(folder, tmp_path_factory):
    """A run stopped before its first epoch is over, in a folder with a hostile name."""
    changes = {
        "data.source": str(folder),
        "train.steps": "1",
        "train.batch_size": "16",
        "train.log_every": "1",
        "train.threads": "1",
    }
    out = tmp_path_factory.mktemp("runs") / "<b>short"
    train(replace(presets.preset("cifar-26"), changes), out)
    return Run.open(out)
