"""A run goes on with other settings where that makes sense, exactly where it can, and never silently otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.checkpoint import read_checkpoint
from alexnet.config import Config, replace
from alexnet.errors import DataError, RunError, TrainingError, UsageError
from alexnet.inference.evaluate import evaluate
from alexnet.report.history import read_history
from alexnet.report.report import write_report
from alexnet.run import Run
from alexnet.training.loop import resume, train
from alexnet.training.resuming import entry, hardware_differences
from alexnet.training.state import TrainState
from tests.told import Told


class KilledError(BaseException):
    """What a kill is to the code: nothing after it runs."""


def same(ours: Path, theirs: Path) -> bool:
    """Whether two runs have the same weights and velocities, to the bit, and the same state of their schedules."""
    a, b = (read_checkpoint(path / "checkpoints" / "last.safetensors") for path in (ours, theirs))
    tensors = [{**one.weights, **{f"v {name}": value for name, value in one.velocities.items()}} for one in (a, b)]
    equal = all(np.array_equal(value, tensors[1][name]) for name, value in tensors[0].items())
    return equal and tensors[0].keys() == tensors[1].keys() and a.state["schedule"] == b.state["schedule"]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two epochs."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def flat(seven: Path, short: Callable[..., Config], tmp_path: Path) -> tuple[Config, Path]:
    """A run whose plateau schedule ended it after three epochs of nine."""
    settings = {
        "schedule__patience": "1",
        "schedule__patience_steps": "0",
        "schedule__drops": "1",
        "schedule__threshold": "99",
        "train__epochs": "9",
    }
    config = short(seven, **settings)
    told = Told()
    train(config, tmp_path / "flat", told)
    assert "the plateau after the last of 1 drops" in told.notes[-1] and "--schedule.drops 2" in told.notes[-1]
    assert len(Run.open(tmp_path / "flat").metrics("epoch")) == 3
    return config, tmp_path / "flat"


def test_a_finished_run_is_trained_longer_exactly(
    run: Path, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    told = Told()
    assert resume(run, told, {"train.epochs": "3"}).epochs == 3
    train(short(seven, train__epochs="3"), tmp_path / "whole")
    assert same(run, tmp_path / "whole") and not told.warnings
    assert Run.open(run).config == Run.open(tmp_path / "whole").config
    (change,) = Run.open(run).environment["changes"]
    assert change == {"epoch": 3, "step": 8, "exact": True, "settings": {"train.epochs": ["2", "3"]}}
    assert "train.epochs 3 (before: 2)" in write_report(Run.open(run)).read_text()


def test_a_finished_run_says_so_and_what_trains_it_longer(run: Path, flat: tuple[Config, Path]) -> None:
    told = Told()
    resume(run, told)
    assert told.notes[-1] == "the run finished after 2 of 2 epochs; to train it longer give --epochs N"
    resume(flat[1], told)
    assert len(told.notes) == 4  # of each run its images and its end
    assert "the plateau after the last of 1 drops" in told.notes[-1] and "--schedule.drops 2" in told.notes[-1]
    assert read_history(Run.open(run)).finished == "finished after 2 of 2 epochs"
    assert "plateau" in read_history(Run.open(flat[1])).finished


def test_a_run_that_its_schedule_ended_needs_another_drop_and_is_then_exact(
    flat: tuple[Config, Path], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    _, out = flat
    with pytest.raises(RunError, match=r"plateau .* is over; to train it longer give --schedule\.drops 2"):
        resume(out, changes={"train.epochs": "12"})
    assert Run.open(out).config.train.epochs == 9
    resume(out, changes={"schedule.drops": "2"})
    settings = {
        "schedule__patience": "1",
        "schedule__patience_steps": "0",
        "schedule__drops": "2",
        "schedule__threshold": "99",
        "train__epochs": "9",
    }
    train(short(seven, **settings), tmp_path / "whole")
    assert same(out, tmp_path / "whole")


def test_a_kill_right_after_a_change_loses_nothing(
    flat: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from alexnet.training.loop import Trainer

    def killed(*_: object) -> None:
        raise KilledError

    _, out = flat
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Trainer, "fit", killed)
        resume(out, changes={"schedule.drops": "2"})
    assert Run.open(out).config.schedule.drops == 2
    assert resume(out).epochs == 4


@pytest.mark.parametrize("changes", [{"schedule.drops": "0"}, {"schedule.patience": "3", "schedule.drops": "4"}])
def test_a_schedule_that_would_have_had_other_rates_is_refused(
    changes: dict[str, str], flat: tuple[Config, Path]
) -> None:
    with pytest.raises(RunError, match="is done, would have had another learning rate|plateau"):
        resume(flat[1], changes=changes)
    assert "changes" not in Run.open(flat[1]).environment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.lr": "1"}, r"^optimizer\.lr cannot be changed in a run; begin another with `--init"),
        ({"train.seed": "1"}, r"^train\.seed cannot be changed"),
        ({"train.epochz": "1"}, r"^train\.epochz is no setting"),
        ({"train.epochs": "x"}, "should be a whole number"),
        ({"train.epochs": "1"}, " epochs 1 is fewer"),
        ({"train.steps": "3"}, r" steps 3 is fewer"),
        ({"train.steps": "9"}, "to train it longer give --epochs N"),
    ],
)
def test_other_changes_are_refused_by_name(changes: dict[str, str], message: str, run: Path) -> None:
    before = (run / "config.json").read_bytes(), (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=message):
        resume(run, changes=changes)
    assert ((run / "config.json").read_bytes(), (run / "metrics.jsonl").read_bytes()) == before


def test_other_threads_are_taken_and_told(run: Path) -> None:
    told = Told()
    resume(run, told, {"train.threads": "2", "train.epochs": "3"})
    (warning,) = told.warnings
    assert "from step 8 on the run is not exact: with train.threads 2 instead of 1" in warning
    assert Run.open(run).environment["changes"][0]["exact"] is False
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("device", "gpus", "known", "words"),
    [
        ("auto", [], {"threads": 7}, "threads 1 instead of 7"),
        ("auto", [], {"instruction_class": "abacus"}, "instruction class {class} instead of abacus"),
        ("auto", ["NVIDIA Z1"], {}, "device cpu instead of NVIDIA Z1"),
        ("auto", [], {"threads": 1}, ""),
        ("auto", [], {"instruction_class": None}, ""),
        ("cpu", ["NVIDIA Z1"], {}, ""),
    ],
)
def test_another_machine_is_told_once(
    device: str,
    gpus: list[str],
    known: dict[str, Any],
    words: str,
    seven: Path,
    short: Callable[..., Config],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    train(short(seven, train__threads="0", train__device=device, train__epochs="1"), run)
    environment = json.loads((run / "environment.json").read_text())
    words = words.format(**{"class": environment["hardware"]["instruction_class"]})
    environment["hardware"] |= {"gpus": gpus, **known}
    (run / "environment.json").write_text(json.dumps(environment))
    told = Told()
    resume(run, told)
    assert not told.warnings  # nothing is left to train
    resume(run, told, {"train.epochs": "2"})
    expected = f"from step 4 on the run is not exact: with {words} sums are rounded otherwise"
    assert told.warnings == ([expected] if words else [])
    (change,) = Run.open(run).environment["changes"]
    assert change["exact"] is not bool(words)
    resume(run, told, {"train.epochs": "3"})  # on the machine that it had last
    assert len(told.warnings) == bool(words) and Run.open(run).environment["changes"][1]["exact"] is True
    write_report(Run.open(run))


def test_another_gpu_is_told_by_its_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = json.loads((run / "environment.json").read_text())
    environment["hardware"]["gpus"] = ["NVIDIA Z1", "NVIDIA Z2"]
    (run / "environment.json").write_text(json.dumps(environment))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Z2")
    opened, device = Run.open(run), torch.device("cuda")
    assert opened.config.train.device == "auto"
    assert hardware_differences(opened, device) == {"hardware.device": ["NVIDIA Z1", "NVIDIA Z2"]}
    opened.change(
        replace(opened.config, {"train.device": "cuda:1"}), entry(TrainState(), {"train.seed": ["1", "1"]}, "")
    )
    assert hardware_differences(opened, device) == {}


def test_a_setting_that_asks_for_another_machine_is_told_alone(run: Path) -> None:
    told = Told()
    resume(run, told, {"train.threads": "2", "train.epochs": "3"})
    resume(run, told, {"train.epochs": "4"})
    torch.set_num_threads(1)
    assert len(told.warnings) == 1 and told.warnings[0].endswith(
        "with train.threads 2 instead of 1 sums are rounded otherwise"
    )


def test_a_longer_run_is_not_exact_where_its_end_was_validated_out_of_turn(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    train(short(seven, train__epochs="1", train__evaluate_every="2"), tmp_path / "run")
    told = Told()
    resume(tmp_path / "run", told, {"train.epochs": "2"})
    assert "epoch 1 was validated as the last one" in told.warnings[0]


def test_a_run_finds_its_images_from_another_folder(
    trained: Path, pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    pictures(tmp_path / "here" / "some", {"train": 4, "val": 2}, ("ant", "bee"))
    pictures(tmp_path / "there" / "some", {"train": 4, "val": 3}, ("ant", "bee"))
    monkeypatch.chdir(tmp_path / "here")
    train(short("some"), "run")
    monkeypatch.chdir(tmp_path / "there")
    run = tmp_path / "here" / "run"
    result = evaluate(run)
    assert (result.count, result.path, result.data) == (4, str(tmp_path / "here" / "some"), "some")
    assert "data_changed" not in result.to_json()
    assert resume(run, changes={"train.epochs": "3"}).epochs == 3
    assert Run.open(run).source["path"] == str(tmp_path / "here" / "some")


def test_a_run_whose_images_moved_takes_them_from_where_they_are(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 2}, ("ant", "bee"))
    run = tmp_path / "run"
    train(short(folder), run)
    folder.rename(tmp_path / "moved")
    for use in (evaluate, resume):
        with pytest.raises(DataError, match=r"are no longer at .*some: put them back, or .* \(--data\) where"):
            use(run)
    told = Told()
    resume(run, told, {"data.source": str(tmp_path / "moved"), "train.epochs": "3"})
    assert not told.warnings and Run.open(run).source["path"] == str(tmp_path / "moved")
    assert evaluate(run).count == 4
    assert str(tmp_path / "moved") in write_report(Run.open(run)).read_text()


def test_images_that_changed_are_told_by_resume_and_evaluate(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 3}, ("ant", "bee"))
    run = tmp_path / "run"
    train(short(folder), run)
    (folder / "val" / "ant" / "00.png").unlink()
    (folder / "train" / "ant" / "00.png").rename(folder / "train" / "ant" / "zz.png")
    told = Told()
    result = evaluate(run, progress=told)
    changes = "train images of other names or labels, 5 val images, not 6"
    assert result.to_json()["data_changed"] == changes and changes in told.warnings[0]
    told = Told()
    resume(run, told, {"train.epochs": "3"})
    assert changes in told.warnings[0] and "not exact" in told.warnings[1]
    assert evaluate(run).data_changed is None  # it is what the run has gone on with


def test_another_folder_of_the_same_name_is_not_measured_silently(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 2}, ("ant", "bee"))
    train(short(folder), tmp_path / "run")
    shutil.rmtree(folder)
    pictures(folder, {"train": 4, "val": 2}, ("ant", "cow"))
    with pytest.raises(DataError, match="class 'cow' that the model was not trained on"):
        evaluate(tmp_path / "run")
    with pytest.raises(RunError, match=r"other classes \(gone: 'bee'; new: 'cow'\).*--data"):
        resume(tmp_path / "run")
    told = Told()
    assert "The images cannot be read" in write_report(Run.open(tmp_path / "run"), told).read_text()
    (warning,) = told.warnings
    assert warning.count("'cow'") == 1 and "--data" in warning


def test_a_run_that_failed_before_its_first_save_blocks_nothing(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="nothing was saved yet, so that the same command may begin anew"):
        train(short(seven, optimizer__lr="1e30"), tmp_path / "run")
    assert train(short(seven), tmp_path / "run").epochs == 2
    assert Run.open(tmp_path / "run").config.optimizer.lr == 0.003


def test_what_a_run_says_of_its_changes_is_checked(run: Path) -> None:
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    change = {"epoch": 1, "step": 1, "exact": True, "settings": {"schedule.drops": ["-3", "3"]}}
    for value in (3, [3], [{}], [change], [change | {"settings": {"schedule.drops": ["1"]}}]):
        path.write_text(json.dumps({**environment, "changes": value}))
        with pytest.raises(RunError, match=r"environment\.json"):
            resume(run)
