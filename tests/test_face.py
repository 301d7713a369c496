"""The package as it is imported: its public names, their help, and `alexnet.train` by name, path or config."""

from __future__ import annotations

import inspect
import io
import pydoc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet import presets
from alexnet.config import Config, replace
from alexnet.config_file import to_toml
from alexnet.errors import RunError, UsageError
from alexnet.run import Run

FUNCTIONS = ("create_model", "evaluate", "load", "prepare", "resume", "train")
BRIEF: dict[str, Any] = {"epochs": 1, "batch_size": 16, "threads": 1, "workers": 1, "optimizer.lr": 0.003}


def test_the_public_names_are_listed() -> None:
    assert set(alexnet.__all__) == {*FUNCTIONS, "Predictor", "errors", "presets"}
    assert alexnet.presets is presets and issubclass(alexnet.errors.DataError, ValueError)
    assert isinstance(alexnet.Predictor, type)
    assert set(alexnet.__all__) <= set(dir(alexnet))
    assert not {"Any", "os", "TYPE_CHECKING", "annotations"} & set(dir(alexnet))


def test_errors_and_presets_need_no_more_than_they_are() -> None:
    code = "import alexnet, sys; alexnet.presets.names(), alexnet.errors.DataError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_help_of_every_public_function_shows_no_address(name: str) -> None:
    function = getattr(alexnet, name)
    assert " at 0x" not in str(inspect.signature(function))
    page = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert " at 0x" not in page and name in page and function.__doc__
    out = io.StringIO()
    pydoc.Helper(output=out).help(alexnet)
    assert name in out.getvalue()


def test_a_preset_is_trained_by_name_with_changes(seven: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = alexnet.train("digits", data=seven, out=out, without=["lrn"], **BRIEF, milestones=[2, 3], mirror=False)
    assert (result.epochs, result.run) == (1, str(out))
    config = Run.open(out).config
    assert (config.preset, config.data.source, config.optimizer.lr) == ("digits", str(seven), 0.003)
    assert (config.train.batch_size, config.schedule.milestones, config.augment.mirror) == (16, (2, 3), False)
    assert not [layer for layer in config.network.layers if layer.name.startswith("norm")]


def test_a_config_a_file_and_a_run_train_the_same(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    config = short(seven, train__steps="1")
    (tmp_path / "run.toml").write_text(to_toml(config))
    alexnet.train(config, tmp_path / "one")
    alexnet.train(tmp_path / "run.toml", tmp_path / "two")
    alexnet.train(str(tmp_path / "one"), tmp_path / "three")
    weights = [
        (tmp_path / name / "checkpoints" / "last.safetensors").stat().st_size for name in ("one", "two", "three")
    ]
    assert len(set(weights)) == 1
    assert len({str(Run.open(tmp_path / name).config) for name in ("one", "two", "three")}) == 1


def test_a_run_begins_from_another_and_from_the_recipe_for_that(trained: Path, seven: Path, tmp_path: Path) -> None:
    alexnet.train("fine-tune", tmp_path / "run", data=seven, init=trained, steps=1)
    config = Run.open(tmp_path / "run").config
    assert config.train.init == str(trained) and config.network == Run.open(trained).config.network


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ("digit", {}, "did you mean digits"),
        ("", {}, "no preset is named ''"),
        (3, {}, "settings of type int should be a preset's name"),
        ("digits", {"epoch": 3}, "epoch is not a setting"),
        ("digits", {"optimizer.lrr": 3}, "did you mean optimizer.lr"),
        ("digits", {"lr": "fast"}, "optimizer.lr 'fast' should be a number"),
        ("digits", {"lr": None}, "optimizer.lr 'none' should be a number"),
        ("digits", {"epochs": 1.5}, "train.epochs '1.5' should be a whole number"),
        ("digits", {"without": ["lrm"]}, "did you mean lrn"),
        ("fine-tune", {}, "--init"),
        ("absent.toml", {}, "absent.toml: No such file"),
    ],
)
def test_a_wrong_request_is_told_and_leaves_nothing(
    settings: Any, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        alexnet.train(settings, tmp_path / "run", **changes)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_told(seven: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        alexnet.train(seven, tmp_path / "run")


def test_every_setting_that_one_word_names_is_reached_by_it() -> None:
    from alexnet.training.train import _path

    config = presets.preset("digits")
    assert _path("lr", config) == "optimizer.lr" and _path("optimizer.lr", config) == "optimizer.lr"
    assert _path("size", config) == "data.size"  # not a layer's
    assert replace(config, {_path("epochs", config): "3"}).train.epochs == 3
