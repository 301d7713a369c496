"""A run is exact: stopped or killed at any moment and resumed, it ends as if it had not been, to the bit."""

import errno
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexnet.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from alexnet.config import Config
from alexnet.device import choose_device
from alexnet.errors import CheckpointError, DataError, RunError, TrainingError
from alexnet.evaluation.metrics import Measurement
from alexnet.progress import Progress, quiet
from alexnet.run import Run
from alexnet.training import loop
from alexnet.training.loop import resume, train
from alexnet.training.state import TrainingResult
from tests.told import Told

TIMES = ("images_per_second", "waiting", "seconds")  # what may differ between two equal runs
RECIPES = {
    "float32": {},
    "bfloat16": {"train__precision": "bfloat16"},
    "2012 source": {
        "augment__colour": "0.1",
        "augment__colour_divisor": "1.1",
        "augment__colour_until": "2",
        "augment__shared": "4",
        "optimizer__bias_lr": "2",
        "optimizer__bias_lr_drops": "false",
        "schedule__kind": "epochs",
        "schedule__milestones": "1,3",
        "schedule__layers": "conv1@1=1e-5,conv1@2=0,fc5=x2",
    },
    "plateau": {
        "schedule__patience": "1",
        "schedule__patience_steps": "0",
        "schedule__threshold": "50",
        "schedule__drops": "1",
    },
    "patience": {
        "schedule__patience": "1",
        "schedule__patience_steps": "5",
        "schedule__threshold": "50",
    },
    "hinge": {"train__task": "hinge", "optimizer__lr": "0.0003"},
}


def content(out: Path) -> dict[str, Any]:
    """All a run leaves that must not depend on when it was interrupted."""
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        checkpoint = read_checkpoint(out / "checkpoints" / f"{name}.safetensors")
        found[name] = {key: value.tobytes() for key, value in checkpoint.weights.items()}
        found[f"{name} velocity"] = {key: value.tobytes() for key, value in checkpoint.velocities.items()}
        found[f"{name} state"] = {key: value for key, value in checkpoint.state.items() if key != "train"}
        place = checkpoint.state["train"]
        found[f"{name} place"] = {key: value for key, value in place.items() if key not in ("metrics_bytes", *TIMES)}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return found


def assert_same_run(out: Path, reference: Path) -> None:
    ours, theirs = content(out), content(reference)
    for part in theirs:
        assert ours[part] == theirs[part], f"{part} differs"


def go(config: Config, out: Path, progress: Progress = quiet) -> TrainingResult:
    """Begin the run, or go on with it where it was begun."""
    return resume(out, progress) if (out / "config.json").exists() else train(config, out, progress)


