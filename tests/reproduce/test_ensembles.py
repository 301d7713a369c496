"""Ensembles of kept predictions err as those of exact probabilities do, member by member and image by image."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.errors import DataError, UsageError
from alexnet.inference.ensemble import search_weights, weighted_sum
from alexnet.reproduce.ensembles import average, searched
from alexnet.reproduce.intervals import over_images, verdict
from alexnet.reproduce.predictions import Predictions

CLASSES = 20


def exact(seed: int, n: int = 1500, leans: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A network's probabilities float32 (N, C) for images that all seeds share, and their labels."""
    labels = np.random.default_rng(1000 + n).integers(0, CLASSES, n)
    logits = np.random.default_rng(seed).normal(0, 2, (n, CLASSES))
    logits[np.arange(n), labels] += leans
    values = np.exp(logits)
    return (values / values.sum(1, keepdims=True)).astype(np.float32), labels


def members(seeds: range, n: int = 1500) -> list[Predictions]:
    return [Predictions.of(*exact(seed, n)) for seed in seeds]


def plain_error(scores: np.ndarray, labels: np.ndarray, top: int) -> float:
    """The error by a loop over images."""
    wrong = [sum(row >= row[label]) - 1 >= top for row, label in zip(scores, labels, strict=True)]
    return 100 * sum(wrong) / len(labels)


@pytest.mark.parametrize("top", [1, 5])
def test_one_member_is_its_own_ensemble(top: int) -> None:
    (member,) = members(range(1))
    combination = average([member])
    np.testing.assert_array_equal(combination.average.wrong(top), member.wrong(top))
    assert combination.error(top) == combination.members_error(top) == plain_error(*exact(0), top)
    assert not combination.gains(top).any()


@pytest.mark.parametrize("top", [1, 5])
def test_five_members_err_as_the_mean_of_their_exact_probabilities(top: int) -> None:
    combination = average(members(range(5)))
    probabilities, labels = np.mean([exact(seed)[0] for seed in range(5)], axis=0), exact(0)[1]
    assert combination.error(top) == pytest.approx(plain_error(probabilities, labels, top), abs=0.4)
    own = [plain_error(exact(seed)[0], labels, top) for seed in range(5)]
    assert combination.members_error(top) == pytest.approx(np.mean(own))
    assert combination.error(top) < combination.members_error(top) - 5
    assert combination.weights == (0.2,) * 5


def test_gains_are_the_difference_image_by_image() -> None:
    combination = average(members(range(3)))
    gains = combination.gains()
    assert gains.mean() == pytest.approx(combination.members_error() - combination.error())
    for i in range(20):
        wrong = [bool(member.wrong()[i]) for member in combination.members]
        assert gains[i] == pytest.approx(100 * (sum(wrong) / 3 - bool(combination.average.wrong()[i])))
    assert verdict(over_images(gains)) == "confirmed"


def test_weights_are_searched_on_validation_images_as_evaluate_does() -> None:
    validation = [exact(seed, 700, leans) for seed, leans in ((10, 3.0), (11, 0.0), (12, 3.0))]
    tested = [Predictions.of(*exact(seed, 900, leans)) for seed, leans in ((0, 3.0), (1, 0.0), (2, 3.0))]
    kept = [Predictions.of(*one) for one in validation]
    found = searched(tested, kept)
    expected = search_weights([one.probabilities() for one in kept], validation[0][1])
    assert found.weights == pytest.approx(expected)
    assert sum(found.weights) == pytest.approx(1) and found.weights[1] < 0.2  # it knows nothing
    assert found.error(5) <= average(tested).error(5)
    assert found.error() == average(tested, found.weights).error()
    outputs = [one.probabilities() for one in tested]
    labels = tested[0].labels
    assert found.error() == pytest.approx(plain_error(weighted_sum(outputs, found.weights), labels, 1), abs=0.2)


def test_what_cannot_be_averaged_is_named() -> None:
    three = members(range(3), 50)
    with pytest.raises(UsageError, match="no members are given"):
        average([])
    with pytest.raises(DataError, match="other images than the first: 60 of 20 classes, 50 of 20"):
        average([three[0], *members(range(1), 60)])
    with pytest.raises(UsageError, match="2 weights are given for 3"):
        average(three, [1, 2])
    with pytest.raises(DataError, match="keep ranks only"):
        average([Predictions.of(*exact(0, 50), full=False)])
    with pytest.raises(UsageError, match="3 members have 2 predictions of validation images"):
        searched(three, members(range(2), 40))
    with pytest.raises(DataError, match="validation has 2 classes"):
        searched(three[:1], [Predictions.of([[0.5, 0.5]], [0])])
