"""Predictions beside a record: errors as they were measured, probabilities within their rounding, files checked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError, UsageError
from alexnet.evaluation.metrics import ErrorCounter
from alexnet.files import write_npz
from alexnet.reproduce.predictions import NAT, Predictions, check_same_images


def made(n: int = 300, classes: int = 20, seed: int = 0, sharp: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Softmax outputs that lean to the true class, float32 (N, C), and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, sharp, (n, classes))
    logits[np.arange(n), labels] += sharp
    values = np.exp(logits - logits.max(1, keepdims=True))
    return (values / values.sum(1, keepdims=True)).astype(np.float32), labels


def measured(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float | None]:
    """The errors of evaluate: a counter of log-probabilities."""
    counter = ErrorCounter(probabilities.shape[1])
    scores = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    counter.add(torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64)))
    return counter.top1_error, counter.top5_error


@pytest.mark.parametrize("classes", [2, 5, 10, 200, 1000])
@pytest.mark.parametrize("full", [True, False])
def test_errors_are_those_that_evaluate_counts(classes: int, full: bool) -> None:
    probabilities, labels = made(5000 if classes == 10 else 300, classes)
    predictions = Predictions.of(probabilities, labels, full)
    top1, top5 = measured(probabilities, labels)
    assert predictions.error() == top1 and predictions.error(5) == (top5 or 0)
    assert len(predictions) == len(labels) and predictions.wrong(1).mean() * 100 == pytest.approx(top1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_ties_count_against_the_prediction_as_in_evaluate(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 3, (40, classes)).astype(np.float32) / 8  # many ties, and zeros
    labels = rng.integers(0, classes, 40)
    predictions = Predictions.of(probabilities, labels)
    assert (predictions.error(1), predictions.error(5) if classes > 5 else None) == measured(probabilities, labels)
    plain = [
        sum(row[j] >= row[label] for j in range(classes)) - 1 for row, label in zip(probabilities, labels, strict=True)
    ]
    assert predictions.ranks.tolist() == plain


@pytest.mark.parametrize(("classes", "full"), [(4, True), (10, True), (300, True), (10, False)])
def test_predictions_come_back_from_a_file(tmp_path: Path, classes: int, full: bool) -> None:
    predictions = Predictions.of(*made(100, classes), full)
    predictions.save(tmp_path / "p.npz")
    back = Predictions.load(tmp_path / "p.npz")
    assert back.classes == classes and back.images == predictions.images
    for name in ("labels", "ranks", "top", "nats"):
        mine, theirs = getattr(predictions, name), getattr(back, name)
        assert (mine is None) == (theirs is None) == (not full and name in ("top", "nats"))
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
    back.save(tmp_path / "again.npz")
    assert (tmp_path / "p.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_no_image_is_kept_and_read_but_has_no_error(tmp_path: Path) -> None:
    Predictions.of(np.empty((0, 10)), np.empty(0, np.int64)).save(tmp_path / "p.npz")
    with pytest.raises(DataError, match="no image"):
        Predictions.load(tmp_path / "p.npz").error()


@pytest.mark.parametrize("classes", [4, 10, 11, 200])
def test_probabilities_come_back_within_their_rounding(classes: int) -> None:
    exact, labels = made(2000, classes)
    back = Predictions.of(exact, labels).probabilities()
    assert back.dtype == np.float32 and back.shape == exact.shape
    np.testing.assert_allclose(back.sum(1), 1, rtol=1e-5)
    kept = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    mine, theirs = np.take_along_axis(back, kept, 1), np.take_along_axis(exact, kept, 1)
    worst = np.exp(1 / NAT) - 1  # half a step of the class, half of those that it is normalized by
    assert (np.abs(mine - theirs) <= worst * theirs + 2e-6).all()  # what is clipped is below e^-15.9
    assert np.abs(back - exact).max() < worst


def test_what_was_not_kept_is_spread_evenly_and_below_what_was() -> None:
    flat = np.full((1, 200), 1 / 200)
    np.testing.assert_allclose(Predictions.of(flat, [3]).probabilities(), flat, rtol=0.04)
    steep = np.full((1, 200), 1e-6)
    steep[0, 7] = 1 - 199e-6
    back = Predictions.of(steep, [7]).probabilities()
    assert back[0, 7] == pytest.approx(1, abs=1e-3) and len(np.unique(back[0, 10:])) == 1


@pytest.mark.parametrize("classes", [10, 200])
def test_an_ensemble_of_kept_probabilities_is_that_of_exact_ones(classes: int) -> None:
    truths = made(2000, classes, 9)[1]
    exact = []
    for seed in range(5):
        probabilities, labels = made(2000, classes, seed)
        rolled = (np.arange(classes)[None] + (labels - truths)[:, None]) % classes
        exact.append(np.take_along_axis(probabilities, rolled, 1))  # so that all lean to the same labels
    kept = [Predictions.of(one, truths).probabilities(classes) for one in exact]
    mine, theirs = np.mean(kept, axis=0), np.mean(exact, axis=0)
    assert np.abs(mine - theirs).max() < 0.035
    for top in (1, 5):
        errors = [Predictions.of(one, truths).error(top) for one in (mine, theirs)]
        assert abs(errors[0] - errors[1]) < 0.8


def test_images_are_told_apart_by_their_labels_in_order() -> None:
    probabilities, labels = made(50)
    first, other = Predictions.of(probabilities, labels), Predictions.of(np.roll(probabilities, 1, 1), labels, False)
    assert first.images == other.images
    check_same_images([first, other])
    swapped = Predictions.of(probabilities, labels[::-1])
    assert swapped.images != first.images
    with pytest.raises(DataError, match="predictions 2 of 2 are of other images than the first: 50 of 20 classes"):
        check_same_images([first, swapped])


def test_ten_thousand_predictions_of_ten_classes_are_small(tmp_path: Path) -> None:
    probabilities, labels = made(10_000, 10)
    Predictions.of(probabilities, labels).save(tmp_path / "full.npz")
    Predictions.of(probabilities, labels, full=False).save(tmp_path / "ranks.npz")
    assert (tmp_path / "full.npz").stat().st_size < 200_000
    assert (tmp_path / "ranks.npz").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones(3) / 3, [0], r"should be \(N, C\) and \(N,\)"),
        (np.ones((2, 3)) / 3, [0], r"should be \(N, C\) and \(N,\)"),
        (np.ones((1, 3)) / 3, [3], "labels from 3 to 3 should be from 0 to 2"),
        (np.ones((1, 3)) / 3, [-1], "from 0 to 2"),
        (np.ones((1, 3)) / 3, [0.5], "whole numbers"),
        ([[np.nan, 0.5]], [0], "numbers from 0 to 1"),
        ([[1.5, -0.5]], [0], "numbers from 0 to 1"),
    ],
)
def test_what_is_no_prediction_is_refused(probabilities: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Predictions.of(probabilities, labels)


def test_without_probabilities_there_is_no_ensemble() -> None:
    with pytest.raises(DataError, match="keep ranks only"):
        Predictions.of(*made(), full=False).probabilities()
    with pytest.raises(UsageError, match="of 20 classes, not 10"):
        Predictions.of(*made()).probabilities(10)


def arrays() -> dict[str, np.ndarray]:
    predictions = Predictions.of(*made(50))
    names = ("labels", "ranks", "top", "nats")
    return {"classes": np.array([20], np.uint32), **{name: getattr(predictions, name) for name in names}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(50, 20, np.uint16)}, "labels has 20, but there are 20 classes"),
        ({"labels": np.zeros((50, 1), np.uint16)}, "labels is uint16"),
        ({"ranks": np.zeros(49, np.uint8)}, r"ranks is uint8 \(49,\)"),
        ({"ranks": np.zeros(50)}, "ranks is float64"),
        ({"top": np.zeros((50, 10), np.uint8)}, "top names a class twice"),
        ({"top": None}, "its arrays are"),
        ({"more": np.zeros(1)}, "its arrays are"),
        ({"classes": np.array([1], np.uint32)}, "its number of classes"),
        ({"classes": np.array([70_000], np.uint32)}, "its number of classes"),
        ({"classes": np.array([1000], np.uint32)}, "ranks is uint8"),
        ({"classes": np.array([20, 20], np.uint32)}, "its number of classes"),
    ],
)
def test_a_file_of_other_arrays_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    values = {name: value for name, value in (arrays() | changes).items() if value is not None}
    write_npz(tmp_path / "p.npz", values, compressed=True)
    with pytest.raises(DataError, match=message):
        Predictions.load(tmp_path / "p.npz")


def test_no_damage_to_a_file_is_anything_but_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    Predictions.of(*made(50)).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    cut = [whole[:n] for n in (0, 1, 30, len(whole) // 2, len(whole) - 1)]
    flipped = []
    for place in rng.integers(0, len(whole), 300):
        content = bytearray(whole)
        content[place] ^= int(rng.integers(1, 256))
        flipped.append(bytes(content))
    refused = 0
    for content in [*cut, *flipped]:
        path.write_bytes(content)
        try:
            Predictions.load(path)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 200


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": (1 << 26,)})
        archive.writestr("labels.npy", header.getvalue() + bytes(1 << 27))
    with pytest.raises(DataError, match="larger than the limit"):
        Predictions.load(tmp_path / "p.npz")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.npz", "No such file"), (tmp_path, "not a regular file")):
        with pytest.raises(DataError, match=message):
            Predictions.load(path)


@pytest.mark.parametrize("classes", [10, 200])
def test_kept_classes_keep_their_order_where_rounding_made_them_equal(classes: int) -> None:
    probabilities, labels = made(3000, classes, sharp=1.0)
    predictions = Predictions.of(probabilities, labels)
    assert predictions.nats is not None and (predictions.nats[:, 0] == predictions.nats[:, 1]).sum() > 50
    again = Predictions.of(predictions.probabilities(), labels)
    for top in (1, 5):
        np.testing.assert_array_equal(again.wrong(top), predictions.wrong(top))
