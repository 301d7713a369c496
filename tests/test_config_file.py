"""Settings as a file: every preset is written and read back equal; parts of a file change a preset."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet import presets
from alexnet.ablations import without
from alexnet.config import fields, replace
from alexnet.config_file import from_document, read_config, to_toml
from alexnet.errors import UsageError

EVERY = [*presets.names(), "torchvision:resnet18"]


@pytest.mark.parametrize("name", EVERY)
def test_a_preset_is_read_back_from_its_file(name: str, tmp_path: Path) -> None:
    config = presets.preset(name)
    (tmp_path / "run.toml").write_text(to_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "run.toml") == config


def test_a_changed_network_is_read_back_from_its_file() -> None:
    config = without(presets.preset("code-145"), ["lrn", "conv4", "relu"])
    config = replace(config, {"network.conv1.std": "none", "network.fc6.units": "64", "train.track": "wandb,mlflow"})
    assert from_document(tomllib.loads(to_toml(config))) == config


@given(st.text())
def test_any_text_survives_the_file(text: str) -> None:
    config = replace(presets.preset("torchvision:resnet18"), {"data.source": text})
    assert from_document(tomllib.loads(to_toml(config))).data.source == text


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_number_survives_the_file(number: float) -> None:
    config = replace(presets.preset("torchvision:resnet18"), {"optimizer.lr": repr(number)})
    assert from_document(tomllib.loads(to_toml(config))).optimizer.lr == number


@pytest.mark.parametrize("name", ["digits", "code-145"])
def test_every_setting_is_there_with_its_help_text(name: str) -> None:
    text = to_toml(presets.preset(name))
    document = tomllib.loads(text)
    for entry in fields(presets.preset(name)):
        at = document
        for part in entry.path.split("."):
            at = at[part]
        assert entry.about in text


def test_a_file_changes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'preset = "digits"\n[optimizer]\nlr = 0.02\n[network]\nnorm1 = "none"\n[network.conv1]\nkernels = 16\n'
    )
    changes = {"optimizer.lr": "0.02", "network.norm1": "none", "network.conv1.kernels": "16"}
    assert read_config(path) == replace(presets.preset("digits"), changes)


def test_a_preset_may_be_named_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[train]\nepochs = 3\n")
    assert read_config(path, "cifar-26") == replace(presets.preset("cifar-26"), {"train.epochs": "3"})
    with pytest.raises(UsageError, match="should name a preset"):
        read_config(path)
    path.write_text('preset = "digits"\n')
    with pytest.raises(UsageError, match="for preset digits; leave --preset paper out"):
        read_config(path, "paper")


def test_the_settings_of_a_saved_run_are_a_file_too(tmp_path: Path) -> None:
    config = replace(presets.preset("digits"), {"network.norm1": "none"})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preset = digits", "line 1"),
        ('preset = "digit"', "did you mean digits"),
        ("preset = 3", "should name a preset"),
        ('preset = "digits"\n[optimizer]\nlr = "fast"', "optimizer.lr 'fast' should be a number above 0"),
        ('preset = "digits"\n[optimiser]\nlr = 1', "did you mean optimizer?"),
        ('preset = "digits"\nepochs = 3', "epochs is not a section"),
        ('preset = "digits"\n[network.conv1]\nkernels = 31', "31 maps do not divide into 2 columns"),
    ],
)
def test_what_a_file_has_wrong_is_told_in_one_line_with_its_name(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_config(path)
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = " + b"[" * 100_000, None])
def test_a_file_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="run.toml"):
        read_config(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "1 GiB"])
def test_what_would_block_or_fill_the_memory_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "run.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "1 GiB":
        with open(path, "wb") as file:
            file.truncate(1 << 30)
    with pytest.raises(UsageError, match=r"not a regular file|Is a directory|more than the limit"):
        read_config(path)
