"""Top-1 and top-5 errors against a plain sort of the predictions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.evaluation.metrics import ErrorCounter


def counted(scores: np.ndarray, labels: np.ndarray, pieces: int = 1) -> ErrorCounter:
    counter = ErrorCounter(scores.shape[1])
    for part, truth in zip(np.array_split(scores, pieces), np.array_split(labels, pieces), strict=True):
        counter.add(torch.from_numpy(part), torch.from_numpy(truth))
    return counter


def by_sorting(scores: np.ndarray, labels: np.ndarray, best: int) -> float:
    """Percent of images whose label is not among the `best` highest scores, by a plain sort of each row."""
    wrong = 0
    for row, label in zip(scores, labels, strict=True):
        ranking = sorted(range(len(row)), key=lambda c: -row[c])
        wrong += label not in ranking[:best]
    return 100 * wrong / len(labels)


def log_softmax(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 3
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), rng.integers(0, classes, n)


@given(st.integers(1, 60), st.integers(6, 30), st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_both_errors_equal_a_plain_sort_however_the_images_are_batched(
    n: int, classes: int, seed: int, pieces: int
) -> None:
    scores, labels = log_softmax(n, classes, seed)
    counter = counted(scores, labels, min(pieces, n))
    assert counter.top1_error == pytest.approx(by_sorting(scores, labels, 1))
    assert counter.top5_error == pytest.approx(by_sorting(scores, labels, 5))
    assert counter.count == n


def test_the_loss_is_the_mean_negative_log_probability_of_the_truth() -> None:
    scores, labels = log_softmax(37, 8, 1)
    assert counted(scores, labels, 4).loss == pytest.approx(-scores[np.arange(37), labels].mean(), rel=1e-12)


def test_sums_are_those_of_plain_numbers_to_the_bit() -> None:
    scores, labels = (torch.from_numpy(values) for values in log_softmax(50, 8, 3))
    counter, loss = ErrorCounter(8), 0.0
    for part, truth in zip(scores.float().split(7), labels.split(7), strict=True):
        counter.add(part, truth)
        loss += float(-part.gather(1, truth[:, None]).double().sum())
    assert counter.loss == loss / 50
    assert counter.answers.tolist() == torch.bincount(scores.argmax(1), minlength=8).tolist()
    assert counter.truths.tolist() == torch.bincount(labels, minlength=8).tolist()


def test_sums_stay_where_the_scores_are() -> None:
    counter = ErrorCounter(7)
    for _ in range(2):  # a tensor without values could not be read
        counter.add(torch.zeros(4, 7, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta"))
    assert counter.count == 8 and counter.wrong.device.type == counter.answers.device.type == "meta"


def test_small_losses_add_up_without_losing_digits() -> None:
    counter = ErrorCounter(2)
    row, label = torch.tensor([[math.log(0.9), math.log(0.1)]]), torch.tensor([0])
    for _ in range(2000):
        counter.add(row, label)
    assert counter.loss == pytest.approx(-float(row[0, 0]), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_up_to_five_classes_there_is_no_top5_error(classes: int) -> None:
    scores, labels = log_softmax(9, classes, 2)
    counter = counted(scores, labels)
    assert counter.top5_error is None
    assert counter.result().top5_error is None


def test_with_six_classes_there_is_a_top5_error() -> None:
    scores, labels = log_softmax(50, 6, 2)
    assert counted(scores, labels).top5_error == pytest.approx(by_sorting(scores, labels, 5))


def errors(rows: list[list[float]], labels: list[int]) -> tuple[float, float | None]:
    counter = ErrorCounter(len(rows[0]))
    counter.add(torch.tensor(rows), torch.tensor(labels))
    return counter.top1_error, counter.top5_error


def test_a_tie_with_the_truth_is_an_error() -> None:
    assert errors([[0.5, 0.5, 0.0]], [0])[0] == 100
    assert errors([[0.5, 0.5, 0.0]], [1])[0] == 100


def test_a_constant_prediction_is_wrong_everywhere() -> None:
    assert errors([[-2.0] * 10] * 10, list(range(10))) == (100, 100)


def test_a_tie_for_the_fifth_place_is_a_top5_error() -> None:
    assert errors([[9, 8, 7, 6, 5, 5, 0]], [4]) == (100, 100)
    assert errors([[9, 8, 7, 6, 5, 4, 4]], [4]) == (100, 0)


def test_a_tie_among_others_does_not_hurt_the_truth() -> None:
    assert errors([[9, 5, 5, 5, 5, 5, 5]], [0]) == (0, 0)


def test_the_fifth_is_in_and_the_sixth_is_out() -> None:
    row = [9.0, 8, 7, 6, 5, 4, 3]
    assert [errors([row], [label])[1] for label in range(7)] == [0, 0, 0, 0, 0, 100, 100]


def test_a_prediction_that_is_not_a_number_is_an_error() -> None:
    assert errors([[math.nan] * 7], [3]) == (100, 100)


def test_a_true_class_that_is_not_a_number_is_an_error() -> None:
    assert errors([[-9.0, math.nan, -9, -9, -9, -9, -9]], [1]) == (100, 100)


def test_a_rival_that_is_not_a_number_is_an_error() -> None:
    assert errors([[-1.0, math.nan, -9, -9, -9, -9, -9]], [0])[0] == 100


def test_probabilities_of_zero_are_ranked() -> None:
    assert errors([[0.0, -math.inf, -math.inf]], [0])[0] == 0
    assert errors([[0.0, -math.inf, -math.inf]], [1])[0] == 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_floating_dtype_is_counted(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, -1, -2], [-3, -1, -2], [-1, -2, 0]], dtype=dtype)
    counter = ErrorCounter(3)
    counter.add(scores, torch.tensor([0, 0, 2]))
    assert (counter.wrong, counter.count) == (1, 3)
    assert counter.loss == pytest.approx(1.0)


def test_the_predictions_are_not_changed() -> None:
    scores: Tensor = torch.randn(4, 7)
    before = scores.clone()
    ErrorCounter(7).add(scores, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(scores, before)


def test_the_result_names_percent_nats_and_count() -> None:
    counter = ErrorCounter(6)
    counter.add(torch.log_softmax(torch.tensor([[9.0, 0, 0, 0, 0, 0]] * 3), 1), torch.tensor([0, 0, 1]))
    result = counter.result().to_json()
    assert result["top1_error"] == pytest.approx(100 / 3, abs=1e-4)
    assert result["top5_error"] == pytest.approx(100 / 3, abs=1e-4)  # the wrong one ties with four more at the end
    assert result["count"] == 3
    assert set(result) >= {"top1_error", "top5_error", "loss", "count", "unreadable"}


def test_errors_stand_beside_those_of_chance_and_of_the_most_frequent_class() -> None:
    counter = ErrorCounter(4, majority=2)
    scores = torch.eye(4)[[0, 0, 0, 3, 3]]
    counter.add(scores, torch.tensor([0, 2, 2, 2, 3]))
    result = counter.result()
    assert (result.chance_error, result.majority_error) == (75.0, 40.0)  # three of five images are of class 2
    assert (result.answered, result.present) == (2, 3)
    assert ErrorCounter(4).majority is None
