"""Losses against plain loops in float64, and a task without labels through the whole trainer."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet.checkpoint import load_checkpoint, load_weights
from alexnet.config import Config
from alexnet.model.zoo import build
from alexnet.run import Run
from alexnet.training.loop import train
from alexnet.training.task import Hinge, Softmax, Task, task_of

GENERATOR = np.random.default_rng(5)
SCORES = GENERATOR.normal(size=(9, 6)) * 3
LABELS = GENERATOR.integers(0, 6, 9)


def plain_hinge(scores: np.ndarray, labels: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Σ over j ≠ y of max(0, s_j − s_y + Δ) per image, and its gradient, loop by loop."""
    losses, gradient = np.zeros(len(scores)), np.zeros_like(scores)
    for i, (row, y) in enumerate(zip(scores, labels, strict=True)):
        for j, score in enumerate(row):
            excess = score - row[y] + margin
            if j != y and excess > 0:
                losses[i] += excess
                gradient[i, j] += 1
                gradient[i, y] -= 1
    return losses, gradient


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 4.0])
def test_the_hinge_loss_and_its_gradient_are_those_of_plain_loops(margin: float) -> None:
    scores = torch.from_numpy(SCORES).requires_grad_()
    losses = Hinge(margin).loss(scores, torch.from_numpy(LABELS))
    expected, gradient = plain_hinge(SCORES, LABELS, margin)
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-13, atol=1e-13)
    losses.sum().backward()
    np.testing.assert_array_equal(scores.grad.numpy(), gradient)  # type: ignore[union-attr]


def test_the_softmax_loss_is_minus_the_log_of_the_true_probability() -> None:
    outputs = torch.from_numpy(SCORES)
    losses = Softmax().loss(outputs, torch.from_numpy(LABELS)).numpy()
    for i, (row, y) in enumerate(zip(SCORES, LABELS, strict=True)):
        assert losses[i] == pytest.approx(-math.log(math.exp(row[y]) / sum(map(math.exp, row))), rel=1e-12)
    again = Softmax().loss(Softmax().scores(outputs), torch.from_numpy(LABELS)).numpy()  # as validation computes it
    np.testing.assert_allclose(again, losses, rtol=1e-12)


@pytest.mark.parametrize("task", [Softmax(), Hinge(2.0)])
def test_chance_is_the_loss_of_equal_outputs(task: Task) -> None:
    loss = task.loss(torch.zeros(3, 7), torch.tensor([0, 3, 6]))
    assert loss.tolist() == pytest.approx([task.chance(7)] * 3)


def test_the_error_is_in_percent() -> None:
    wrong = Softmax().metrics(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([1, 1]))["top1_error"]
    assert wrong.tolist() == [0.0, 100.0]


def test_the_setting_chooses_the_task(short: Callable[..., Config]) -> None:
    assert isinstance(task_of(short("digits")), Softmax)
    task = task_of(short("digits", train__task="hinge", train__margin="3"))
    assert isinstance(task, Hinge) and task.margin == 3


def test_a_run_with_the_hinge_loss_learns(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 30, "val": 10}, ("ant", "bee", "cat"))
    result = train(short(folder, train__epochs="8", train__task="hinge"), tmp_path / "run")
    assert result.best["top1_error"] <= 10
    first = Run.open(tmp_path / "run").metrics("epoch")[0]["loss"]
    assert result.last["loss"] < first


class Brightness(Softmax):
    """A task that makes its targets of the images alone: is one brighter than the batch's mean?"""

    def prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        means = images.mean((1, 2, 3))
        return torch.cat([images, images.flip(3)]), (means > means.mean()).long().repeat(2)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"certainty": outputs.softmax(1).amax(1)}


def test_a_task_makes_its_own_inputs_targets_and_metrics(
    seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet.training import loop

    monkeypatch.setattr(loop, "task_of", lambda config: Brightness())
    train(short(seven, train__epochs="1"), tmp_path / "run")
    (line,) = Run.open(tmp_path / "run").metrics("epoch")
    assert 0 < line["certainty"] <= 1 and "top1_error" not in line


class Rotations(Softmax):
    """A task without labels: by how many quarters is a picture turned? Each comes in all four ways."""

    def prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        turned = [torch.rot90(images, quarters, (2, 3)) for quarters in range(4)]
        return torch.cat(turned), torch.arange(4).repeat_interleave(len(images))


def test_a_task_without_labels_is_validated_by_its_own_targets(
    seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet.data.augment import Augmentation
    from alexnet.data.run_data import open_run_data
    from alexnet.data.statistics import Statistics
    from alexnet.training import loop

    monkeypatch.setattr(loop, "task_of", lambda config: Rotations())
    result = train(short(seven, train__epochs="1"), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    split = open_run_data(run.config).validation
    statistics = Statistics.load(run.statistics_file)
    view = Augmentation(run.config, statistics, torch.device("cpu"))
    model = build(run.config.network)
    load_weights(model, load_checkpoint(run.checkpoints, "last").weights, "last")
    wrong = 0
    with torch.no_grad():
        for i in range(len(split)):
            image = view.test(torch.from_numpy(split.resize_crop(i, run.config.data.size)[None].copy()))
            for quarters in range(4):
                outputs = model.eval()(torch.rot90(image, quarters, (2, 3)))
                wrong += int(outputs.argmax()) != quarters
    assert (result.last["count"], result.last["unreadable"]) == (4 * len(split), 0)
    assert result.last["top1_error"] == pytest.approx(100 * wrong / (4 * len(split)), abs=1e-3)
