"""The same training from a store of each codec, and the tables of what the codecs cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from alexnet import presets
from alexnet.data.readers.open import open_source
from benchmarks import records as speed
from benchmarks.codecs import CODECS, PEER, PREFIX
from benchmarks.records import Result, make_record
from experiments import codecs, real_images, table
from experiments.records import Errors, TrainingRun, load, save, summarize


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of this kind on digits, of two epochs from each codec."""
    monkeypatch.setattr(codecs, "PRESETS", ("digits",))
    monkeypatch.setattr(codecs, "NAMES", {"digits": {codec: f"digits-{codec}" for codec in real_images.CODECS}})
    for codec in real_images.CODECS:
        experiment = real_images.Experiment("digits", "digits", ("--epochs", "1"))
        monkeypatch.setitem(real_images.EXPERIMENTS, f"digits-{codec}", experiment)
    return "digits"


def test_a_store_of_each_codec_is_trained_from_and_recorded(small: str, tmp_path: Path) -> None:
    places = ["--stores", str(tmp_path / "stores"), "--runs", str(tmp_path / "runs")]
    codecs.main([small, "--data", "digits", *places, "--seeds", "4", "--records", str(tmp_path / "records")])
    for codec in ("raw", "yuv420", "jpeg"):
        record = load(f"digits-{codec}", tmp_path / "records")
        assert record is not None and [run.seed for run in record.runs] == [4] and record.runs[0].epochs == 1
        store = tmp_path / "stores" / f"digits-{codec}"
        assert f"--data {store} " in record.command
        assert len(open_source(store).splits["train"]) == 1442
    text = table.accuracy_table(tmp_path / "records")
    assert text.splitlines()[2].startswith("| `digits` | digits, test, 355 | 1 | ")


def test_every_preset_and_codec_is_an_experiment_of_its_own() -> None:
    for name, stores in codecs.NAMES.items():
        settings = [real_images.EXPERIMENTS[stores[codec]].settings for codec in ("raw", "yuv420", "jpeg")]
        assert settings[0] == settings[1] == settings[2]
        assert all(real_images.EXPERIMENTS[experiment].preset == name for experiment in stores.values())
        assert presets.preset(name).data.size == 32 if name == "cifar-26" else settings[0] == ("--epochs", "3")


def test_errors_stand_beside_those_from_raw_and_not_among_the_other_results(tmp_path: Path) -> None:
    known = load("tiny-64")
    assert known is not None
    for codec, errors in {"raw": (60.0, 62.0), "jpeg": (63.0, 65.0)}.items():
        runs = tuple(
            TrainingRun(seed, 3, 10, 1.0, False, 1, 100.0, None, (Errors(1, "val", 10_000, error, 30.0, 0.5),))
            for seed, error in enumerate(errors)
        )
        name = f"tiny-64-{codec}"
        save(dataclasses.replace(known, name=name, runs=runs, results=summarize(runs, (1,))), tmp_path)
    row = table.accuracy_table(tmp_path).splitlines()[2]
    assert row.endswith("| 3 | 61.00 % (60.00–62.00) | – | 64.00 % (63.00–65.00) | 2 |")
    assert "tiny-64" not in table.results_table(tmp_path)


def test_the_table_of_codecs_has_their_bytes_errors_and_times(tmp_path: Path) -> None:
    assert table.codec_tables(tmp_path) == "Not measured yet."
    results = [
        Result(PREFIX + name, 10.0 + at, "µs", also={"bytes": 1000.0 * at, "mean_error": at / 2}, ratio=2.0)
        for at, name in enumerate(CODECS)
    ]
    results += [Result("feed from a raw store", 5.0, "images/s")]
    speed.save(tmp_path, make_record("data", results))
    about, _, _, _, first, *others = table.codec_tables(tmp_path).splitlines()
    assert "thread" in about and first == "| yuv420 | 0.0 | 0.00 | 10 | 2 |"
    assert len(others) == len(CODECS) - 1 and any(line.startswith(f"| {PEER} |") for line in others)
    for text in (table.speed_tables(tmp_path), table.all_speed_tables(tmp_path)):
        assert "feed from a raw store" in text and PREFIX not in text


def test_the_short_tables_are_without_layers_and_parts(tmp_path: Path) -> None:
    results = [Result("conv1 of digits", 1.0, "ms", peers={"step": 3.0}), Result("peak memory, digits", 7.0, "MiB")]
    results += [Result("training step, digits", 2.0, "images/s", peers={"a": 4.0, "b": 8.0, "ours torch": 9.0})]
    speed.save(tmp_path, make_record("train", results))
    short, everything = table.speed_tables(tmp_path), table.all_speed_tables(tmp_path)
    assert "| training step, digits | 2 images/s | b 8 | 0.25 |  |" in short
    assert all(name in everything and name not in short for name in ("conv1 of digits", "peak memory, digits"))
    assert "layer by layer" in everything