class StopAfter(Progress):
    """Presses Ctrl-C once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, epoch: int, step: int, images: int, loss: float, waiting: float) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


class KilledError(BaseException):
    """What a kill is to the code: nothing after it runs."""


class KillAfter(Progress):
    """Dies once so many steps are done, or at the end of so many epochs."""

    def __init__(self, steps: int = 0, epochs: int = 0) -> None:
        self.steps, self.epochs = steps, epochs

    def step(self, epoch: int, step: int, images: int, loss: float, waiting: float) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KilledError

    def validated(self, epoch: int, result: dict[str, Any], lr: float) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            raise KilledError


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_run_stopped_after_every_step_ends_as_one_that_was_not(
    recipe: dict[str, str], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    config = short(seven, train__epochs="4", **recipe)
    train(config, tmp_path / "whole")
    stops = 0
    while stops < 17:
        try:
            go(config, tmp_path / "stopped", progress=StopAfter(1))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops in (12, 16)  # 4 epochs of 4 steps, or 3 where the plateau ends the run
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("save_every", ["0", "300"], ids=["saving each step", "saving each epoch"])
def test_a_run_killed_after_any_step_or_epoch_ends_as_one_that_was_not(
    save_every: str, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    config = short(seven, train__epochs="2", train__save_every=save_every)
    train(config, tmp_path / "whole")
    deaths = [KillAfter(steps=step) for step in range(1, 9)] + [KillAfter(epochs=epoch) for epoch in (1, 2)]
    for number, death in enumerate(deaths):
        out = tmp_path / f"killed {number}"
        with pytest.raises(KilledError):
            train(config, out, progress=death)
        resume(out)
        assert_same_run(out, tmp_path / "whole")


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that start at once, since their parent has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet.training.loop", "sklearn.datasets"])
    return context


def saved(out: Path) -> int:
    """When the run last saved, in nanoseconds; 0 before that."""
    try:
        return (out / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_at_random(processes: Any, config: Config, out: Path, moments: random.Random, after_a_save: bool) -> None:
    """Start or resume the run in a process, and kill -9 it at a random moment."""
    process = processes.Process(target=go, args=(config, out))
    before = saved(out)
    process.start()
    if after_a_save:  # so that it gets somewhere; what follows a save is a step and the next save
        deadline = time.monotonic() + 60
        while saved(out) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
    else:
        time.sleep(moments.uniform(0, 1))
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_process_killed_at_random_moments_ends_as_one_that_was_not(
    precision: str, processes: Any, short: Callable[..., Config], tmp_path: Path
) -> None:
    config = short(
        "digits", train__precision=precision, train__save_every="0", train__batch_size="64", train__epochs="2"
    )
    for name, kills in (("whole", 0), ("killed", 6)):
        out = tmp_path / name
        moments = random.Random(precision)
        for kill in range(kills):
            kill_at_random(processes, config, out, moments, after_a_save=kill % 2 == 0)
        process = processes.Process(target=go, args=(config, out))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_run_killed_before_its_first_save_starts_anew(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    train(short(seven), tmp_path / "whole")
    with pytest.raises(KilledError):
        train(short(seven), tmp_path / "killed", progress=KillAfter(steps=4))
    assert (tmp_path / "killed" / "metrics.jsonl").stat().st_size and not saved(tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is_by_resume(trained: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    result = resume(out)
    assert result.epochs == 2 and result.images_per_second == 0
    assert_same_run(out, trained)
    assert (out / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_a_resumed_run_takes_its_own_settings(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short(seven), tmp_path / "run", progress=StopAfter(1))
    resume(tmp_path / "run")
    assert Run.open(tmp_path / "run").metrics("epoch")[-1]["epoch"] == 2


def test_the_result_says_what_the_run_reached(
    trained: Path, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    result = train(short(seven), tmp_path / "run").to_json()
    assert set(result) == {"run", "epochs", "steps", "seconds", "images_per_second", "best", "last"}
    assert (result["run"], result["epochs"], result["steps"]) == (str(tmp_path / "run"), 2, 8)
    errors = [
        {k: v for k, v in line.items() if k != "kind"} for line in Run.open(tmp_path / "run").metrics("validation")
    ]
    assert result["last"] == errors[-1]
    assert result["best"] == min(errors, key=lambda line: line["top1_error"])


def test_metrics_have_a_line_an_interval_an_epoch_and_a_validation(trained: Path) -> None:
    kinds = [(line["kind"], line["epoch"], line["step"]) for line in Run.open(trained).metrics()]
    assert kinds == [
        ("train", 1, 3),
        ("epoch", 1, 4),
        ("validation", 1, 4),
        ("train", 2, 6),
        ("epoch", 2, 8),
        ("validation", 2, 8),
    ]


def test_an_epochs_error_is_that_of_its_steps(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    train(short(seven, train__epochs="1", train__log_every="1"), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    steps, sizes = run.metrics("train"), [16, 16, 16, 8]
    (epoch,) = run.metrics("epoch")
    assert epoch["loss"] == pytest.approx(np.average([line["loss"] for line in steps], weights=sizes), abs=2e-6)
    assert epoch["top1_error"] == pytest.approx(
        np.average([line["top1_error"] for line in steps], weights=sizes), abs=1e-3
    )


def test_a_limit_of_steps_ends_a_run_within_an_epoch(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    result = train(short(seven, train__steps="6"), tmp_path / "run")
    assert (result.steps, result.epochs, result.last["epoch"], result.last["step"]) == (6, 1, 1, 4)
    assert saved(tmp_path / "run")


@pytest.mark.parametrize(
    "measured",
    [
        [(50.0, 1.0), (30.0, 1.0), (40.0, 1.0), (30.0, 1.0)],
        [(30.0, 2.0), (30.0, 1.0), (40.0, 0.5), (30.0, 1.5)],
    ],
    ids=["by error", "by loss"],
)
def test_best_is_of_the_first_epoch_with_the_least_validation_error_and_loss(
    measured: list[tuple[float, float]],
    seven: Path,
    short: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = iter(measured)

    def measure(*_: Any) -> Measurement:
        error, loss = next(values)
        return Measurement(error, None, loss, 21)

    monkeypatch.setattr(loop, "measure_validation", measure)
    result = train(short(seven, train__epochs="4"), tmp_path / "run")
    assert (result.best["epoch"], result.best["top1_error"]) == (2, 30.0)
    assert (result.last["epoch"], result.last["top1_error"]) == (4, 30.0)
    resume(tmp_path / "run")  # whose lines of metrics name the same best
    monkeypatch.undo()
    train(short(seven, train__epochs="2"), tmp_path / "two")
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors").weights
    two = read_checkpoint(tmp_path / "two" / "checkpoints" / "last.safetensors").weights
    assert all(np.array_equal(best[name], two[name]) for name in two)


@pytest.mark.parametrize("save_every", ["0", "300"])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    save_every: str, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    config = short(seven, optimizer__lr="1e6", train__save_every=save_every)
    with pytest.raises(TrainingError, match=r"step \d+ .*--optimizer\.lr"):
        train(config, tmp_path / "run")


def test_no_checkpoint_has_weights_that_are_not_finite(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError):
        train(short(seven, optimizer__lr="1e38", train__save_every="0"), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values()), path.name


def test_metrics_of_a_diverging_run_are_strict_json(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    with pytest.raises(TrainingError):
        train(short(seven, optimizer__lr="1e38", train__batch_size="56", train__log_every="1"), tmp_path / "run")
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_few_unreadable_images_are_left_out_and_listed(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 60, "val": 2}, ("ant", "bee"))
    (folder / "train" / "bee" / "07.png").write_bytes(b"no image")
    told = Told()
    train(short(folder, train__epochs="1"), tmp_path / "run", progress=told)
    unreadable = Run.open(tmp_path / "run").source["unreadable"]
    assert list(unreadable) == [os.path.join("train", "bee", "07.png")]
    assert any("1 of 120 training images cannot be read" in note and "07.png" in note for note in told.notes)


def test_the_list_of_unreadable_images_outlives_resuming(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 60, "val": 2}, ("ant", "bee"))
    (folder / "train" / "bee" / "07.png").write_bytes(b"no image")
    config = short(folder, train__epochs="1", data__memory="0")
    train(config, tmp_path / "run")
    before = Run.open(tmp_path / "run").source
    resume(tmp_path / "run")
    assert Run.open(tmp_path / "run").source == before
    assert before["unreadable"]


def test_a_limit_of_steps_still_lists_unreadable_images(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 60, "val": 2}, ("ant", "bee"))
    (folder / "train" / "bee" / "07.png").write_bytes(b"no image")
    train(short(folder, train__steps="2"), tmp_path / "run")
    assert len(Run.open(tmp_path / "run").source["unreadable"]) == 1


def test_unreadable_validation_images_are_listed_too(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 8, "val": 4}, ("ant", "bee"))
    (folder / "val" / "ant" / "00.png").write_bytes(b"no image")
    result = train(short(folder, train__epochs="1"), tmp_path / "run")
    assert result.last["count"] == 7
    assert list(Run.open(tmp_path / "run").source["unreadable"]) == [os.path.join("val", "ant", "00.png")]


@pytest.mark.parametrize("memory", ["0", "2048"], ids=["decoded each time", "decoded once"])
@pytest.mark.parametrize("bad", [20, 21])
def test_more_than_twenty_and_one_percent_unreadable_stop_the_run(
    bad: int, memory: str, pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 25, "val": 2}, ("ant", "bee"))
    for path in sorted((folder / "train" / "bee").iterdir())[:bad]:
        path.write_bytes(b"no image")
    config, told = short(folder, data__memory=memory, train__epochs="1"), Told()
    if bad > 20:
        with pytest.raises(TrainingError, match=r"21 of 50 training images .*00\.png.* 1 % and more than 20"):
            train(config, tmp_path / "run", progress=told)
    else:
        train(config, tmp_path / "run", progress=told)
        assert sum("20 of 50 training images cannot be read" in note for note in told.notes) == 1
    assert len(Run.open(tmp_path / "run").source["unreadable"]) == bad


def test_a_count_of_unreadable_images_is_said_again_when_all_were_tried(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 30, "val": 4}, ("ant", "bee"))
    for path in [*sorted((folder / "train" / "ant").iterdir())[:10], folder / "val" / "bee" / "00.png"]:
        path.write_bytes(b"no image")
    told = Told()
    train(
        short(folder, data__memory="0", train__save_every="0", train__batch_size="4"), tmp_path / "run", progress=told
    )
    said = [note for note in told.notes if "cannot be read" in note]
    assert 1 <= len(said) <= 2
    assert "10 of 60 training images cannot" in said[-1] and "1 of 8 validation images cannot" in said[-1]


@pytest.mark.parametrize("memory", ["0", "2048"], ids=["decoded each time", "decoded once"])
def test_a_batch_without_a_readable_image_is_passed_over(
    memory: str, pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 2}, ("ant", "bee"))
    (folder / "train" / "ant" / "00.png").write_bytes(b"no image")
    result = train(
        short(folder, data__memory=memory, train__batch_size="1", train__epochs="1"), tmp_path / "run", progress=Told()
    )
    assert result.last["count"] == 4


def test_a_validation_split_without_a_readable_image_is_told(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 8, "val": 1}, ("ant", "bee"))
    for path in (folder / "val").glob("*/*"):
        path.write_bytes(b"no image")
    with pytest.raises((DataError, TrainingError), match="val"):
        train(short(folder, train__epochs="1"), tmp_path / "run")


def test_batches_with_unreadable_images_are_the_same_after_resuming(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 60, "val": 2}, ("ant", "bee"))
    (folder / "train" / "bee" / "07.png").write_bytes(b"no image")
    config = short(folder, data__memory="0")
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", progress=StopAfter(5))
    resume(tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert Run.open(tmp_path / "stopped").source == Run.open(tmp_path / "whole").source


@pytest.mark.parametrize("changes", [{"train__device": "cuda:99"}, {"train__device": "abacus"}])
def test_a_device_that_is_not_there_leaves_no_run(
    changes: dict[str, str], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="device"):
        train(short(seven, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_written_over(trained: Path, seven: Path, short: Callable[..., Config]) -> None:
    before = content(trained)
    with pytest.raises(RunError, match="--resume"):
        train(short(seven), trained)
    assert content(trained) == before


def test_a_checkpoint_of_another_network_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    path = out / "checkpoints" / "last.safetensors"
    checkpoint = read_checkpoint(path)
    save_checkpoint(
        path, replace(checkpoint, weights={**checkpoint.weights, "conv1.weight": np.zeros((7, 3, 5, 5), np.float32)})
    )
    with pytest.raises(CheckpointError, match=r"last\.safetensors is of another network: conv1\.weight"):
        resume(out)


def damage(out: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Change the state and velocities of a run's last checkpoint."""
    path = out / "checkpoints" / "last.safetensors"
    checkpoint = read_checkpoint(path)
    state, velocities = dict(checkpoint.state), dict(checkpoint.velocities)
    edit(state, velocities)
    save_checkpoint(path, Checkpoint(checkpoint.weights, velocities, state))


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (lambda state, v: state.pop("train"), r"state\.train is missing"),
        (lambda state, v: state.pop("schedule"), r"state\.schedule is missing"),
        (lambda state, v: state["train"].pop("epoch"), r"state\.train\.epoch is missing"),
        (lambda state, v: state["train"].update(step="3"), r"state\.train\.step '3'"),
        (lambda state, v: state["train"].update(step=True), r"state\.train\.step true"),
        (lambda state, v: state["train"].update(best=[]), r"state\.train\.best \[\]"),
        (lambda state, v: state["train"]["mean"].update(count=-1), r"state\.train\.mean\.count -1"),
        (lambda state, v: state["schedule"].update(decays=-1), r"state\.schedule\.decays -1"),
        (lambda state, v: state["schedule"].update(finished=0), r"state\.schedule\.finished 0"),
        (lambda state, v: state["schedule"].update(drops=1), r"state\.schedule\.drops is not known"),
        (lambda state, v: state.update(diagnostics=3), r"state\.diagnostics 3"),
        (lambda state, v: state["velocity_lr"].update({"conv1.weight": 0.0}), r"velocity_lr\.conv1\.weight 0\.0"),
        (lambda state, v: state["velocity_lr"].pop("conv1.weight"), "no velocity_lr of conv1.weight"),
        (lambda state, v: v.pop("conv1.bias"), "no velocity of conv1.bias"),
        (
            lambda state, v: v.update({"conv1.bias": v["conv1.bias"].astype(np.float64)}),
            "velocity of conv1.bias has dtype",
        ),
        (lambda state, v: v.update({"conv1.bias": v["conv1.bias"][1:]}), "velocity of conv1.bias has shape"),
        (lambda state, v: v.update({"conv9.bias": v["conv1.bias"].copy()}), "conv9.bias"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name(
    edit: Callable[..., Any], names: str, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    damage(tmp_path / "run", edit)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=names) as error:
        resume(tmp_path / "run")
    assert "last.safetensors" in str(error.value)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_truncated_checkpoint_is_told_and_kept(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    (out / "checkpoints" / "previous.safetensors").unlink()
    path = out / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="last.safetensors"):
        resume(out)
    assert path.stat().st_size == 1000


@pytest.mark.parametrize("at", [3, 5])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(
    at: int, trained: Path, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(short(seven, train__save_every="0"), out, progress=StopAfter(at))
    path = out / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    told = Told()
    resume(out, told)
    (warning,) = told.warnings
    assert "last.safetensors is damaged" in warning and "previous.safetensors" in warning
    assert_same_run(out, trained)


def test_a_full_disk_keeps_the_last_checkpoint(
    trained: Path, seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = os.fsync, iter(range(99))

    def full(handle: int) -> None:
        if next(count) > 14:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(short(seven, train__save_every="0"), tmp_path / "run")
    monkeypatch.undo()
    assert saved(tmp_path / "run")
    told = Told()
    resume(tmp_path / "run", told)
    assert not told.warnings
    assert_same_run(tmp_path / "run", trained)


def test_a_source_whose_classes_changed_is_refused_by_resume(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 8, "val": 2}, ("ant", "bee"))
    with pytest.raises(KeyboardInterrupt):
        train(short(folder), tmp_path / "run", progress=StopAfter(1))
    for split in ("train", "val"):
        (folder / split / "bee").rename(folder / split / "wasp")
    with pytest.raises(RunError, match="bee"):
        resume(tmp_path / "run")


def test_the_environment_tells_the_threads_trained_with(trained: Path) -> None:
    assert Run.open(trained).environment["hardware"]["threads"] == 1


@pytest.mark.parametrize(("gpu", "kind"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, gpu: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device("auto").type == kind


def test_validation_is_the_plain_error_of_the_weights_saved(trained: Path, seven: Path) -> None:
    from alexnet.inference.evaluate import evaluate

    measured = evaluate(trained, split="val", checkpoint="last")
    last = Run.open(trained).metrics("validation")[-1]
    for name in ("top1_error", "top5_error", "count"):
        assert getattr(measured, name) == last[name]
    assert math.isclose(measured.loss, last["loss"], abs_tol=1e-4)


def test_training_learns(pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "some", {"train": 30, "val": 10}, ("ant", "bee", "cat"))
    result = train(short(folder, train__epochs="8", optimizer__lr="0.01"), tmp_path / "run")
    assert result.best["top1_error"] <= 10


def test_a_second_ctrl_c_stops_at_once(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    class Twice(Progress):
        def step(self, *_: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(short(seven), tmp_path / "run", progress=Twice())
    assert signal.getsignal(signal.SIGINT) is before
    assert not saved(tmp_path / "run")


def test_ctrl_c_in_the_last_step_lets_the_run_finish(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    class AtValidation(Progress):
        def validated(self, epoch: int, result: dict[str, Any], lr: float) -> None:
            if epoch == 2:
                signal.raise_signal(signal.SIGINT)

    assert train(short(seven), tmp_path / "run", progress=AtValidation()).epochs == 2
