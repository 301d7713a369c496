"""Verifying: what is wrong is found and named, and what is right raises no alarm."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet.data.readers.ilsvrc import EDITIONS
from alexnet.data.readers.store_format import CODECS
from alexnet.data.store.checks import (
    CMYK,
    FileRecords,
    duplicates,
    known_odd_files,
    labels_against_names,
    validation_order,
)
from alexnet.data.store.prepare import prepare
from alexnet.data.store.verify import verify
from alexnet.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def errors(found):
    return [issue for issue in found if issue.level == "error"]


def test_nothing_is_said_of_a_good_source_and_its_store(class_folders, tmp_path):
    root = class_folders({"cat": 5, "dog": 4}, "train")
    class_folders({"cat": 2}, "val", root, seed=999)
    for codec in CODECS:
        prepare(root, tmp_path / codec, size=24, codec=codec)
    assert not any(verify(spec).issues for spec in (root, *(tmp_path / codec for codec in CODECS)))


def test_the_same_bytes_in_train_and_val_are_found(class_folders, tmp_path):
    root = class_folders({"cat": 5, "dog": 4}, "train")
    class_folders({"cat": 2, "dog": 2}, "val", root, seed=999)
    shutil.copy(root / "train" / "dog" / "002.jpg", root / "val" / "cat" / "001.jpg")
    prepare(root, tmp_path / "store", size=24)
    for spec in (root, tmp_path / "store"):
        (issue,) = verify(spec).issues
        assert issue.level == "error" and issue.where == "val"
        assert "1 file is also in train" in issue.message
        assert "val/cat/001.jpg = train/dog/002.jpg" in issue.message


def test_unread_files_are_not_each_others_duplicates():
    train = FileRecords("train", np.zeros(2, np.int64), ["a", "b"], [b"", b""])
    val = FileRecords("val", np.zeros(1, np.int64), ["c"], [b""])
    assert duplicates([train, val], ["cat", "dog"]) == []


def test_the_same_bytes_within_a_split_are_found(class_folders, tmp_path):
    root = class_folders({"cat": 5, "dog": 4})
    shutil.copy(root / "dog" / "002.jpg", root / "cat" / "wrong.jpg")
    for k in range(5):
        shutil.copy(root / "cat" / "003.jpg", root / "cat" / f"again{k}.jpg")
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    prepare(root, tmp_path / "store", size=24)
    for spec in (root, tmp_path / "store"):
        found = [issue for issue in verify(spec).issues if "byte for byte" in issue.message]
        assert [issue.level for issue in found] == ["error", "warning"]
        assert "1 file is also in another class" in found[0].message
        assert "dog/002.jpg in dog = cat/wrong.jpg in cat" in found[0].message
        assert "5 files are there twice" in found[1].message and found[1].message.count(" = ") == 3
        assert "again0.jpg" in found[1].message
    assert json.loads(json.dumps(verify(root).to_json()))["issues"][0]["level"] == "error"


def test_a_file_many_times_over_is_found_in_time_linear_in_the_files():
    count = 200_000
    hashes = [hashlib.sha256(bytes([k % 2])).digest() for k in range(count)]
    names = [str(k) for k in range(count)]
    halves = [
        FileRecords(name, np.arange(count // 2, dtype=np.int64) % 7, names[part], hashes[part])
        for name, part in (("train", slice(0, count // 2)), ("val", slice(count // 2, None)))
    ]
    found = duplicates(halves, [f"class {k}" for k in range(7)])
    assert {(issue.where, issue.level) for issue in found} >= {("train", "error"), ("val", "error")}
    assert all(len(issue.message) < 300 for issue in found)


def test_hashes_that_only_begin_alike_are_no_duplicates():
    first, second = b"12345678" + bytes(24), b"12345678" + bytes(23) + b"1"
    files = FileRecords("train", np.zeros(2, np.int64), ["a", "b"], [first, second])
    assert duplicates([files], ["cat", "dog"]) == []


def test_unreadable_and_odd_files_are_reported(class_folders, photo):
    root = class_folders({"cat": 5, "dog": 4})
    (root / "cat" / "zero.jpg").write_bytes(b"")
    Image.fromarray(photo(1)).convert("L").save(root / "dog" / "grey.jpg")
    Image.fromarray(photo(2)).save(root / "dog" / "really_png.jpg", "PNG")
    found = verify(root).issues
    assert [issue.level for issue in found] == ["warning", "note"]
    assert found[0].where == "cat/zero.jpg" and "empty" in found[0].message
    assert (
        "2 files are odd but read and used all the same" in found[1].message
        and "1 grey" in found[1].message
        and "1 PNG named JPEG" in found[1].message
    )


def test_too_many_unreadable_files_are_an_error(class_folders):
    root = class_folders({"cat": 5, "dog": 4})
    for k in range(20):
        (root / "cat" / f"bad{k}.jpg").write_bytes(b"no")
    assert not errors(verify(root).issues)
    (root / "cat" / "bad20.jpg").write_bytes(b"no")
    (issue,) = errors(found := verify(root).issues)
    assert issue.where == "train" and "21 of its 30 files are unreadable" in issue.message
    assert len([issue for issue in found if issue.message.startswith("unreadable: ")]) == 21


def wnid_folders(root, encoded, photo, swap=None):
    wnids = ["n01440764", "n02096294", "n02100735", "n02119789"]
    for k, wnid in enumerate(wnids):
        folder = root / (swap or {}).get(wnid, wnid)
        folder.mkdir(parents=True)
        for i in range(3):
            (folder / f"{wnid}_{i}.JPEG").write_bytes(encoded(photo(10 * k + i)))
    return root


def test_images_in_anothers_class_folder_are_a_wrong_order(tmp_path, encoded, photo):
    good = wnid_folders(tmp_path / "good", encoded, photo)
    assert verify(good).issues == ()
    bad = wnid_folders(tmp_path / "bad", encoded, photo, {"n01440764": "n02119789", "n02119789": "n01440764"})
    (issue,) = verify(bad).issues
    assert issue.level == "error" and "wrong order of classes" in issue.message
    assert "label 0 is called 'n01440764'" in issue.message and "'n02119789'" in issue.message
    assert "2 of 4 classes" in issue.message


def test_one_misfiled_image_is_a_warning(tmp_path, encoded, photo):
    root = wnid_folders(tmp_path / "good", encoded, photo)
    shutil.move(root / "n01440764" / "n01440764_1.JPEG", root / "n02096294" / "n01440764_1.JPEG")
    (issue,) = verify(root).issues
    assert issue.level == "warning" and "n01440764_1.JPEG" in issue.message


def test_labels_by_sorted_names_under_names_by_id_are_named_as_such(ilsvrc, tmp_path):
    prepare(ilsvrc(), tmp_path / "store", size=16)
    assert not [issue for issue in verify(tmp_path / "store").issues if "order" in issue.message]
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    by_id = manifest["classes"]
    rank = {title: k for k, title in enumerate(sorted(by_id))}
    labels = np.load(tmp_path / "store" / "train" / "labels.npy")
    names = ["n02119789_0.JPEG", "n02100735_0.JPEG", "n01440764_0.JPEG", "n02096294_0.JPEG"]
    found = labels_against_names(by_id, FileRecords("train", np.array([rank[title] for title in by_id]), names))
    assert "sorted order" in found[0].message
    manifest["classes"] = sorted(by_id)
    path.write_text(json.dumps(manifest))
    (issue,) = errors(verify(tmp_path / "store").issues)
    assert "wrong order of classes" in issue.message and len(labels) == 12


def test_a_store_of_plain_class_folders_whose_names_were_reordered_is_found(class_folders, tmp_path):
    prepare(class_folders({"cat": 3, "dog": 3, "emu": 3}), tmp_path / "store", size=16)
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["classes"] = ["dog", "cat", "emu"]
    path.write_text(json.dumps(manifest))
    (issue,) = errors(verify(tmp_path / "store").issues)
    assert "label 0 is called 'dog'" in issue.message and "'cat'" in issue.message


def test_the_known_first_validation_images_reveal_a_wrong_order():
    classes = [f"n{k:08d}" for k in range(1000)]
    classes[65], classes[970], classes[230] = "n01751748", "n09193705", "n02105855"
    names = [f"val/x/ILSVRC2012_val_0000000{k}.JPEG" for k in (1, 2, 3)]
    right = FileRecords("val", np.array([65, 970, 230]), names)
    assert validation_order(classes, right) == []
    (issue,) = validation_order(classes, FileRecords("val", np.array([489, 360, 170]), names))
    assert "wrong order" in issue.message and "n01751748" in issue.message
    assert validation_order(classes[:4], FileRecords("val", np.array([1, 2, 3]), names)) == []


def test_known_odd_files_are_met_and_handled(tmp_path, photo, encoded):
    root = tmp_path / "train"
    for stem, data in (
        ("n02105855_2933", encoded(photo(1), "PNG")),
        ("n02105855_1", encoded(photo(3))),
        ("n01739381_1309", None),
        ("n03062245_4620", encoded(photo(2))),
    ):
        path = root / stem.split("_")[0] / f"{stem}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            Image.new("CMYK", (40, 40), (0, 90, 90, 0)).save(path)
        else:
            path.write_bytes(data)
    prepare(root, tmp_path / "store", size=32)
    for spec in (root, tmp_path / "store"):
        told = {issue.where.rsplit("/")[-1]: issue for issue in verify(spec).issues if "known" in issue.message}
        assert told["n02105855_2933.JPEG"].level == told["n01739381_1309.JPEG"].level == "note"
        assert "CMYK" in told["n01739381_1309.JPEG"].message
        assert told["n03062245_4620.JPEG"].level == "warning" and len(told) == 3


def test_known_odd_files_that_were_not_read_are_errors():
    name = f"x/{CMYK[0]}.JPEG"
    found = known_odd_files(["a", "b"], FileRecords("train", np.zeros(1, np.int64), [name], [b""], {}, {name: "no"}))
    assert found[0].level == "error" and len(CMYK) == 22


def test_official_counts_and_md5_sums_are_compared(ilsvrc, monkeypatch):
    import dataclasses

    root = ilsvrc()
    found = errors(verify(root).issues)
    assert {issue.where for issue in found} == set(EDITIONS[0].md5) | {"ILSVRC2012_img_val.tar"}
    assert any("12 images where ILSVRC-2012 has 1281167" in issue.message for issue in found)
    assert any("officially 1d675b47d978889d74fa0da5fadfb00e" in issue.message for issue in found)
    sums = {name: hashlib.md5((root / name).read_bytes()).hexdigest() for name in EDITIONS[0].md5}
    small = dataclasses.replace(EDITIONS[0], counts={"train": 12, "val": 8}, md5=sums)
    monkeypatch.setattr("alexnet.data.readers.ilsvrc.EDITIONS", (small,))
    assert verify(root).issues == ()


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_a_flipped_bit_anywhere_in_a_store_is_found(class_folders, tmp_path, codec):
    root = class_folders({"cat": 5, "dog": 4})
    prepare(root, tmp_path / "store", size=24, codec=codec, shard_images=4)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != "manifest.json"]
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        found = errors(verify(tmp_path / "store").issues)
        assert [issue.where for issue in found] == [str(path.relative_to(tmp_path / "store"))]
        path.write_bytes(data)
    assert verify(tmp_path / "store").issues == ()


def test_a_missing_or_short_file_of_a_store_is_found(class_folders, tmp_path):
    prepare(class_folders({"cat": 5, "dog": 4}), tmp_path / "store", size=24, shard_images=4)
    (tmp_path / "store" / "train" / "00001.npy").unlink()
    with open(tmp_path / "store" / "train" / "00000.npy", "ab") as file:
        file.write(b"more")
    found = errors(verify(tmp_path / "store").issues)
    assert [issue.where for issue in found] == ["train/00000.npy", "train/00001.npy"]


def test_what_cannot_be_opened_at_all_is_refused(tmp_path):
    with pytest.raises(DataError):
        verify(tmp_path)


def test_progress_ends_at_the_total(class_folders, tmp_path):
    root, told = class_folders({"cat": 70, "dog": 30}), []
    verify(root, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (100, 100)
    prepare(root, tmp_path / "store", size=16)
    verify(tmp_path / "store", progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


@pytest.fixture
def store(class_folders, tmp_path):
    prepare(class_folders({"cat": 5, "dog": 4}), tmp_path / "store", size=24, codec="jpeg", shard_images=4)
    return tmp_path / "store"


def agreed(store, file):
    """Have the manifest tell the length and sha256 that a file has now."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    known = manifest["splits"]["train"]["files"].get(file) or manifest["files"][file]
    place = next(store.rglob(file))
    known.update(bytes=place.stat().st_size, sha256=hashlib.sha256(place.read_bytes()).hexdigest())
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("labels.npy", "label 7"),
        ("index.npy", "outside the shards"),
        ("files.parquet", "not a list"),
        ("statistics.npz", "does not hold statistics"),
    ],
)
def test_files_that_are_as_declared_but_cannot_be_right_are_named(store, file, message):
    path = next(store.rglob(file))
    if file == "labels.npy":
        np.save(path, np.full(9, 7))
    elif file == "index.npy":
        np.save(path, np.full((9, 2), 2**62))
    else:
        path.write_bytes(b"PAR1" * 5)
    agreed(store, file)
    assert message in errors(verify(store).issues)[0].message


@pytest.mark.parametrize("file", ["train/00001.tar", "train/files.parquet", "report.csv", "statistics.npz"])
@pytest.mark.parametrize("how", ["pipe", "folder", "link"])
def test_what_is_no_file_of_the_store_is_named(store, file, how, tmp_path):
    path = store / file
    path.rename(tmp_path / "moved")
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "moved")
    (issue,) = errors(verify(store).issues)
    assert issue.where == file
    assert ("leads out of the store" if how == "link" else "not a regular file") in issue.message
