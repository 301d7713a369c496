"""The official archives: labels by the devkit's ids, read without unpacking."""

import gzip
import os
import zlib

import numpy as np
import pytest

from alexnet.data.readers import tar_index as tars
from alexnet.data.readers.open import open_source
from alexnet.errors import DataError
from tests.data.conftest import meta_mat

# By ILSVRC id: id 1 is label 0, and so on; the ids are not in the order of the wnids.
CLASSES = ("n02119789 kit fox", "n02100735 English setter", "n01440764 tench", "n02096294 Australian terrier")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("year", [2012, 2010])
def test_labels_follow_the_ids_of_meta_mat(ilsvrc, photo, encoded, year):
    source = open_source(ilsvrc(year))
    assert source.classes == CLASSES
    train = source.splits["train"]
    assert len(train) == 12
    for i in range(12):
        wnid = train.image_name(i).split("_")[0]
        assert source.classes[train.labels[i]].startswith(wnid)
    # The picture of id 3 (tench), number 1, is the one made from seed 301.
    at = [train.image_name(i) for i in range(12)].index("n01440764_1.JPEG")
    assert train.labels[at] == 2 and train.read_bytes(at) == encoded(photo(301))


@pytest.mark.parametrize("year, split, base", [(2012, "val", 5000), (2010, "val", 5000), (2010, "test", 6000)])
def test_ground_truth_follows_the_sorted_file_names_not_the_order_in_the_tar(ilsvrc, photo, encoded, year, split, base):
    truth = (3, 1, 4, 2, 2, 3, 1, 4)
    found = open_source(ilsvrc(year, truth)).splits[split]
    assert found.labels.tolist() == [number - 1 for number in truth]
    for i, number in enumerate(truth):
        assert found.image_name(i) == f"ILSVRC{year}_{split}_{i + 1:08d}.JPEG"
        assert found.read_bytes(i) == encoded(photo(base + 100 * number + i))


def test_nothing_is_unpacked(ilsvrc):
    root = ilsvrc()
    before = sorted(path.name for path in root.rglob("*"))
    for split in open_source(root).splits.values():
        for i in range(len(split)):
            split.decode(i)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_an_unpacked_devkit_serves_as_well(ilsvrc):
    import tarfile

    root = ilsvrc()
    kit = root / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit) as archive:
        archive.extractall(root, filter="data")
    kit.unlink()
    assert open_source(root).classes == CLASSES


def test_a_split_whose_tar_is_absent_is_not_there(ilsvrc):
    root = ilsvrc()
    (root / "ILSVRC2012_img_train.tar").unlink()
    assert list(open_source(root).splits) == ["val"]


def expect_error(root, *words):
    with pytest.raises(DataError) as caught:
        open_source(root)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_missing_devkit_is_asked_for(ilsvrc):
    root = ilsvrc()
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    expect_error(root, "meta.mat is missing", "ILSVRC2012_devkit_t12.tar.gz")


def test_a_damaged_devkit_is_named(ilsvrc):
    root = ilsvrc()
    kit = root / "ILSVRC2012_devkit_t12.tar.gz"
    kit.write_bytes(kit.read_bytes()[:300])
    expect_error(root, "ILSVRC2012_devkit_t12.tar.gz")


def test_too_few_lines_of_ground_truth_are_noticed(ilsvrc, make_tar):
    root = ilsvrc()
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n")
    expect_error(root, "8 images", "2 lines")


def test_an_id_that_meta_mat_lacks_is_named(ilsvrc):
    expect_error(ilsvrc(2012, (1, 2, 3, 4, 5)), "id 5", "1 to 4")


def test_a_category_that_meta_mat_lacks_is_named(ilsvrc, make_tar):
    root = ilsvrc()
    (root / "ILSVRC2012_img_train.tar").write_bytes(make_tar({"n09999999.tar": make_tar({"n09999999_1.JPEG": b"x"})}))
    expect_error(root, "n09999999", "not a category")


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("inside", [0, 100, 512, 700])
def test_a_tar_cut_short_anywhere_is_named(ilsvrc, name, inside):
    import tarfile

    root = ilsvrc()
    path = root / name
    with tarfile.open(path) as archive:
        third = archive.getmembers()[2]
    path.write_bytes(path.read_bytes()[: third.offset + inside])
    expect_error(root, name, "cut short")


def test_a_tar_that_is_none_is_named(ilsvrc):
    root = ilsvrc()
    (root / "ILSVRC2012_img_train.tar").write_bytes(b"<html>please log in</html>" * 100)
    expect_error(root, "ILSVRC2012_img_train.tar", "tar")


def test_synset_tars_make_any_number_of_classes(tmp_path, make_tar, photo, encoded):
    root = tmp_path / "fall"
    root.mkdir()
    for k, wnid in enumerate(["n00000003", "n00000001", "n00000002"]):
        (root / f"{wnid}.tar").write_bytes(make_tar({f"{wnid}_{i}.JPEG": encoded(photo(10 * k + i)) for i in range(2)}))
    source = open_source(root)
    assert source.classes == ("n00000001", "n00000002", "n00000003")
    train = source.splits["train"]
    assert [(train.image_name(i).split("_")[0], int(train.labels[i])) for i in range(0, 6, 2)] == [
        ("n00000001", 0),
        ("n00000002", 1),
        ("n00000003", 2),
    ]
    assert train.read_bytes(1) == encoded(photo(11))
    inner = {f"{path.stem}.tar": path.read_bytes() for path in sorted(root.iterdir())}
    (tmp_path / "whole.tar").write_bytes(make_tar(inner))
    whole = open_source(tmp_path / "whole.tar")
    assert whole.classes == source.classes and whole.splits["train"].read_bytes(1) == train.read_bytes(1)


