"""Describing sources and stores, also as JSON."""

import json

import pytest

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


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
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
