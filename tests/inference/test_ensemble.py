"""The average of predictors, and the search of its weights, against plain loops."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import UsageError
from alexnet.inference.ensemble import Ensemble, normalized, search_weights
from alexnet.inference.load import load
from alexnet.inference.network import softmax


def squares(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("views", [1, 10])
def test_probabilities_are_the_mean_of_the_members(views: int, trained: Path, second: Path) -> None:
    one, two = load(trained), load(second)
    images = squares(5)
    both = load(trained, second)
    expected = np.mean([net.probabilities(images, views) for net in (one, two)], axis=0)
    np.testing.assert_allclose(both.probabilities(images, views), expected, atol=1e-6)
    weighted = load(one, two, weights=[1, 3])
    expected = 0.25 * one.probabilities(images, views) + 0.75 * two.probabilities(images, views)
    np.testing.assert_allclose(weighted.probabilities(images, views), expected, atol=1e-6)


def test_an_ensemble_predicts_as_a_network_does(trained: Path, second: Path, seven: Path) -> None:
    both = load(trained, second)
    path = seven / "test" / "cat" / "00.png"
    (found,) = both.predict(path, top=7)
    outputs = both.probabilities(both.squares([path]))[0]
    assert found.labels == tuple(both.classes[i] for i in np.argsort(-outputs).tolist())
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    assert [member["run"] for member in both.description["members"]] == [str(trained), str(second)]
    assert both.description["weights"] == [0.5, 0.5]


def test_taps_are_named_by_member(trained: Path, second: Path) -> None:
    both, images = load(trained, second), squares(2)
    taps = both.taps(images, ["0.conv1", "1.fc5"])
    assert set(taps) == {"0.conv1", "1.fc5"}
    assert np.array_equal(taps["1.fc5"], load(second).taps(images, ["fc5"])["fc5"])
    assert {name.partition(".")[0] for name in both.taps(images)} == {"0", "1"}
    for name in ("conv1", "2.conv1", "0.conv99"):
        with pytest.raises(ValueError, match="conv"):
            both.taps(images, [name])


def test_members_must_take_the_same_squares_and_know_the_same_classes(trained: Path, second: Path) -> None:
    one, two = load(trained), load(second)
    two.exif_rotate = True
    with pytest.raises(
        UsageError, match=r"second takes squares of 16 pixels turned by EXIF, .*first squares of 16 pix"
    ):
        Ensemble([one, two])
    two.exif_rotate, two.classes = False, ("ant", "bee")
    with pytest.raises(UsageError, match=r"second has other classes than .*first; they cannot be averaged"):
        Ensemble([one, two])
    with pytest.raises(UsageError, match="no model"):
        Ensemble([])


def test_weights_are_parts_of_their_sum() -> None:
    assert normalized(None, 4) == (0.25,) * 4
    assert normalized([2, 0, 6], 3) == (0.25, 0, 0.75)
    for wrong in ([1.0, 2.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [float("nan"), 1.0, 1.0], [float("inf"), 1.0, 1.0]):
        with pytest.raises(UsageError, match="weights"):
            normalized(wrong, 3)


def outputs(members: int, n: int, classes: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Softmax outputs that know something of the labels, some members more than others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    truth = np.eye(classes, dtype=np.float32)[labels]
    logits = [rng.standard_normal((n, classes), np.float32) + i * truth for i in range(members)]
    return [softmax(value) for value in logits], labels


def plain_error(parts: list[np.ndarray], weights: list[float], labels: np.ndarray, best: int) -> float:
    """The share of labels not among the `best` most probable of the weighted sum, an image at a time."""
    missed = 0
    for i, label in enumerate(labels.tolist()):
        row = sum(weight * part[i].astype(np.float64) for weight, part in zip(weights, parts, strict=True))
        missed += int((row >= row[label]).sum()) > best  # type: ignore[index, operator]
    return missed / len(labels)


@pytest.mark.parametrize(("classes", "best"), [(12, 5), (4, 1)])
def test_no_single_weight_on_the_grid_is_better_than_those_found(classes: int, best: int) -> None:
    parts, labels = outputs(3, 80, classes, classes)
    weights = search_weights(parts, labels)
    assert sum(weights) == pytest.approx(1) and min(weights) >= 0
    lowest = plain_error(parts, list(weights), labels, best)
    assert lowest < plain_error(parts, [1, 1, 1], labels, best)
    scale = 1 / max(weights)  # some weight may have stayed at its 1
    for i, step in itertools.product(range(3), range(0, 21, 2)):
        tried = [weight * scale for weight in weights]
        tried[i] = step / 20
        if any(tried):
            assert plain_error(parts, tried, labels, best) >= lowest - 1 / 80 - 1e-9


def test_a_member_that_knows_nothing_is_left_out_where_that_helps() -> None:
    labels = np.tile(np.arange(6), 10)
    right, astray = np.full((60, 6), 0.01, np.float32), np.full((60, 6), 0.19999, np.float32)
    right[np.arange(60), labels], astray[np.arange(60), labels] = 0.95, 0
    astray[:30] *= 60  # outweighs the other where it errs
    weights = search_weights([astray, right], labels)
    assert plain_error([astray, right], list(weights), labels, 5) == 0
    assert plain_error([astray, right], [0.5, 0.5], labels, 5) > 0


def test_between_equal_top5_errors_the_top1_error_decides() -> None:
    labels = np.tile(np.arange(12), 5)
    right, second_best = np.full((60, 12), 0.01, np.float32), np.full((60, 12), 0.001, np.float32)
    right[np.arange(60), labels], second_best[np.arange(60), labels] = 0.5, 0.4
    second_best[np.arange(60), (labels + 1) % 12] = 0.95  # never first, always among the five
    weights = search_weights([second_best, right], labels)
    assert plain_error([second_best, right], [0.5, 0.5], labels, 1) == 1
    assert plain_error([second_best, right], list(weights), labels, 1) == 0


def test_equal_weights_stay_where_nothing_is_better() -> None:
    parts, labels = outputs(1, 20, 7, 0)
    assert search_weights(parts * 2, labels) == (0.5, 0.5)
