"""Some classes of a source alone: numbered anew, the images theirs, and the same when a run is measured again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import evaluate, train
from alexnet.data.readers.open import open_source
from alexnet.errors import DataError
from alexnet.run import Run

NAMES = ("ant", "bee", "cow", "dog-2")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four classes, each of a grey value of its own."""
    for number, name in enumerate(NAMES):
        for split, count in (("train", 6), ("test", 3)):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (16, 16), (60 * number + i,) * 3).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("bee", "dog-2"), ("bee", "dog-2")),
        (("dog-2", "bee"), ("bee", "dog-2")),  # in the source's order
        (("1-2",), ("bee", "cow")),
        (("0", "2-3", "ant"), ("ant", "cow", "dog-2")),
        ((), NAMES),
    ],
)
def test_the_images_of_the_named_classes_are_left(
    names: tuple[str, ...], kept: tuple[str, ...], pictures: Path
) -> None:
    source = open_source(str(pictures)).only(names)
    assert source.classes == kept and set(source.splits) == {"train", "test"}
    for split in source.splits.values():
        assert np.array_equal(np.bincount(split.labels), [len(split) // len(kept)] * len(kept))
        for i in range(len(split)):
            assert split.image_name(i).split("/")[-2] == kept[split.labels[i]]
            assert split.decode(i)[0, 0, 0] // 60 == NAMES.index(kept[split.labels[i]])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("be",), "data.classes 'be' is no class of .*; did you mean bee?"),
        (("2-4",), "data.classes 2-4 should be within 0-3"),
        (("3-2",), "data.classes 3-2 should be within 0-3"),
        (("99999999999",), "data.classes 99999999999 should be within 0-3"),
        (("9" * 5000,), "is no class of"),
        (("ant",), "1 class .* at least two are needed"),
    ],
)
def test_classes_that_are_not_there_are_told(names: tuple[str, ...], told: str, pictures: Path) -> None:
    with pytest.raises(DataError, match=told) as error:
        open_source(str(pictures)).only(names)
    assert len(str(error.value)) < 1000


def test_a_run_on_some_classes_is_measured_on_them(pictures: Path, tmp_path: Path) -> None:
    changes = {"data.classes": "1-2", "data.size": 16, "train.epochs": 1, "train.threads": 1, "train.adapt": False}
    train("digits", tmp_path / "run", data=pictures, **changes)
    run = Run.open(tmp_path / "run")
    assert run.classes == ["bee", "cow"] and run.config.network.classes == 2
    result = evaluate(tmp_path / "run")
    assert result.count == 6 and not result.data_changed
