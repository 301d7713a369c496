"""A checkpoint's state agrees with the lines of metrics: no field can be removed, mistyped or invented unnoticed."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from alexnet.config import Config
from alexnet.data.run_data import open_run_data
from alexnet.errors import CheckpointError
from alexnet.inference.load import load
from alexnet.model.zoo import build
from alexnet.progress import Progress
from alexnet.run import Run
from alexnet.training.loop import Trainer, resume, train
from alexnet.training.task import Softmax
from alexnet.training.trackers import Trackers

REMOVED = object()
VALUES: tuple[Any, ...] = (REMOVED, "x", None, [1], {"a": {}}, -1, 10**6, 10**30, 1e308, True, 1.5)
FREE = ("smooth", "seconds")  # any number from 0 on may be the right one, and so may any mean of these
SUMS = ("loss", "top1_error", "count")


class KilledError(BaseException):
    """What a kill is to the code: nothing after it runs."""


class KillAfter(Progress):
    """Dies once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, epoch: int, step: int, images: int, loss: float, waiting: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.fixture(scope="module")
def killed(seven: Path, short: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died within its second epoch, with a validation behind it and a line of metrics within the epoch."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(KilledError):
        train(short(seven, train__epochs="3", train__save_every="0"), out, progress=KillAfter(6))
    (out / "checkpoints" / "previous.safetensors").unlink()
    return out


@pytest.fixture
def restore(killed: Path) -> Callable[[Checkpoint], None]:
    """Save a checkpoint in the place of the run's last one, and restore from it."""
    run = Run.open(killed)
    data = open_run_data(run.config)
    model = build(data.config.network)

    def restore(checkpoint: Checkpoint) -> None:
        path = killed / "checkpoints" / "last.safetensors"
        save_checkpoint(path, checkpoint)
        (killed / "checkpoints" / "previous.safetensors").unlink()
        Trainer(run, data, model, Softmax(), Trackers()).restore()

    return restore


def fields(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            yield from fields(entry, (*path, key))


def with_field(state: Any, path: tuple[str, ...], value: Any) -> Any:
    state = copy.deepcopy(state)
    part = state
    for key in path[:-1]:
        part = part[key]
    if value is REMOVED:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return state


def test_no_field_of_the_state_is_removed_mistyped_or_invented_unnoticed(
    killed: Path, restore: Callable[[Checkpoint], None]
) -> None:
    good = read_checkpoint(killed / "checkpoints" / "last.safetensors")
    tried = 0
    for path in fields(good.state):
        for value in VALUES:
            state = with_field(good.state, path, value)
            number = type(value) in (int, float) and value < 1e100
            free = path[-1] in FREE or (path[-1] in SUMS and path[1] in ("mean", "interval"))
            if state == good.state or (number and free and (path[-1] != "count" or value == 10**6)):
                continue
            if path == ("diagnostics", "smooth") and value is None:
                continue
            if path[-1] == "top1_error" and value is REMOVED:  # one of a task's own metrics, in the running means
                continue
            with pytest.raises(CheckpointError) as error:
                restore(Checkpoint(good.weights, good.velocities, state))
                pytest.fail(f"{path} {value!r} is taken")
            message = str(error.value)
            assert "last.safetensors" in message and "\n" not in message
            assert any(name in message for name in (path[-1], path[-2 if len(path) > 1 else -1])), (path, message)
            tried += 1
    assert tried > 300
    restore(good)


def test_weights_and_velocities_that_are_not_finite_are_refused_by_name(
    killed: Path, restore: Callable[[Checkpoint], None]
) -> None:
    good = read_checkpoint(killed / "checkpoints" / "last.safetensors")
    spoilt = np.full_like(good.weights["conv1.bias"], np.nan)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: the velocity of conv1\.bias .*finite"):
        restore(Checkpoint(good.weights, {**good.velocities, "conv1.bias": spoilt}, good.state))
    with pytest.raises(CheckpointError, match=r"last\.safetensors: conv1\.bias .*finite"):
        restore(Checkpoint({**good.weights, "conv1.bias": spoilt}, good.velocities, good.state))
    with pytest.raises(CheckpointError, match=r"last\.safetensors: conv1\.bias .*finite"):
        load(killed, checkpoint="last")
    restore(good)


def test_metrics_that_became_shorter_than_the_checkpoint_says_are_told_and_left(killed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    metrics = out / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors: state\.train\.metrics_bytes .*metrics\.jsonl"):
        resume(out)
    assert metrics.stat().st_size == 100
