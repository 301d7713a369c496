"""Tar shards: samples by name, labels from .cls or .json, and other people's way of writing them."""

import json
import os
import tarfile

import pytest

from alexnet.data.readers.open import open_source
from alexnet.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def samples(photo, encoded, labels, kind="cls", ending="jpg", prefix=""):
    files = {}
    for i, label in enumerate(labels):
        files[f"{prefix}{i:06d}.{ending}"] = encoded(photo(i))
        files[f"{prefix}{i:06d}.{kind}"] = (str(label) if kind == "cls" else json.dumps({"label": label})).encode()
    return files


@pytest.mark.parametrize("kind, ending, prefix", [("cls", "jpg", ""), ("json", "JPEG", ""), ("cls", "png", "a/b.c/")])
def test_samples_are_read_with_their_labels(tmp_path, make_tar, photo, encoded, kind, ending, prefix):
    root = tmp_path / "shards"
    root.mkdir()
    (root / "set-train-0000.tar").write_bytes(make_tar(samples(photo, encoded, [0, 1, 2], kind, ending, prefix)))
    (root / "set-train-0001.tar").write_bytes(make_tar(samples(photo, encoded, [2, 0], kind, ending, prefix)))
    (root / "set-validation-0000.tar").write_bytes(make_tar(samples(photo, encoded, [1], kind, ending, prefix)))
    (root / "classes.txt").write_text("cat\ndog\nemu\n")
    source = open_source(root)
    assert source.classes == ("cat", "dog", "emu") and set(source.splits) == {"train", "val"}
    train = source.splits["train"]
    assert train.labels.tolist() == [0, 1, 2, 2, 0]
    assert train.read_bytes(4) == encoded(photo(1)) and train.image_name(4) == f"{prefix}000001.{ending}"


def test_one_tar_or_split_folders_do_as_well(tmp_path, make_tar, photo, encoded):
    data = make_tar(samples(photo, encoded, [0, 1, 1]))
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "train" / "000.tar").write_bytes(data)
    (tmp_path / "test" / "000.tar").write_bytes(data)
    assert {name: len(split) for name, split in open_source(tmp_path).splits.items()} == {"train": 3, "test": 3}
    assert open_source(tmp_path / "train" / "000.tar").splits["train"].labels.tolist() == [0, 1, 1]


def test_samples_without_an_image_are_passed_over(tmp_path, make_tar, photo, encoded):
    files = samples(photo, encoded, [0, 1]) | {"readme.txt": b"hello", "000099.cls": b"1"}
    (tmp_path / "train-0.tar").write_bytes(make_tar(files))
    assert len(open_source(tmp_path).splits["train"]) == 2


@pytest.mark.parametrize(
    "files, word",
    [
        ({"1.jpg": b"x"}, "no label"),
        ({"1.jpg": b"x", "1.cls": b"cat"}, "whole number"),
        ({"1.jpg": b"x", "1.json": b"[]"}, "no label or cls: b'\\[\\]'"),
        ({"1.jpg": b"x", "1.json": b"[" * 100_000}, "sample '1': its .json is not JSON"),
        ({"1.jpg": b"x", "1.json": b'{"label": [[7]]}'}, "the label \\[\\[7\\]\\] is not a whole number"),
        ({"1.jpg": b"x", "1.json": b'{"label": Infinity}'}, "the label inf is not a whole number"),
        ({"1.jpg": b"x", "1.json": b'{"label": 3.7}'}, "the label 3.7 is not a whole number"),
        ({"1.jpg": b"x", "1.cls": b"50000000"}, "the label '50000000' is out of range"),
        ({"1.jpg": b"x", "1.cls": b"900000"}, "label 900000, and no names"),
        ({"a/1.jpg": b"x", "1.cls": b"0"}, "sample 'a/1' has an image but no label"),
    ],
)
def test_a_sample_without_a_usable_label_is_named(tmp_path, make_tar, files, word):
    (tmp_path / "train-0.tar").write_bytes(make_tar(files))
    with pytest.raises(DataError, match=word):
        open_source(tmp_path)


def test_a_store_of_jpegs_is_webdataset_for_others(tmp_path):
    from alexnet.data.store.prepare import prepare

    prepare("digits", tmp_path / "store", size=16, codec="jpeg", shard_images=500)
    store = open_source(tmp_path / "store")
    shards = open_source(tmp_path / "store" / "train" / "00001.tar")
    assert shards.splits["train"].labels.tolist() == store.splits["train"].labels[500:1000].tolist()
    assert shards.splits["train"].read_bytes(7) == store.splits["train"].read_bytes(507)


@pytest.mark.parametrize(
    "text, words",
    [
        (b"cat\n\ndog\n", "class 1 must be a text"),
        (b"cat\ncat\n", "both called 'cat'"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 5000, "1000 characters"),
    ],
)
def test_a_list_of_classes_that_is_none_is_named(tmp_path, make_tar, text, words):
    (tmp_path / "train-0.tar").write_bytes(make_tar({"1.jpg": b"x", "1.cls": b"0"}))
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(DataError, match=words) as caught:
        open_source(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "classes.txt"))


@pytest.mark.parametrize("name", ["train-0.tar", "classes.txt"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path, make_tar, name):
    (tmp_path / "train-0.tar").write_bytes(make_tar({"1.jpg": b"x", "1.cls": b"0"}))
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: .*not a regular file"):
        open_source(tmp_path)


def test_a_file_that_is_there_twice_is_named(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name in ("1.jpg", "1.cls", "1.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="holds '1.jpg' twice"):
        open_source(tmp_path)
