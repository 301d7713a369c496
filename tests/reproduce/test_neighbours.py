"""Neighbourhoods are those of plain loops, and a trained run's are measured on its own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import alexnet
from alexnet.errors import DataError, UsageError
from alexnet.inference.load import load
from alexnet.reproduce import neighbours
from alexnet.reproduce.neighbours import distances, measure_neighbours, neighbourhoods
from alexnet.run import Run

RNG = np.random.default_rng(0)


def images(n: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that lean to a class, pixels that do not, and labels."""
    labels = RNG.integers(0, classes, n)
    vectors = (RNG.normal(size=(n, 7)) + 2 * np.eye(classes, 7)[labels]).astype(np.float32)
    return vectors, RNG.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8), labels


def plain(queries: tuple, gallery: tuple, k: int) -> tuple[float, ...]:
    """The same by loops over queries and images."""
    same, apart, chance, everything = {"features": [], "pixels": []}, {"features": [], "pixels": []}, [], []
    for vector, pixels, label in zip(*queries, strict=True):
        far = {
            "features": [np.linalg.norm(vector.astype(float) - other) for other in gallery[0]],
            "pixels": [np.linalg.norm(pixels.astype(float) - other) for other in gallery[1]],
        }
        chance += [label == other for other in gallery[2]]
        everything += far["pixels"]
        for kind, values in far.items():
            for i in sorted(range(len(values)), key=lambda i: values[i])[:k]:
                same[kind].append(label == gallery[2][i])
                apart[kind].append(far["pixels"][i])
    random = np.mean(everything)
    return tuple(
        100 * float(value)
        for value in (
            np.mean(same["features"]),
            np.mean(same["pixels"]),
            np.mean(chance),
            np.mean(apart["features"]) / random,
            np.mean(apart["pixels"]) / random,
        )
    )


@pytest.mark.parametrize("part", [1, 7, 1000])
@pytest.mark.parametrize("k", [1, 6])
def test_they_are_those_of_plain_loops_whatever_the_parts(k: int, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = images(9), images(40)
    parts = [tuple(array[first : first + part] for array in gallery) for first in range(0, 40, part)]
    monkeypatch.setattr(neighbours, "_PART", 50)  # one row of pixels at a time
    found = neighbourhoods(queries, parts, k)
    values = (
        found.same_class_by_features,
        found.same_class_by_pixels,
        found.same_class_by_chance,
        found.pixel_distance_by_features,
        found.pixel_distance_by_pixels,
    )
    assert values == pytest.approx(plain(queries, gallery, k), rel=1e-6)
    assert (found.queries, found.gallery, found.neighbours) == (9, 40, k)
    assert found.pixel_distance_by_pixels <= found.pixel_distance_by_features


def test_images_of_a_class_may_be_near_in_features_and_far_in_pixels() -> None:
    labels = np.arange(40) % 4
    pixels = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    part = (np.eye(4)[labels], pixels, labels)
    found = neighbourhoods(part, [(np.eye(4)[labels], RNG.permutation(pixels), labels)])
    assert found.same_class_by_features == 100 and found.same_class_by_chance == 25
    assert found.pixel_distance_by_features == pytest.approx(100, abs=5)
    assert found.pixel_distance_by_pixels < 90  # the image itself is among them


def test_distances_of_pixels_are_exact() -> None:
    first, second = images(5)[1], images(6)[1]
    second[3] = first[2]
    found = distances(first, second)
    exact = ((first[:, None].astype(np.int64) - second[None]) ** 2).sum((2, 3, 4))
    np.testing.assert_array_equal(found, np.sqrt(exact))
    assert found[2, 3] == 0


def test_too_few_images_are_named() -> None:
    with pytest.raises(DataError, match="2 queries and a gallery of 5 images are too few for 6 neighbours"):
        neighbourhoods(images(2), [images(5), images(0)])
    with pytest.raises(DataError, match="0 queries"):
        neighbourhoods(images(0), [images(10)])
    with pytest.raises(UsageError, match="at least 1"):
        neighbourhoods(images(2), [images(5)], 0)


def test_a_runs_neighbourhoods_are_of_its_test_and_training_images(tmp_path: Path) -> None:
    alexnet.train("digits", tmp_path / "run", epochs=3)
    found = measure_neighbours(load(tmp_path / "run"), Run.open(tmp_path / "run"), queries=60, gallery=300)
    assert (found.queries, found.gallery, found.neighbours, found.layer) == (60, 300, 6, "relu4")
    assert found.same_class_by_features > 70 and found.same_class_by_chance == pytest.approx(10, abs=2)
    assert found.pixel_distance_by_pixels < found.pixel_distance_by_features < 100
    again = measure_neighbours(load(tmp_path / "run"), Run.open(tmp_path / "run"), queries=60, gallery=300)
    assert again == found
