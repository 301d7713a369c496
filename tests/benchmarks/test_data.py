"""Feeding, preparing and opening are measured, and the stores of holes that are opened are stores."""

from __future__ import annotations

import json
import subprocess
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data.readers.open import open_source
from alexnet.data.store.prepare import prepare
from alexnet.errors import UsageError
from benchmarks import codecs, data
from benchmarks.processes import child_environment, python
from benchmarks.records import Record
from benchmarks.registry import run


def test_feeding_and_preparing_are_measured(tmp_path: Path) -> None:
    for i in range(6):
        path = data.place(tmp_path / "images" / f"class{i % 2}" / f"{i}.jpg")
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (280, 300, 3), dtype=np.uint8)).save(path)
    words = [str(tmp_path / "images"), "--turns", "1", "--workers", "1", "--copies", "4", "--preset", "digits"]
    only = [word for kind in ("feed", "statistics", "waiting") for word in ("--only", kind)]
    # In a process of its own: worker processes forked beside other libraries' threads may crash.
    command = python("alexnet.cli", "bench", "data", *words, *only, "--records", "records", "--json")
    done = subprocess.run(command, cwd=tmp_path, env=child_environment(), check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    record = Record.from_json(json.loads((tmp_path / answer["path"]).read_text()))
    results = record.results
    assert [result.by for result in results[:3]] == ["JPEG store", "yuv420 store", "raw store"]
    assert results[0].peers["torchvision"] > 0 and results[0].reference_rate and results[0].reference_rate > 0
    assert [result.unit for result in results[3:]] == ["%", "%", "%", "%"]
    assert all(0 <= result.value <= 100 for result in results[4:])


def test_a_store_of_holes_opens_as_one_of_its_length(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(data.place(tmp_path / "images" / name / "image.png"))
    prepare(tmp_path / "images", tmp_path / "template", size=8, codec="raw")
    data.sparse_store(tmp_path / "template", tmp_path / "large", 1001, shard_images=100)
    split = open_source(tmp_path / "large").splits["train"]
    assert len(split) == 1001
    out = np.ones((8, 8, 3), np.uint8)
    split.crop_into(1000, 8, 0, 0, out)
    assert not out.any()


def test_opening_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "OPENED", (5000,))
    (result,) = data.opening(Namespace(turns=1), tmp_path)
    assert result.name == "open a store of 5,000 images" and 0 < result.value < 60
    assert result.also["megabytes_of_imports"] > 10


def test_every_codec_has_its_bytes_error_and_time(tmp_path: Path) -> None:
    for i in range(2):
        coarse = np.random.default_rng(i).integers(0, 256, (9, 10, 3), dtype=np.uint8)
        path = data.place(tmp_path / "images" / f"class{i}" / "image.png")
        Image.fromarray(coarse).resize((300, 280), Image.Resampling.BICUBIC).save(path)
    record = run("data", [str(tmp_path / "images"), "--turns", "1", "--only", "codecs"], keep=False).record
    yuv, raw, *jpegs = record.results
    assert [result.by for result in record.results] == list(codecs.CODECS)
    assert raw.also["mean_error"] == 0 and 0 < yuv.also["mean_error"] < jpegs[-1].also["mean_error"] + 2
    assert raw.also["bytes"] > 1.9 * yuv.also["bytes"] > jpegs[-1].also["bytes"] > jpegs[0].also["bytes"]
    assert all(result.unit == "µs" and result.value > 0 for result in record.results)
    assert [result.ratio is None for result in record.results].index(True) == list(codecs.CODECS).index(codecs.PEER)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="should be a folder of class folders"):
        run("data", [str(tmp_path)], keep=False)