def test_an_empty_synset_tar_is_named(tmp_path, make_tar):
    (tmp_path / "n00000001.tar").write_bytes(make_tar({"n00000001_1.JPEG": b"x"}))
    (tmp_path / "n00000002.tar").write_bytes(make_tar({}))
    expect_error(tmp_path, "n00000002.tar", "no images")


def test_names_that_climb_out_of_an_archive_stay_names(tmp_path, make_tar, photo, encoded):
    for k, wnid in enumerate(["n00000001", "n00000002"]):
        names = ["../../../escaped.JPEG", "/etc/escaped.JPEG"]
        data = make_tar({name: encoded(photo(k)) for name in names})
        (tmp_path / f"{wnid}.tar").write_bytes(data)
    from alexnet.data.store.prepare import prepare

    out = tmp_path / "deep" / "store"
    prepare(str(tmp_path), out, size=16)
    assert not list(tmp_path.rglob("escaped*"))
    # In the cache may lie the engine, where this is the first test that needs it.
    files = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "cache" not in path.parents]
    assert len(files) == 2 + 6


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path, photo, encoded):
    import io
    import tarfile

    for wnid in ("n00000001", "n00000002"):
        with tarfile.open(tmp_path / f"{wnid}.tar", "w") as archive:
            for name, kind in (
                ("link.JPEG", tarfile.SYMTYPE),
                ("hard.JPEG", tarfile.LNKTYPE),
                ("pipe", tarfile.FIFOTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
            info = tarfile.TarInfo("x.JPEG")
            info.size = len(encoded(photo(1)))
            archive.addfile(info, io.BytesIO(encoded(photo(1))))
    assert len(open_source(tmp_path).splits["train"]) == 2


def test_a_large_index_is_kept_and_found_again(ilsvrc, monkeypatch):
    monkeypatch.setattr(tars, "CACHED_FROM", 1)
    root = ilsvrc()
    first = open_source(root)
    assert len(list(tars.cache_folder().glob("*.arrow"))) == 2

    def forbidden(*arguments):
        raise AssertionError("the tar was read again")

    monkeypatch.setattr("alexnet.data.readers.ilsvrc.members", forbidden)
    second = open_source(root)
    for name, split in first.splits.items():
        assert np.array_equal(split.labels, second.splits[name].labels)
        assert [split.read_bytes(i) for i in range(len(split))] == [
            second.splits[name].read_bytes(i) for i in range(len(split))
        ]
        assert [split.image_name(i) for i in range(len(split))] == [
            second.splits[name].image_name(i) for i in range(len(split))
        ]


def rubbish(data):
    return b"rubbish"


def another_offset(data):
    """One bit of one offset, in an index that is otherwise whole."""
    at = data.index((512).to_bytes(8, "little"))
    return data[:at] + (513).to_bytes(8, "little") + data[at + 8 :]


@pytest.mark.parametrize("damage", [rubbish, another_offset, lambda data: data[:-50], lambda data: b""])
def test_a_damaged_index_is_made_anew(ilsvrc, monkeypatch, damage):
    monkeypatch.setattr(tars, "CACHED_FROM", 1)
    root = ilsvrc()
    whole = open_source(root).splits["val"].read_bytes(7)
    for path in tars.cache_folder().glob("*.arrow"):
        kept = path.read_bytes()
        if damage is not another_offset or (512).to_bytes(8, "little") in kept:
            path.write_bytes(damage(kept))
    source = open_source(root)
    assert len(source.splits["train"]) == 12
    assert source.splits["val"].read_bytes(7) == whole


def kit_of(root):
    return root / "ILSVRC2012_devkit_t12.tar.gz"


def test_a_devkit_that_expands_without_end_is_given_up(ilsvrc):
    root = ilsvrc()
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    kit_of(root).write_bytes(b"".join(stream.compress(bytes(1 << 20)) for _ in range(65)) + stream.flush())
    expect_error(root, kit_of(root).name, "expands to more than")


@pytest.mark.parametrize("name", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"])
def test_a_file_of_the_devkit_that_is_too_large_is_not_read(ilsvrc, make_tar, name):
    root = ilsvrc()
    kit_of(root).write_bytes(
        gzip.compress(make_tar({"data/meta.mat": meta_mat(2012), f"data/{name}": bytes(9 << 20)}), 1)
    )
    expect_error(root, name, "9,437,184 bytes")


@pytest.mark.parametrize(
    "text, words", [(b"1\ncat\n", "number 2 is b'cat'"), (b"9" * 4999, "id per line"), (b"-1", "b'-1'")]
)
def test_a_ground_truth_that_is_none_is_named(ilsvrc, text, words):
    root = ilsvrc()
    (root / "ILSVRC2012_validation_ground_truth.txt").write_bytes(text)
    expect_error(root, "ILSVRC2012_validation_ground_truth.txt", words)


@pytest.mark.parametrize("name", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_devkit_t12.tar.gz"])
def test_a_pipe_in_the_devkit_is_refused_at_once(ilsvrc, name):
    root = ilsvrc()
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    expect_error(root, name, "not a regular file")


def test_a_damaged_meta_mat_is_one_line(ilsvrc):
    root = ilsvrc()
    (root / "meta.mat").write_bytes(meta_mat(2012)[:1000])
    expect_error(root, "meta.mat", "cannot be read")
