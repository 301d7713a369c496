"""Describing sources and stores, also as JSON."""

import json

import pytest
from PIL import Image

from alexnet.data.store.info import info
from alexnet.data.store.prepare import prepare


def test_a_source_is_counted_and_measured(class_folders):
    root = class_folders({"cat": 5, "dog": 3}, "train")
    class_folders({"cat": 1}, "test", root)
    described = info(root)
    told = described.to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["kind"] == "source" and told["class_names"] == ["cat", "dog"] and told["classes"] == 2
    assert told["splits"]["train"]["count"] == described.splits["train"].count == 8
    assert told["splits"]["train"]["per_class"] == {"min": 3, "median": 4.0, "max": 5}
    assert told["splits"]["train"]["height"] == {"min": 36, "median": 40.5, "max": 48}
    assert told["splits"]["test"]["per_class"]["min"] == 0


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_a_store_tells_its_bytes_sizes_and_statistics(class_folders, tmp_path, codec):
    root = class_folders({"cat": 5, "dog": 3})
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    prepare(root, tmp_path / "store", size=16, codec=codec)
    told = info(tmp_path / "store").to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["kind"] == "store" and told["codec"] == codec and told["size"] == 16 and told["unreadable"] == 1
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "store" / "train").glob("00000.*"))
    assert told["splits"]["train"]["height"] == {"min": 36, "median": 40.5, "max": 48}
    assert told["statistics"]["count"] == 8 and len(told["statistics"]["eigenvalues"]) == 3


def test_the_largest_class_and_the_kinds_of_files_are_told(class_folders, photo):
    root = class_folders({"cat": 6, "dog": 3})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(1)).save(root / "cat" / "turned.jpg", exif=exif)
    Image.fromarray(photo(2)).save(root / "dog" / "other.png")
    (root / "dog" / "broken.jpg").write_bytes(b"no image")
    train = info(root).splits["train"]
    assert (train.smallest.name, train.smallest.count) == ("dog", 5)
    assert (train.largest.name, train.largest.count) == ("cat", 7)
    assert train.majority == pytest.approx(100 * 7 / 12)
    assert train.formats == {"JPEG": 10, "PNG": 1}
    assert train.turned == 1 and train.unread == 1 and train.sampled == 11


def test_a_store_whose_list_of_files_is_damaged_is_still_described(class_folders, tmp_path):
    prepare(class_folders({"cat": 5, "dog": 3}), tmp_path / "store", size=16)
    (tmp_path / "store" / "train" / "files.parquet").write_bytes(b"PAR1")
    train = info(tmp_path / "store").splits["train"]
    assert train.count == 8 and train.sampled == 0 and train.height is None
