"""Folders, Parquet, digits and names: what is found, and one clear line for what is wrong."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alexnet.data.dataset import hold_out, too_many_unreadable
from alexnet.data.readers.open import open_source
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError, UnreadableImage


def test_digits_are_split_the_same_way_every_time_and_by_class():
    first, second = open_source("digits"), open_source("digits")
    assert first.classes == tuple("0123456789")
    assert {name: len(split) for name, split in first.splits.items()} == {"train": 1442, "test": 355}
    assert first.splits["test"].image_name(0) == second.splits["test"].image_name(0)
    keys = {split.image_name(i) for split in first.splits.values() for i in range(len(split))}
    assert len(keys) == 1797
    for split in first.splits.values():
        assert np.bincount(split.labels).min() > 0.95 * len(split) / 10


def test_digits_are_grey_squares_from_0_to_255_and_have_files():
    split = open_source("digits").splits["train"]
    pixels = split.decode(0)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8 and split.images.max() == 255
    assert (pixels[..., 0] == pixels[..., 2]).all() and split.read_bytes(0)[:4] == b"\x89PNG"


def test_a_folder_of_class_folders_is_one_train_split(class_folders):
    source = open_source(class_folders({"dog": 2, "cat": 3}))
    assert source.classes == ("cat", "dog") and list(source.splits) == ["train"]
    split = source.splits["train"]
    assert split.labels.tolist() == [0, 0, 0, 1, 1] and split.labels.dtype == np.int64
    assert split.image_name(3) == os.path.join("dog", "000.jpg") and split.decode(3).shape[2] == 3
    assert split.read_bytes(3)[:2] == b"\xff\xd8"


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders_are_found_under_their_usual_names(class_folders, val):
    root = class_folders({"cat": 3, "dog": 3}, "train")
    class_folders({"dog": 1}, val, root)
    class_folders({"cat": 2, "dog": 1}, "test", root)
    source = open_source(root)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 6, "val": 1, "test": 3}
    assert source.splits["val"].labels.tolist() == [1]


def test_a_class_may_be_called_train(class_folders):
    source = open_source(class_folders({"car": 2, "train": 2}))
    assert source.classes == ("car", "train") and list(source.splits) == ["train"]


def test_hidden_files_and_lists_are_no_images_but_anything_else_is_tried(class_folders):
    root = class_folders({"cat": 2, "dog": 2})
    for name in (".DS_Store", "labels.txt", "boxes.json", "a.csv"):
        (root / "cat" / name).write_text("x")
    (root / "cat" / "picture").write_text("not a picture")
    split = open_source(root).splits["train"]
    assert len(split) == 5
    with pytest.raises(UnreadableImage):
        split.decode(2)


def test_images_in_folders_within_class_folders_belong_to_the_class(class_folders, photo, encoded):
    root = class_folders({"cat": 1, "dog": 1})
    (root / "dog" / "more").mkdir()
    (root / "dog" / "more" / "x.jpg").write_bytes(encoded(photo(1)))
    assert open_source(root).splits["train"].labels.tolist() == [0, 1, 1]


def test_a_pipe_among_the_images_blocks_nobody(class_folders):
    root = class_folders({"cat": 1, "dog": 1})
    os.mkfifo(root / "dog" / "pipe.jpg")
    split = open_source(root).splits["train"]
    with pytest.raises(UnreadableImage, match="regular"):
        split.decode(2)


def expect_error(spec, *words):
    with pytest.raises(DataError) as caught:
        open_source(spec)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_missing_folder_is_named(tmp_path):
    expect_error(str(tmp_path / "nowhere"), "nowhere", "no such folder")


def test_a_misspelt_name_gets_the_nearest():
    expect_error("digit", "digits")
    expect_error("cifar-10", "cifar10")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"x")
    expect_error(str(tmp_path / "x.bin"), "x.bin", "file")


def test_an_empty_folder_is_explained(tmp_path):
    expect_error(str(tmp_path), "no class folders")


def test_one_class_is_too_few(class_folders):
    expect_error(class_folders({"cat": 3}), "cat", "at least two")


def test_an_empty_class_folder_is_named(class_folders):
    root = class_folders({"cat": 1, "dog": 1})
    (root / "emu").mkdir()
    expect_error(root, "class folder 'emu' holds no pictures; put pictures in, or remove")
    for name in ("fox", "gnu", "hen"):
        (root / name).mkdir()
    (root / "fox" / "list.txt").write_text("no picture")
    expect_error(root, "class folders 'emu', 'fox', 'gnu' and 1 more hold no pictures")


def test_an_empty_class_folder_is_an_error_in_train_alone(class_folders):
    root = class_folders({"cat": 2, "dog": 2, "emu": 2}, "train")
    for split in ("val", "test"):
        class_folders({"cat": 1, "dog": 1}, split, root)
        (root / split / "emu").mkdir()
        (root / split / "notes").mkdir()
    assert [len(split) for split in open_source(root).splits.values()] == [6, 2, 2]
    (root / "train" / ".notes").mkdir()
    assert open_source(root).classes == ("cat", "dog", "emu")
    (root / "train" / "notes").mkdir()
    expect_error(root, "class folder 'notes' holds no pictures")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named(class_folders, split):
    root = class_folders({"cat": 2, "dog": 2}, "train")
    class_folders({"emu": 1}, split, root)
    expect_error(root, "emu", split, "not in train")


def test_a_split_without_images_is_named(class_folders):
    root = class_folders({"cat": 2, "dog": 2}, "train")
    (root / "val" / "cat").mkdir(parents=True)
    expect_error(root, "val", "no images")


def write_parquet(path, images, labels, names=None, column="label"):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)]
    schema = pa.schema([("image", kind), (column, pa.int64())])
    if names:
        features = {"image": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": rows, column: labels}, schema=schema), path, row_group_size=3)


@pytest.mark.parametrize("folder", ["", "data"])
def test_parquet_shards_are_read_in_order_with_their_names(tmp_path, photo, encoded, folder):
    images = [encoded(photo(i)) for i in range(10)]
    write_parquet(tmp_path / folder / "train-00000-of-00002.parquet", images[:5], [0, 1, 0, 1, 1], ["cat", "dog"])
    write_parquet(tmp_path / folder / "train-00001-of-00002.parquet", images[5:8], [1, 0, 0], ["cat", "dog"])
    write_parquet(tmp_path / folder / "validation-00000-of-00001.parquet", images[8:], [1, 1], ["cat", "dog"])
    source = open_source(tmp_path)
    assert source.classes == ("cat", "dog") and list(source.splits) == ["train", "val"]
    train = source.splits["train"]
    assert train.labels.tolist() == [0, 1, 0, 1, 1, 1, 0, 0]
    assert [train.read_bytes(i) for i in range(8)] == images[:8]
    assert train.image_name(6) == "1.jpg"


def test_parquet_without_names_has_numbers_for_names(tmp_path, photo, encoded):
    write_parquet(tmp_path / "train.parquet", [encoded(photo(i)) for i in range(3)], [2, 0, 1], column="fine_label")
    assert open_source(tmp_path).classes == ("0", "1", "2")


def test_parquet_rows_are_the_same_whatever_stays_in_memory(tmp_path, photo, encoded, monkeypatch):
    images = [encoded(photo(i)) for i in range(9)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1] * 4 + [0])
    monkeypatch.setattr("alexnet.data.readers.parquet.RESIDENT_BYTES", 1)
    split = open_source(tmp_path).splits["train"]
    assert [split.read_bytes(i) for i in (8, 0, 5, 1, 8)] == [images[i] for i in (8, 0, 5, 1, 8)]


def test_parquet_that_is_none_is_named(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 it is not")
    expect_error(tmp_path, "train-0.parquet", "Parquet")


def test_parquet_without_labels_says_what_it_has(tmp_path, photo, encoded):
    write_parquet(tmp_path / "train-0.parquet", [encoded(photo(0))], [0], column="caption")
    expect_error(tmp_path, "no label column", "caption")


def test_parquet_with_a_label_too_high_names_it(tmp_path, photo, encoded):
    write_parquet(tmp_path / "train-0.parquet", [encoded(photo(i)) for i in range(3)], [0, 1, 7], ["cat", "dog"])
    expect_error(tmp_path, "label 7", "0 to 1")


def test_parquet_whose_splits_order_their_classes_differently_is_refused(tmp_path, photo, encoded):
    images = [encoded(photo(i)) for i in range(2)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "test-0.parquet", images, [0, 1], ["dog", "cat"])
    expect_error(tmp_path, "test-0.parquet", "order")


def test_a_test_class_missing_from_train_is_named_in_parquet_too(tmp_path, photo, encoded):
    images = [encoded(photo(i)) for i in range(2)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1], ["cat", "dog", "emu"])
    write_parquet(tmp_path / "test-0.parquet", images, [0, 2], ["cat", "dog", "emu"])
    expect_error(tmp_path, "emu", "test", "not in train")


def test_cifar10_is_read_with_its_names(cifar10):
    source = open_source(cifar10)
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 50_000, "test": 10_000}
    assert source.splits["test"].decode(9_999).shape == (32, 32, 3)


def test_holding_out_is_stratified_a_partition_and_repeatable():
    split = open_source("digits").splits["train"]
    rest, held = hold_out(split, 0.1, seed=7)
    assert rest.name == "train" and held.name == "val"
    keys = [part.image_name(i) for part in (rest, held) for i in range(len(part))]
    assert sorted(keys) == sorted(split.image_name(i) for i in range(len(split)))
    share = np.bincount(held.labels) / np.bincount(split.labels)
    assert (np.abs(share - 0.1) < 0.006).all()
    again = hold_out(split, 0.1, seed=7)[1]
    assert [again.image_name(i) for i in range(len(again))] == [held.image_name(i) for i in range(len(held))]
    other = hold_out(split, 0.1, seed=8)[1]
    assert [other.image_name(i) for i in range(len(other))] != [held.image_name(i) for i in range(len(held))]
    assert (held.decode(3) == split.decode(int(held.positions[3]))).all()


def test_a_class_of_one_image_keeps_it(class_folders):
    rest, held = hold_out(open_source(class_folders({"cat": 1, "dog": 2, "emu": 3})).splits["train"], 0.9, seed=0)
    assert np.bincount(rest.labels).tolist() == [1, 1, 1] and np.bincount(held.labels).tolist() == [0, 1, 2]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_senseless_fraction_is_refused(fraction):
    with pytest.raises(DataError, match="between 0 and 1"):
        hold_out(open_source("digits").splits["train"], fraction, seed=0)


@pytest.mark.parametrize("name", [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "#recycle", "lost+found"])
def test_a_folder_that_is_not_the_users_is_no_class(class_folders, name):
    root = class_folders({"cat": 2, "dog": 2, name: 1})
    class_folders({name: 1}, "cat", root)
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "cat" / "._000.jpg").write_bytes(b"x")
    source = open_source(root)
    assert source.classes == ("cat", "dog") and len(source.splits["train"]) == 4 and source.notes == ()


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_an_unfinished_store_is_named_as_such(class_folders, tmp_path, codec):
    def stop(done, total):
        raise KeyboardInterrupt

    root = class_folders({"cat": 3, "dog": 3})
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "store", size=8, codec=codec, shard_images=2, progress=stop)
    expect_error(tmp_path / "store", "not finished", "alexnet data prepare")


def test_pictures_that_are_not_read_are_counted_and_left_out(class_folders):
    root = class_folders({"cat": 2, "dog": 2})
    for name in ("a.heic", "b.HEIC", "c.tif"):
        (root / "dog" / name).write_bytes(b"x")
    source = open_source(root)
    assert len(source.splits["train"]) == 4
    assert source.notes == ("2 .heic, 1 .tif files, which are not read (convert them to JPEG or PNG)",)
    assert source.rotated().notes == source.notes


def test_a_class_of_pictures_that_are_not_read_is_named(class_folders):
    root = class_folders({"cat": 2, "dog": 2})
    (root / "emu").mkdir()
    (root / "emu" / "a.avif").write_bytes(b"x")
    expect_error(root, "class folder 'emu' holds no pictures, only 1 .avif file, which is not read (convert it to")


def test_links_to_files_are_followed_and_loops_end(class_folders, tmp_path, photo, encoded):
    root = class_folders({"cat": 1, "dog": 1})
    (tmp_path / "outside.jpg").write_bytes(encoded(photo(1)))
    (root / "dog" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "dog" / "loop").symlink_to(root, target_is_directory=True)
    (root / "dog" / "self.jpg").symlink_to(root / "dog" / "self.jpg")
    (root / "gone").symlink_to(root / "gone", target_is_directory=True)
    source = open_source(root)
    split = source.splits["train"]
    assert source.classes == ("cat", "dog")
    assert [os.path.basename(split.image_name(i)) for i in range(len(split))] == [
        "000.jpg",
        "000.jpg",
        "link.jpg",
        "self.jpg",
    ]
    assert split.decode(2).shape == (40, 48, 3)
    with pytest.raises(UnreadableImage, match="symbolic links"):
        split.decode(3)


def test_names_that_are_not_utf8_are_read(class_folders, photo, encoded):
    root = class_folders({"cat": 1, os.fsdecode(b"d\xf6g"): 1})
    bad = root / os.fsdecode(b"d\xf6g") / os.fsdecode(b"\xff.jpg")
    bad.write_bytes(b"no image")
    split = open_source(root).splits["train"]
    assert len(split) == 3 and split.decode(1).ndim == 3
    bad.unlink()
    (root / os.fsdecode(b"d\xf6g") / "000.jpg").unlink()
    expect_error(root, "holds no pictures")


@pytest.mark.parametrize(
    "unreadable, total, too_many",
    [(0, 0, False), (0, 5, False), (1, 99, False), (20, 30, False), (21, 2100, False), (21, 2099, True), (5, 5, True)],
)
def test_too_many_are_more_than_twenty_and_one_percent_or_all(unreadable, total, too_many):
    assert too_many_unreadable(unreadable, total) is too_many
