"""A run that begins with another model's weights: what is copied, what is not, and the fine-tuning recipe."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alexnet import presets
from alexnet.checkpoint import read_checkpoint
from alexnet.config import Config
from alexnet.errors import CheckpointError, RunError, UsageError
from alexnet.model.zoo import create_model
from alexnet.run import Run
from alexnet.training import loop
from alexnet.training.init import initialise_from
from alexnet.training.loop import Trainer, resume, train
from tests.told import Told


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The weights before the first step of the run to come."""
    kept: dict[str, torch.Tensor] = {}
    real = Trainer.fit

    def fit(self: Trainer, *args: object) -> object:
        kept.update({name: value.clone() for name, value in self.model.state_dict().items()})
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Trainer, "fit", fit)
    return kept


def best(run: Path) -> dict[str, torch.Tensor]:
    weights = read_checkpoint(run / "checkpoints" / "best.safetensors").weights
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def test_a_run_on_the_same_classes_begins_with_all_the_best_weights(
    trained: Path, seven: Path, short: Callable[..., Config], tmp_path: Path, first_weights: dict[str, torch.Tensor]
) -> None:
    train(short(seven, train__init=str(trained), train__epochs="1"), tmp_path / "run")
    theirs = best(trained)
    assert first_weights.keys() == theirs.keys()
    assert all(torch.equal(first_weights[name], theirs[name]) for name in theirs)
    report = json.loads((tmp_path / "run" / "init.json").read_text())
    assert sorted(report["copied"]) == sorted(theirs) and report["fresh"] == report["unused"] == []
    assert report["origin"].endswith("best.safetensors") and len(report["sha256"]) == 64


@pytest.mark.parametrize("classes", [("ant", "bee"), ("A", "B", "C", "D", "E", "F", "G")], ids=["fewer", "as many"])
def test_a_run_on_other_classes_has_a_new_last_layer(
    classes: tuple[str, ...],
    trained: Path,
    pictures: Callable[..., Path],
    short: Callable[..., Config],
    tmp_path: Path,
    first_weights: dict[str, torch.Tensor],
) -> None:
    other = pictures(tmp_path / "other", {"train": 6, "val": 2}, classes)
    told = Told()
    train(short(other, train__init=str(trained), train__epochs="1"), tmp_path / "run", told)
    theirs, fresh = best(trained), create_model("digits", len(classes)).state_dict()
    for name, value in first_weights.items():
        assert torch.equal(value, fresh[name] if name.startswith("fc5") else theirs[name]), name
    report = json.loads((tmp_path / "run" / "init.json").read_text())
    assert sorted(report["fresh"]) == sorted(report["unused"]) == ["fc5.bias", "fc5.weight"]
    assert any("8 of 10 tensors are copied" in note and "fc5.weight" in note for note in told.notes)


def test_a_safetensors_file_is_copied_by_name_and_shape(
    seven: Path, short: Callable[..., Config], tmp_path: Path, first_weights: dict[str, torch.Tensor]
) -> None:
    weights = {"conv1.weight": torch.ones(32, 3, 5, 5), "conv2.bias": torch.ones(3), "elsewhere": torch.ones(1)}
    save_file(weights, tmp_path / "some.safetensors")
    train(short(seven, train__init=str(tmp_path / "some.safetensors"), train__epochs="1"), tmp_path / "run")
    fresh = create_model("digits", 7).state_dict()
    for name, value in first_weights.items():
        assert torch.equal(value, weights[name] if name == "conv1.weight" else fresh[name]), name
    report = json.loads((tmp_path / "run" / "init.json").read_text())
    assert report["copied"] == ["conv1.weight"] and set(report["unused"]) == {"conv2.bias", "elsewhere"}


@pytest.mark.parametrize("name", ["absent", "notes.txt", "broken.safetensors", "other.safetensors", "empty"])
def test_a_model_that_cannot_be_begun_from_leaves_no_run(
    name: str, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.safetensors").write_bytes(b"half")
    (tmp_path / "empty").mkdir()
    save_file({"elsewhere": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises((UsageError, RunError, CheckpointError), match=name.partition(".")[0]):
        train(short(seven, train__init=str(tmp_path / name)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_does_not_need_the_other_model_any_more(
    trained: Path, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "first")
    config = short(seven, train__init=str(tmp_path / "first"))
    train(config, tmp_path / "whole")
    train(replace(config, train=replace(config.train, steps=5)), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "train": config.to_dict()["train"]}))
    shutil.rmtree(tmp_path / "first")
    resume(tmp_path / "run")
    ours, theirs = (read_checkpoint(tmp_path / run / "checkpoints" / "last.safetensors") for run in ("run", "whole"))
    assert all(np.array_equal(ours.weights[name], value) for name, value in theirs.weights.items())


def test_the_fine_tuning_recipe_takes_the_network_of_the_run(trained: Path) -> None:
    base = presets.preset("fine-tune")
    config = initialise_from(replace(base, train=replace(base.train, init=str(trained))))
    theirs = Run.open(trained).config
    assert config.network == theirs.network and config.augment == theirs.augment
    assert (config.data.size, config.data.source) == (theirs.data.size, base.data.source)
    assert config.optimizer.lr == pytest.approx(theirs.optimizer.lr / 10)
    assert config.schedule.layers == ("conv1=x0.1", "fc5=x10")
    assert config.train.init == str(trained) and config.train.batch_size == theirs.train.batch_size


def test_other_presets_keep_their_network(trained: Path, short: Callable[..., Config]) -> None:
    config = short("digits", train__init=str(trained))
    assert initialise_from(config) is config


def test_the_fine_tuning_recipe_needs_a_run_to_begin_from(tmp_path: Path) -> None:
    base = presets.preset("fine-tune")
    with pytest.raises(UsageError, match="--init MODEL"):
        initialise_from(base)
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="is not one"):
        initialise_from(replace(base, train=replace(base.train, init=str(tmp_path / "a.safetensors"))))


def test_fine_tuning_by_command(
    trained: Path, pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alexnet import cli

    other = pictures(tmp_path / "other", {"train": 6, "val": 2}, ("ant", "bee"))
    words = ["train", "--preset", "fine-tune", "--init", trained, "--data", other, "--out", tmp_path / "run"]
    assert cli.main([*map(str, words), "--epochs", "1", "--json"]) == 0, capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config.network.classes == 2 and run.config.preset == "fine-tune" and run.config.train.epochs == 1
    assert run.init_file.exists()
