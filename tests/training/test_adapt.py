"""A small training set gets a smaller batch and more epochs, and a processor without bfloat16 gets float32."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import presets
from alexnet.config import replace
from alexnet.config_file import from_document, to_toml
from alexnet.data.dataset import ArraySplit, Source
from alexnet.data.run_data import RunData, open_run_data
from alexnet.errors import UsageError
from alexnet.model import native
from alexnet.training.adapt import LEAST_STEPS, adapt, advice, choose_precision, fitted
from alexnet.training.loop import resume, train
from tests.told import Told

CPU = torch.device("cpu")
OWN = {  # the training images that a preset was made for
    "paper": 1_281_167,
    "code-145": 1_261_406,
    "caffe": 1_281_167,
    "one-weird-trick": 1_281_167,
    "one-gpu": 1_281_167,
    "conv6": 1_281_167,
    "cifar-26": 45_000,
    "cifar-18": 45_000,
    "cifar-13": 40_000,
    "cifar-11": 40_000,
    "tiny-64": 100_000,
    "tiny-32": 45_000,
    "digits": 1_293,
}


@pytest.mark.parametrize("name", presets.names())
def test_on_its_own_images_a_preset_is_what_it_is(name: str) -> None:
    config = presets.preset(name)
    assert adapt(config, OWN[name]) == (config, [])
    epoch = -(-OWN[name] // config.train.batch_size)  # and as many epochs of patience as before
    assert config.schedule.patience * epoch >= config.schedule.patience_steps


@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("images", [2, 36, 200, 456, 3000])
def test_few_images_make_thousands_of_steps_and_are_adapted_to_once(name: str, images: int) -> None:
    config, _ = adapt(presets.preset(name), images)
    steps = -(-images // config.train.batch_size)
    assert config.train.epochs * steps >= LEAST_STEPS
    assert (
        steps >= 16 or config.train.batch_size == 8 or config.train.batch_size == presets.preset(name).train.batch_size
    )
    assert adapt(config, images) == (config, [])


def test_the_batch_and_the_rate_shrink_together() -> None:
    config, words = adapt(presets.preset("tiny-64"), 450)
    assert (config.train.batch_size, config.optimizer.lr) == (28, 0.00219)
    assert "28 images per step instead of 128" in words[0]


def test_what_is_given_is_obeyed_even_where_it_is_the_presets_own() -> None:
    base = presets.preset("tiny-64")
    assert adapt(replace(base, {"train.batch_size": "128"}), 450)[0].train.batch_size == 128
    given = replace(base, {"optimizer.lr": "0.01", "train.epochs": "70"})
    adapted, _ = adapt(given, 450)
    assert (adapted.optimizer.lr, adapted.train.epochs, adapted.train.batch_size) == (0.01, 70, 28)
    kept = replace(base, {"train.adapt": "false"})
    assert adapt(kept, 450) == (kept, [])


def test_what_is_given_counts_as_given_but_is_not_written() -> None:
    given = replace(presets.preset("tiny-64"), {"train.batch_size": "128"})
    assert given == presets.preset("tiny-64") and given.chosen == {"train.batch_size"}
    assert "chosen" not in given.to_dict()


def test_of_a_file_of_all_settings_those_it_changes_are_given() -> None:
    text = to_toml(presets.preset("tiny-64"))
    assert from_document(tomllib.loads(text)).chosen == frozenset()
    changed = text.replace("batch_size = 128", "batch_size = 100")
    assert from_document(tomllib.loads(changed)).chosen == {"train.batch_size"}


def test_epochs_of_a_schedule_move_with_the_length() -> None:
    before = presets.preset("code-145")
    config, _ = adapt(before, 1600)
    times = config.train.epochs // before.train.epochs
    assert times > 1
    assert config.schedule.milestones == tuple(times * epoch for epoch in (23, 51, 78))
    assert config.schedule.layers == (f"conv1@{68 * times}=1e-5", f"conv1@{72 * times}=0")
    assert config.augment.colour_until == 68 * times


def test_bfloat16_of_a_preset_is_float32_where_the_processor_does_not_multiply_it() -> None:
    base = presets.preset("tiny-64")
    told = Told()
    assert choose_precision(base, CPU, told, lambda _: True).train.precision == "bfloat16"
    assert told.notes == told.warnings == []
    assert choose_precision(base, CPU, told, lambda _: False).train.precision == "float32"
    assert len(told.notes) == 1 and "float32 instead" in told.notes[0] and told.warnings == []


def test_bfloat16_asked_for_is_obeyed_with_a_warning() -> None:
    asked = replace(presets.preset("digits"), {"train.precision": "bfloat16"})
    told = Told()
    assert choose_precision(asked, CPU, told, lambda _: False).train.precision == "bfloat16"
    assert len(told.warnings) == 1 and "--precision float32" in told.warnings[0]
    assert choose_precision(asked, CPU, Told(), lambda _: True) == asked


def test_an_older_processor_is_played_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_ENGINE", "avx2")
    native.multiplies_bfloat16.cache_clear()
    try:
        assert choose_precision(presets.preset("tiny-64"), CPU, Told()).train.precision == "float32"
    finally:
        native.multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize("name", [*presets.names(), "fine-tune", "torchvision:resnet18"])
def test_presets_for_photographs_ask_for_them(name: str) -> None:
    config = presets.preset(name)
    assert config.data.source == ("digits" if name == "digits" else "")
    if name != "digits":
        with pytest.raises(UsageError, match=f"preset {name} .*--data"):
            open_run_data(config)


def split(name: str, counts: list[int]) -> ArraySplit:
    """Grey pictures, so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return ArraySplit(name, np.full((len(labels), 16, 16, 3), 128, np.uint8), labels, [str(i) for i in labels])


