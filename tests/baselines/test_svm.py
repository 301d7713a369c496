"""The averaged SGD against one machine and one row at a time, and against scikit-learn's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from alexnet.baselines import svm
from alexnet.baselines.rows import Rows, exact, rounded
from alexnet.baselines.svm import Machines


def blobs(count: int, classes: int = 4, length: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around a point of each class, which a plane does not separate without errors."""
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(99).normal(0, 1, (classes, length))
    labels = rng.integers(0, classes, count)
    rows = points[labels] + rng.normal(0, 1.2, (count, length))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def plain(rows: np.ndarray, labels: np.ndarray, machine: int, penalty: float, batch: int, burn_in: int) -> np.ndarray:
    """One machine of the same kind, row by row in double precision: its averaged weights, bias last."""
    centre, w, b = rows.mean(axis=0), np.zeros(rows.shape[1]), 0.0
    mean = np.zeros(rows.shape[1] + 1)
    for t, first in enumerate(range(0, len(rows), batch)):
        rate = 2.0 / (1 + 2.0 * penalty * t) ** 0.75
        pull, push, count = np.zeros_like(w), 0.0, 0
        for x, label in zip(rows[first : first + batch] - centre, labels[first : first + batch], strict=True):
            y = 1 if label == machine else -1
            slack = max(0.0, 1 - y * (x @ w + b))
            pull, push, count = pull + y * slack * x, push + y * slack, count + 1
        w = (1 - rate * penalty) * w + rate * pull / count
        b += rate * push / count
        mean += (np.append(w, b) - mean) / max(1, t + 1 - burn_in)
    return mean


@pytest.mark.parametrize("block", [5, 4096])
def test_many_machines_at_once_are_what_each_is_alone(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "BLOCK", block)
    rows, labels = blobs(160)
    penalties = (1e-3, 1e-1)
    machines = Machines.zeros(rows.mean(axis=0), 4, penalties, 2.0, burn_in=5)
    for first in range(0, 160, 8):
        machines.step(exact(rows[first : first + 8]), labels[first : first + 8])
    for place, penalty in enumerate(penalties):
        weights, biases = machines.chosen(place)
        for machine in range(4):
            wanted = plain(rows.astype(np.float64), labels, machine, penalty, 8, burn_in=5)
            np.testing.assert_allclose(weights[:, machine], wanted[:-1], atol=1e-4)
            assert biases[machine] == pytest.approx(wanted[-1] - rows.mean(axis=0) @ wanted[:-1], abs=1e-4)
    scores = machines.scores(exact(rows))
    assert scores.shape == (160, 2, 4)
    np.testing.assert_allclose(scores[:, 1], rows @ weights + biases, atol=1e-4)


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "BLOCK", 5)
    rows, labels = blobs(80)
    found = []
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            machines = Machines.zeros(rows.mean(axis=0), 4, (1e-3,), 2.0, 2, pool.map)
            for first in range(0, 80, 8):
                machines.step(rounded(rows[first : first + 8]), labels[first : first + 8])
            found.append(machines.scores(exact(rows)))
    assert (found[0] == found[1]).all()


def test_it_is_as_good_as_scikit_learns() -> None:
    from sklearn.linear_model import SGDClassifier

    rows, labels = blobs(1200)
    test, truth = blobs(800, seed=1)
    learner = SGDClassifier(loss="squared_hinge", average=True, alpha=1e-4, max_iter=30, tol=None, random_state=0)
    theirs = np.mean(learner.fit(rows, labels).predict(test) != truth)
    machines = Machines.zeros(rows.mean(axis=0), 4, (1e-4,), 1.0, burn_in=100)
    rng = np.random.default_rng(0)
    for _ in range(10):
        order = rng.permutation(1200)
        for first in range(0, 1200, 8):
            chosen = order[first : first + 8]
            machines.step(exact(rows[chosen]), labels[chosen])
    mine = np.mean(machines.scores(exact(test))[:, 0].argmax(axis=1) != truth)
    assert mine <= theirs + 0.02 and mine < 0.5 * 0.75  # chance is 0.75


def test_rounded_rows_are_within_half_a_step_of_their_largest_entry() -> None:
    rows, _ = blobs(30)
    rows[3] = 0
    small = rounded(rows)
    assert small.codes.dtype == np.int8 and len(small) == 30
    error = np.abs(small.columns(slice(None)) - rows).max(axis=1)
    assert (error <= np.abs(rows).max(axis=1) / 254 + 1e-7).all()
    np.testing.assert_allclose(small.total(), small.columns(slice(None)).sum(axis=0), atol=1e-4)
    some = small.take(np.array([5, 2]))
    assert isinstance(some, Rows) and (some.columns(slice(2, 4)) == small.columns(slice(2, 4))[[5, 2]]).all()


def test_machines_that_go_on_alone_end_as_those_that_were_not() -> None:
    rows, labels = blobs(160)
    both = Machines.zeros(rows.mean(axis=0), 4, (1e-3, 1e-1), 2.0, burn_in=5)
    alone = both
    for first in range(0, 160, 8):
        for machines in {id(both): both, id(alone): alone}.values():
            machines.step(exact(rows[first : first + 8]), labels[first : first + 8])
        if first == 80:
            alone = both.keep(1)
    assert alone.penalties == (1e-1,) and both.penalties == (1e-3, 1e-1)
    np.testing.assert_allclose(alone.scores(exact(rows))[:, 0], both.scores(exact(rows))[:, 1], atol=1e-5)
