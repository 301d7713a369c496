"""The one loop that measures a split: every readable image once, whatever the batches."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.data.batch import Batch
from alexnet.data.loader import BatchLoader
from alexnet.data.readers.open import open_source
from alexnet.errors import DataError
from alexnet.evaluation.measure import measure_split


def scores(images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of three classes by the mean of red, green and blue."""
    return images.float().mean((1, 2)).div(20).log_softmax(1)


def loss(predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -predicted.gather(1, labels[:, None])[:, 0] * 2


def loader(folder: Path, batch_size: int) -> BatchLoader:
    return BatchLoader(open_source(str(folder)).splits["train"], 16, batch_size, seed=0, shuffle=False)


@pytest.fixture
def folder(pictures: Callable[..., Path], tmp_path: Path) -> Path:
    return pictures(tmp_path / "some", {"": 5}, ("ant", "bee", "cat"))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_measurement_is_that_of_a_plain_loop(batch_size: int, folder: Path) -> None:
    batches = loader(folder, batch_size)
    wrong, losses = 0, []
    for path in folder.rglob("*.png"):
        output = scores(torch.from_numpy(np.array(Image.open(path)))[None])
        label = ("ant", "bee", "cat").index(path.parent.name)
        wrong += int(output.argmax()) != label
        losses.append(-2 * float(output[0, label]))
    measured = measure_split(batches, scores, loss, 3)
    assert (measured.count, measured.unreadable, measured.top5_error) == (15, 0, None)
    assert measured.top1_error == pytest.approx(100 * wrong / 15, abs=1e-4)
    assert measured.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_labels_given_by_position_replace_the_splits_own(folder: Path) -> None:
    (folder / "bee" / "03.png").write_bytes(b"no image")
    batches = loader(folder, 4)
    first = measure_split(batches, scores, loss, 3)
    swapped = np.array([2, 1, 0])[batches.split.labels]
    again = measure_split(batches, lambda images: scores(images).flip(1), loss, 3, swapped)
    assert again == first and first.count == 14 and first.unreadable == 1


def test_a_batch_without_images_counts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = loader(folder, 4)
    expected = measure_split(batches, scores, loss, 3)
    plain = BatchLoader.epoch

    def with_empty_ones(self: BatchLoader, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in plain(self, epoch, start):
            nothing = {"images": batch.images[:0], "labels": batch.labels[:0], "positions": batch.positions[:0]}
            yield dataclasses.replace(batch, **nothing)
            yield batch

    monkeypatch.setattr(BatchLoader, "epoch", with_empty_ones)
    assert measure_split(batches, scores, loss, 3) == expected


def test_a_split_without_a_readable_image_is_told_with_the_first(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of the 15 images of the train split can be read \(first: ant/00\.png"):
        measure_split(loader(folder, 4), scores, loss, 3)