def run_data(counts: list[int], **changes: str) -> RunData:
    """A source with so many training images of each class."""
    names = tuple(f"class{i}" for i in range(len(counts)))
    source = Source("pictures", names, {"train": split("train", counts), "val": split("val", [2] * len(counts))})
    config = replace(presets.preset("digits"), {"data.source": "pictures"} | changes)
    return open_run_data(config, source)


def test_the_first_line_says_what_is_trained_on() -> None:
    data = run_data([30, 40])
    assert data.summary_line() == (
        "pictures: 70 training images, 4 for validation, of 2 classes; 3 steps of 32 images per epoch"
    )
    assert (data.majority, data.class_counts.tolist(), data.describe()["majority"]) == (1, [30, 40], "class1")


def test_few_pictures_are_pointed_to_weights_that_have_seen_more() -> None:
    said = []
    for counts in ([50, 50], [1500, 1500]):
        told = Told()
        fitted(run_data(counts), CPU, told)
        said.append(any("--preset fine-tune --init MODEL" in words for words in told.notes))
    assert said == [True, False]


def test_few_steps_and_unequal_classes_are_named() -> None:
    few = advice(run_data([50, 50], **{"train.epochs": "2"}))
    assert any("few steps per epoch, 4, and 8 in all" in words for words in few)
    assert not any("few steps" in words for words in advice(run_data([1500, 1500])))
    unequal = advice(run_data([1500, 1500, 150]))
    assert len(unequal) == 1
    assert "1,500 images of 'class0' and 150 of 'class2'" in unequal[0]


def test_a_run_keeps_what_it_adapted_and_goes_on_with_it(seven: Path, tmp_path: Path) -> None:
    config = replace(
        presets.preset("digits"),
        {"data.source": str(seven), "train.steps": "5", "train.threads": "1", "data.workers": "1"},
    )
    told = Told()
    train(config, tmp_path / "run", told)
    assert told.notes[0].startswith(
        f"{seven}: 56 training images, 21 for validation, 28 for the test, of 7 classes; 7 "
    )
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["train"]["batch_size"] == 8 and written["train"]["epochs"] >= LEAST_STEPS / 7
    told = Told()
    resume(tmp_path / "run", told)
    assert not any("adapted" in words for words in told.notes)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == written
