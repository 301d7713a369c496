"""Describing sources and stores, as JSON and as a contact sheet."""

import json

import numpy as np
import pytest
from PIL import Image

from alexnet.data.store.info import info
from alexnet.data.store.prepare import prepare


def test_a_source_is_counted_and_measured(class_folders):
    root = class_folders({"cat": 5, "dog": 3}, "train")
    class_folders({"cat": 1}, "test", root)
    told = info(root)
    assert json.loads(json.dumps(told)) == told
    assert told["kind"] == "source" and told["class_names"] == ["cat", "dog"] and told["classes"] == 2
    assert told["splits"]["train"]["count"] == 8
    assert told["splits"]["train"]["per_class"] == {"min": 3, "median": 4.0, "max": 5}
    assert told["splits"]["train"]["height"] == {"min": 36, "median": 40.5, "max": 48}
    assert told["splits"]["test"]["per_class"]["min"] == 0


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_store_tells_its_bytes_sizes_and_statistics(class_folders, tmp_path, codec):
    root = class_folders({"cat": 5, "dog": 3})
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    prepare(root, tmp_path / "store", size=16, codec=codec)
    told = info(tmp_path / "store")
    assert json.loads(json.dumps(told)) == told
    assert told["kind"] == "store" and told["codec"] == codec and told["size"] == 16 and told["unreadable"] == 1
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "store" / "train").glob("00000.*"))
    assert told["splits"]["train"]["height"] == {"min": 36, "median": 40.5, "max": 48}
    assert told["statistics"]["count"] == 8 and len(told["statistics"]["eigenvalues"]) == 3


def test_the_contact_sheet_shows_every_class_first(tmp_path):
    told = info("digits", contact_sheet=tmp_path / "deep" / "sheet.png", tiles=10)
    sheet = np.asarray(Image.open(told["contact_sheet"]))
    assert sheet.shape[1] == 8 * 120 + 8 and sheet.shape[0] == 2 * 136 + 8
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sheet.png"]
    tiles = {sheet[8 + 136 * (k // 8) :, 8 + 120 * (k % 8) :][:112, :112].tobytes() for k in range(10)}
    assert len(tiles) == 10


def test_unreadable_images_are_passed_over_on_the_sheet(class_folders, tmp_path):
    root = class_folders({"cat": 2, "dog": 2})
    (root / "cat" / "000.jpg").write_bytes(b"no image")
    info(root, contact_sheet=tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (3 * 120 + 8, 136 + 8)
