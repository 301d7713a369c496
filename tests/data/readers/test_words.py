"""Words beside wnids: found in the lists that data sets come with, whatever lies there, and kept with what is made."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import alexnet
from alexnet import cli
from alexnet.data.readers.open import open_source
from alexnet.data.readers.words import LONGEST, MAX_BYTES, checked_words
from alexnet.data.store.prepare import prepare
from alexnet.formats.export import Facts, export, import_model
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor

WNIDS = ("n02085936", "n02123045", "n07753592")
WORDS = ("Maltese dog, Maltese terrier, Maltese", "tabby, tabby cat", "banana")


@pytest.fixture
def folder(pictures: Callable[..., Path], tmp_path: Path) -> Path:
    return pictures(tmp_path / "set", {"train": 6, "val": 2}, WNIDS)


def lines(separator: str) -> str:
    rows = [*zip(WNIDS, WORDS, strict=True), ("n01440764", "tench")]
    return "".join(f"{name}{separator}{words}\n" for name, words in rows)


@pytest.mark.parametrize(("name", "separator"), [("words.txt", "\t"), ("LOC_synset_mapping.txt", " ")])
@pytest.mark.parametrize("above", [False, True])
def test_both_lists_are_found_beside_the_images_and_one_level_above(
    name: str, separator: str, above: bool, folder: Path
) -> None:
    (folder / name).write_text(lines(separator))
    source = open_source(folder / "train" if above else folder)
    assert (source.classes, source.words) == (WNIDS, WORDS)
    assert source.rotated().words == WORDS


def test_classes_that_the_list_lacks_have_none_and_without_any_there_are_no_words(folder: Path) -> None:
    assert open_source(folder).words is None
    (folder / "words.txt").write_text("n01440764\ttench\n")
    assert open_source(folder).words is None
    (folder / "words.txt").write_text("n07753592\tbanana\r\nn02123045\tcat\r\n")
    assert open_source(folder).words == ("", "cat", "banana")


def test_folders_of_other_names_are_not_looked_up(pictures: Callable[..., Path], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set", {"": 4}, ("ant", "bee"))
    (folder / "words.txt").write_text("ant\tan insect\nn02123045\tcat\n")
    assert open_source(folder).words is None


def test_the_devkit_tells_the_words(ilsvrc: Callable[..., Path]) -> None:
    source = open_source(ilsvrc())
    assert source.words and len(source.words) == len(source.classes)
    for title, words in zip(source.classes, source.words, strict=True):
        assert title == f"{title[:9]} {words.split(',')[0]}".strip()
    assert any("," in words for words in source.words)


def test_a_hostile_list_is_cut_or_left(folder: Path) -> None:
    path = folder / "words.txt"
    path.write_bytes(
        b"n02085936\t" + b"w" * 5000 + b"\nn02123045\t\x1b[2J\xff\xe2\x80\xaetabby\x00\n" + b"n07753592\t\n"
    )
    long, odd, empty = open_source(folder).words or ("",) * 3
    assert long == "w" * LONGEST and odd.isprintable() and odd.endswith("tabby") and empty == ""
    path.write_bytes(b"n02085936\tdog\n" + b"\n" * MAX_BYTES)
    assert open_source(folder).words is None
    path.unlink()
    os.mkfifo(path)
    assert open_source(folder).words is None  # at once
    path.unlink()
    path.mkdir()
    assert open_source(folder).words is None


@pytest.mark.parametrize("words", [None, 3, "abc", ["a"], ["a", "b", 3], ["", "", ""], {"a": 1, "b": 2, "c": 3}])
def test_words_of_another_kind_are_none(words: object) -> None:
    assert checked_words(words, 3) is None


def test_words_are_kept_with_a_store_and_with_what_is_made_of_it(folder: Path, tmp_path: Path) -> None:
    (folder / "words.txt").write_text(lines("\t"))
    prepare(folder, tmp_path / "store", size=16)
    assert open_source(tmp_path / "store").words == WORDS
    prepare(tmp_path / "store", tmp_path / "again", size=16, codec="jpeg")
    (tmp_path / "store" / "words.txt").unlink()
    assert open_source(tmp_path / "again").words == WORDS
    assert cli.main(["data", "verify", str(tmp_path / "again")]) == 0


@pytest.fixture
def run(folder: Path, short: Callable[..., object], tmp_path: Path) -> Path:
    """A run on images that come with their words."""
    (folder / "words.txt").write_text(lines("\t"))
    alexnet.train(short(folder, train__steps="1"), tmp_path / "run")  # type: ignore[arg-type]
    (folder / "words.txt").unlink()
    return tmp_path / "run"


def test_predictions_say_the_words(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((run / "source.json").read_text())["words"] == list(WORDS)
    net = load(run)
    assert isinstance(net, NetworkPredictor) and net.words == WORDS
    picture = next((folder / "val" / WNIDS[0]).iterdir())
    (found,) = net.predict(picture, top=3)
    assert dict(zip(found.labels, found.words, strict=True)) == dict(zip(WNIDS, WORDS, strict=True))
    assert load(run, run).predict(picture)[0].words == found.words
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(picture)]) == 0
    said = capsys.readouterr().out
    assert all(f"%  {name} {words}\n" in said for name, words in zip(WNIDS, WORDS, strict=True))
    assert cli.main(["predict", str(run), str(picture), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["predictions"]
    assert {label["label"]: label["words"] for label in entry["labels"]} == dict(zip(WNIDS, WORDS, strict=True))


def test_an_exported_model_says_the_words(run: Path, tmp_path: Path) -> None:
    net = load(run)
    assert isinstance(net, NetworkPredictor)
    path = export(
        net.trained.network, net.trained.weights, "safetensors", tmp_path / "net.safetensors", net.trained.facts()
    )
    assert load(path).words == WORDS
    odd = dataclasses.replace(net.trained.facts(), words=("a", "b"))  # of another count: none
    export(net.trained.network, net.trained.weights, "safetensors", path, odd)
    assert load(path).words is None
    assert import_model(path)[2].words == ("a", "b")


@pytest.mark.parametrize("words", [None, ["a"], "dog", [1, 2, 3], 5])
def test_a_run_with_other_words_or_none_still_predicts(words: object, run: Path) -> None:
    described = json.loads((run / "source.json").read_text())
    (run / "source.json").write_text(json.dumps({**described, "words": words}))
    (found,) = load(run).predict(np.zeros((20, 20, 3), np.uint8))
    assert found.words == () and "words" not in found.to_json()["labels"][0]


def test_a_label_with_a_word_of_its_own_is_not_said_twice() -> None:
    from alexnet.commands.predict import say

    labels = [{"label": "n02085936 Maltese dog", "probability": 0.83, "words": WORDS[0]}]
    assert say({"predictions": [{"image": "a.jpg", "labels": labels}]}).endswith(f" 83.00%  n02085936 {WORDS[0]}")


def test_facts_without_words_are_as_before() -> None:
    assert Facts().to_json()["words"] == []
