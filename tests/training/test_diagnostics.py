"""A run that does not learn is told so, once, with what to try."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alexnet.checkpoint import read_record
from alexnet.config import Config
from alexnet.evaluation.metrics import Measurement
from alexnet.model.zoo import create_model
from alexnet.training import diagnostics
from alexnet.training.diagnostics import Diagnostics, DiagnosticsState, dead_shares
from alexnet.training.loop import train
from tests.told import Told

IMAGES = torch.linspace(-100, 100, 8 * 3 * 14 * 14).reshape(8, 3, 14, 14)


def watched(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of when these are the losses of the first steps, with the limit at 100 steps."""
    monkeypatch.setattr(diagnostics, "AFTER", 100)
    told = Told()
    watch = Diagnostics(math.log(10), told)
    for step, loss in enumerate(losses, 1):
        watch.after_step(step, loss)
    return told.warnings


def test_a_loss_at_chance_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (warning,) = watched([math.log(10) + 0.01 * (-1) ** step for step in range(300)], monkeypatch)
    assert "after 100 steps the loss is still 2.30" in warning
    assert "(2.303)" in warning and "--optimizer.lr" in warning


def test_a_loss_below_chance_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched([max(1.5, math.log(10) - 0.02 * step) for step in range(300)], monkeypatch) == []


def test_one_lucky_batch_does_not_hide_a_loss_at_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(watched([math.log(10)] * 99 + [1.5] + [math.log(10)], monkeypatch)) == 1


def test_the_loss_at_chance_is_recognized_after_resuming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "AFTER", 100)
    told = Told()
    first = Diagnostics(math.log(10), told)
    for step in range(1, 100):
        first.after_step(step, math.log(10))
    resumed = Diagnostics(math.log(10), told)
    resumed.state = read_record(DiagnosticsState, json.loads(json.dumps(asdict(first.state))), "diagnostics")
    resumed.after_step(100, 1.5)  # alone it would pass for learning
    assert len(told.warnings) == 1


def test_a_warning_is_not_repeated_after_resuming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    model, told = silenced("conv2"), Told()
    first = Diagnostics(math.log(10), told)
    first.look(1, model, IMAGES)
    resumed = Diagnostics(math.log(10), told)
    resumed.state = read_record(DiagnosticsState, json.loads(json.dumps(asdict(first.state))), "diagnostics")
    before = list(told.warnings)
    resumed.look(2, model, IMAGES)
    assert told.warnings == before


def silenced(layer: str, share: float = 1.0) -> Any:
    """The preset digits with that share of a layer's biases so low that its ReLUs never fire."""
    model = create_model("digits", num_classes=10)
    bias = model.get_parameter(f"{layer}.bias")
    with torch.no_grad():
        bias[: round(share * len(bias))] = -1e9
    return model


def test_dead_layers_are_warned_of_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 5)
    told = Told()
    watch = Diagnostics(math.log(10), told)
    model = silenced("conv2")
    for step in range(1, 20):
        watch.look(step, model, IMAGES)
    of_conv2 = [warning for warning in told.warnings if "relu2" in warning]
    assert len(of_conv2) == 1
    assert "at step 5 100% of relu2 is silent" in of_conv2[0] and "--optimizer.lr" in of_conv2[0]


def test_a_layer_that_is_half_dead_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    told = Told()
    Diagnostics(math.log(10), told).look(1, silenced("conv2", 0.5), IMAGES)
    assert told.warnings == []


def test_the_share_that_is_dead_is_counted_in_maps_and_units() -> None:
    assert dead_shares(silenced("conv2", 0.75), IMAGES)["relu2"] >= 0.75
    assert dead_shares(silenced("fc4", 0.5), IMAGES)["relu4"] >= 0.5
    assert dead_shares(silenced("conv1", 1.0), IMAGES)["relu1"] == 1
    assert set(dead_shares(create_model("digits"), IMAGES)) == {"relu1", "relu2", "relu3", "relu4"}


def test_looking_at_the_relus_leaves_the_model_in_training_mode() -> None:
    model = create_model("digits").train()
    dead_shares(model, IMAGES)
    assert model.training and all(module.training for module in model.modules())


def test_networks_without_relus_of_ours_are_only_watched_by_their_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    told = Told()
    Diagnostics(math.log(10), told).look(1, create_model("cifar-26", activation="tanh"), torch.zeros(2, 3, 32, 32))
    assert told.warnings == []


def test_a_training_that_stays_at_chance_says_so(
    seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "AFTER", 6)
    told = Told()
    train(short(seven, optimizer__lr="1e-9"), tmp_path / "run", progress=told)
    assert any("after 6 steps the loss is still" in warning for warning in told.warnings)


def measured(answered: int, top1_error: float = 50.0) -> Measurement:
    """A validation of ten classes, of which so many were answered."""
    return Measurement(
        top1_error, None, 2.0, 100, chance_error=90.0, majority_error=80.0, answered=answered, present=10
    )


def told_after(result: Measurement, steps: int, loss: float = 2.0, over: bool = False) -> list[str]:
    """What is warned of after two validations with that result."""
    told = Told()
    watch = Diagnostics(math.log(10), told)
    for _ in range(2):
        watch.after_validation(result, result.top1_error, loss, steps, over)
    return told.warnings


def test_a_network_that_answers_few_classes_is_named_once() -> None:
    (warning,) = told_after(measured(1, 90.0), 400)
    assert "after 400 steps the network predicts only 1 of 10 classes" in warning and "--epochs" in warning
    assert "only 3 of 10" in told_after(measured(3), 400)[0]
    assert told_after(measured(4), 400) == []


def test_at_first_nothing_is_said_unless_it_is_the_end() -> None:
    assert told_after(measured(1, 90.0), 13) == []
    assert "predicts only 1 of 10" in told_after(measured(1, 90.0), 13, over=True)[0]


def test_errors_like_those_of_the_most_frequent_class_are_named() -> None:
    (warning,) = told_after(measured(6, 80.0), 400)
    assert "80.00 %, is not better than always answering the most frequent class, 80.00 %" in warning
    assert told_after(measured(6, 79.0), 400) == []


def test_a_loss_above_that_of_guessing_is_named() -> None:
    (warning,) = told_after(measured(6), 400, loss=5.0)
    assert "the loss is 5, above that of guessing (2.303)" in warning and "--optimizer.lr" in warning
    assert told_after(measured(6), 400, loss=2.4) == []


def test_a_learning_rate_far_too_high_gets_a_word(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    told = Told()
    train(short(seven, optimizer__lr="0.5", train__epochs="4"), tmp_path / "run", progress=told)
    assert any("above that of guessing" in words or "predicts only" in words for words in told.warnings)


def test_a_run_too_short_to_learn_is_named(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    told = Told()
    train(short(seven, optimizer__lr="1e-9"), tmp_path / "run", progress=told)
    assert any("few steps per epoch" in words for words in told.warnings)


def test_looking_at_the_relus_changes_nothing_in_a_run(
    seven: Path, trained: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    train(short(seven), tmp_path / "run")
    ours, theirs = (load_file(path / "checkpoints" / "last.safetensors") for path in (tmp_path / "run", trained))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_wrapped_model_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    told = Told()
    Diagnostics(None, told).look(1, torch.compile(silenced("conv2")), IMAGES)  # type: ignore[arg-type]
    assert any("relu2" in warning for warning in told.warnings)
