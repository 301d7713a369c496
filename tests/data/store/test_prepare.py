"""Preparing: right squares, the same bytes however often it was stopped, nothing lost to bad files or a full disk."""

import csv
import errno
import json
import os
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from alexnet.data.decode import decode
from alexnet.data.preprocess import square
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import CODECS
from alexnet.data.statistics import Statistics
from alexnet.data.store import prepare as module
from alexnet.data.store.manifest import left_out
from alexnet.data.store.prepare import PrepareError, prepare
from alexnet.engine.ycbcr import to_planes
from alexnet.errors import DataError


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def report(root):
    with open(root / "report.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: (row["split"], row["kind"], row["reason"]) for row in csv.DictReader(file)}


@pytest.fixture
def pictures(class_folders):
    root = class_folders({"cat": 9, "dog": 7, "emu": 5}, "train")
    return class_folders({"cat": 2, "emu": 3}, "val", root, seed=50_000)


@pytest.mark.parametrize("shard_images", [1, 4, 21, 4096])
def test_a_raw_store_holds_the_squares_of_the_source(pictures, tmp_path, shard_images):
    manifest = prepare(pictures, tmp_path / "store", size=20, codec="raw", shard_images=shard_images)
    source, store = open_source(pictures), open_source(tmp_path / "store")
    assert store.classes == source.classes and list(store.splits) == ["train", "val"]
    for name, split in source.splits.items():
        assert manifest.splits[name].count == len(split)
        assert np.array_equal(store.splits[name].labels, split.labels)
        for i in range(len(split)):
            assert (store.splits[name].decode(i) == square(split.decode(i), 20)).all()
            assert store.splits[name].image_name(i) == split.image_name(i)


def test_a_jpeg_store_holds_nearly_the_squares(pictures, tmp_path):
    prepare(pictures, tmp_path / "store", size=24, codec="jpeg", quality=95, shard_images=4)
    source, store = open_source(pictures).splits["train"], open_source(tmp_path / "store").splits["train"]
    for i in range(len(source)):
        assert np.abs(store.decode(i).astype(int) - square(source.decode(i), 24)).mean() < 12
        assert (decode(store.read_bytes(i)) == store.decode(i)).all()


@pytest.mark.parametrize("size", [19, 20])
def test_a_yuv420_store_holds_the_planes_of_the_squares(pictures, tmp_path, size):
    prepare(pictures, tmp_path / "store", size=size, codec="yuv420", shard_images=4)
    source, store = open_source(pictures).splits["train"], open_source(tmp_path / "store").splits["train"]
    shards = [np.load(path, mmap_mode="r") for path in sorted((tmp_path / "store" / "train").glob("0*.npy"))]
    assert {shard.shape[1] for shard in shards} == {size**2 + 2 * 10**2}
    for i in range(len(source)):
        expected = square(source.decode(i), size)
        assert (shards[i // 4][i % 4] == to_planes(expected)).all()
        assert np.abs(store.decode(i).astype(int) - expected).mean() < 12
        assert (decode(store.read_bytes(i)) == store.decode(i)).all()


@pytest.fixture
def disk(monkeypatch):
    """Set the bytes that are free on the disk: `disk(10**9)`."""
    usage = namedtuple("usage", "total used free")
    return lambda free: monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(10**12, 0, free))


def test_the_codec_is_yuv420_where_the_disk_has_room_and_jpeg_elsewhere(pictures, tmp_path, disk):
    said, needed = [], 26 * 20 * 20 * 3 // 2
    for name, free, codec in [("a", needed / 0.8 + 1, "yuv420"), ("b", needed / 0.8 - 1, "jpeg")]:
        disk(free)
        assert prepare(pictures, tmp_path / name, size=20, note=said.append).codec == codec
    assert said[0].startswith("codec yuv420 needs 1.56e-05 GB, and 1.95e-05 GB are free")
    assert said[1].startswith("codec jpeg, for yuv420 needs 1.56e-05 GB, and")
    assert prepare(pictures, tmp_path / "c", size=20, codec="jpeg", note=said.append).codec == "jpeg"
    assert len(said) == 2


@pytest.mark.parametrize("codec", CODECS)
def test_a_store_that_was_begun_keeps_its_codec_when_none_is_named(pictures, tmp_path, disk, codec):
    options, said = {"size": 20, "shard_images": 5}, []
    prepare(pictures, tmp_path / "whole", codec=codec, **options)
    stopped_after(pictures, tmp_path / "store", 12, codec=codec, **options)
    disk(10**9 if codec == "jpeg" else 26 * 20 * 20 * 3)
    assert prepare(pictures, tmp_path / "store", note=said.append, **options).codec == codec
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert prepare(pictures, tmp_path / "store", note=said.append, **options).codec == codec
    assert not said


def test_other_tools_open_a_raw_shard_as_it_is(pictures, tmp_path):
    prepare(pictures, tmp_path / "store", size=20, codec="raw", shard_images=8)
    shard = np.load(tmp_path / "store" / "train" / "00001.npy", mmap_mode="r")
    assert shard.shape == (8, 20, 20, 3) and shard.dtype == np.uint8
    assert (shard[3] == open_source(tmp_path / "store").splits["train"].decode(11)).all()
    assert np.load(tmp_path / "store" / "train" / "labels.npy").tolist() == [0] * 9 + [1] * 7 + [2] * 5


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
@pytest.mark.parametrize("workers", [1, 3])
def test_two_runs_are_identical_whatever_the_workers(pictures, tmp_path, codec, workers):
    prepare(pictures, tmp_path / "a", size=20, codec=codec, shard_images=8, workers=2)
    prepare(pictures, tmp_path / "b", size=20, codec=codec, shard_images=8, workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_statistics_are_those_of_the_train_squares(pictures, tmp_path):
    prepare(pictures, tmp_path / "store", size=20, codec="raw", shard_images=6)
    split = open_source(tmp_path / "store").splits["train"]
    images = np.stack([split.decode(i) for i in range(len(split))])
    found = Statistics.load(tmp_path / "store" / "statistics.npz")
    pixels = images.reshape(-1, 3).astype(np.float64)
    assert found.count == 21
    np.testing.assert_allclose(found.mean_image, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.rgb_covariance, np.cov(pixels.T, bias=True), rtol=1e-10)


def test_the_manifest_tells_where_the_store_comes_from(pictures, tmp_path):
    manifest = prepare(pictures, tmp_path / "store", size=20, codec="jpeg", quality=77)
    stored = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert (
        stored == manifest.to_json()
        and stored["source"] == str(pictures)
        and stored["classes"] == ["cat", "dog", "emu"]
    )
    assert stored["settings"]["quality"] == 77 and stored["settings"]["exif_rotate"] is False
    assert set(stored["versions"]) >= {"numpy", "pillow", "simplejpeg", "torch", "python"}


def test_every_source_file_is_recorded_with_its_hash(pictures, tmp_path):
    import hashlib

    import pyarrow.parquet as pq

    prepare(pictures, tmp_path / "store", size=20, shard_images=8)
    rows = pq.read_table(tmp_path / "store" / "train" / "files.parquet").to_pylist()
    assert len(rows) == 21
    for row in rows:
        path = pictures / row["file"]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).digest()
        assert (row["width"], row["height"]) == Image.open(path).size


@pytest.fixture
def troubled(pictures, photo, encoded):
    folder = pictures / "train" / "cat"
    (folder / "a_text.jpg").write_text("hello")
    (folder / "b_cut.jpg").write_bytes(encoded(photo(1))[:500])
    (folder / "c_empty.jpg").write_bytes(b"")
    (folder / "d_png.jpg").write_bytes(encoded(photo(2), "PNG"))
    Image.new("CMYK", (50, 40), (0, 255, 255, 0)).save(folder / "e_cmyk.jpg", quality=95)
    (folder / "f_tiny.jpg").write_bytes(encoded(photo(3, 10, 12)))
    Image.fromarray(photo(4)).convert("L").save(folder / "g_grey.jpg")
    return pictures


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_unreadable_files_are_left_out_and_odd_ones_kept_and_both_are_listed(troubled, tmp_path, codec):
    manifest = prepare(troubled, tmp_path / "store", size=36, codec=codec, shard_images=5)
    found = {key.rsplit("/")[-1]: row for key, row in report(tmp_path / "store").items()}
    assert {name for name, row in found.items() if row[1] == "unreadable"} == {"a_text.jpg", "b_cut.jpg", "c_empty.jpg"}
    assert found["c_empty.jpg"] == ("train", "unreadable", "the file is empty")
    assert found["d_png.jpg"] == ("train", "odd", "PNG named JPEG")
    assert found["e_cmyk.jpg"][2] == "CMYK" and found["g_grey.jpg"][2] == "grey"
    assert found["f_tiny.jpg"][2] == "tiny, 12x10; upscaled from 10 to 36"
    assert manifest.splits["train"].unreadable == 3 and manifest.splits["train"].count == 25
    store = open_source(tmp_path / "store").splits["train"]
    keys = [store.image_name(i) for i in range(len(store))]
    at = keys.index("train/cat/e_cmyk.jpg")
    assert np.abs(store.decode(at).astype(int) - (255, 0, 0)).max() <= 6
    assert np.bincount(store.labels).tolist() == [13, 7, 5]
    source = open_source(troubled).splits["train"]
    original = [source.image_name(i) for i in range(len(source))].index("train/dog/003.jpg")
    mine = keys.index("train/dog/003.jpg")
    assert np.abs(store.decode(mine).astype(int) - square(source.decode(original), 36)).mean() < 6


def test_strict_stops_at_the_first_unreadable_file_and_names_it(troubled, tmp_path):
    with pytest.raises(PrepareError, match=r"a_text\.jpg.*known format"):
        prepare(troubled, tmp_path / "store", size=36, strict=True)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_strict_also_sees_what_an_earlier_run_left_out(troubled, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(troubled, tmp_path / "store", size=36)
    with pytest.raises(PrepareError, match="a_text"):
        prepare(troubled, tmp_path / "store", size=36, strict=True)


def test_exif_orientation_is_applied_only_on_request(class_folders, tmp_path, photo):
    root = class_folders({"cat": 1, "dog": 1})
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(photo(1, 30, 30)).save(root / "cat" / "000.jpg", exif=exif, quality=95)
    prepare(root, tmp_path / "plain", size=30)
    prepare(root, tmp_path / "turned", size=30, exif_rotate=True)
    plain, turned = (open_source(tmp_path / name).splits["train"].decode(0).astype(int) for name in ("plain", "turned"))
    assert np.abs(turned - plain[::-1, ::-1]).max() <= 2 and np.abs(turned - plain).max() > 20


def test_names_that_are_no_text_are_recorded_readably(class_folders, tmp_path, photo, encoded):
    root = class_folders({"cat": 1, "dog": 1})
    with open(os.fsencode(root / "cat") + b"/\xff\xfe.jpg", "wb") as file:
        file.write(b"not an image")
    prepare(root, tmp_path / "store", size=16)
    assert [key for key in report(tmp_path / "store") if "\\udcff" in key or "xff" in key]


def test_a_finished_store_is_returned_as_it_is(pictures, tmp_path):
    first = prepare(pictures, tmp_path / "store", size=20)
    before = contents(tmp_path / "store")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert prepare(pictures, tmp_path / "store", size=20) == first
    assert contents(tmp_path / "store") == before
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())


def test_a_store_with_other_settings_is_not_overwritten(pictures, tmp_path):
    prepare(pictures, tmp_path / "store", size=20)
    with pytest.raises(DataError, match="a finished store lies there, with size 20, not 24; choose a new folder"):
        prepare(pictures, tmp_path / "store", size=24)
    with pytest.raises(DataError, match="with exif_rotate false, not true"):
        prepare(pictures, tmp_path / "store", size=20, exif_rotate=True)


def test_a_folder_with_other_things_in_it_is_left_alone(pictures, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="neither empty nor a store"):
        prepare(pictures, tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("wrong", [{"codec": "webp"}, {"size": 0}, {"quality": 101}, {"quality": 0, "codec": "jpeg"}])
def test_a_senseless_request_is_refused(pictures, tmp_path, wrong):
    with pytest.raises(DataError):
        prepare(pictures, tmp_path / "store", **wrong)
    assert not (tmp_path / "store").exists()


def test_a_split_without_a_readable_image_is_named(class_folders, tmp_path):
    root = class_folders({"cat": 2, "dog": 2}, "train")
    (root / "val" / "cat").mkdir(parents=True)
    (root / "val" / "cat" / "x.jpg").write_text("no image")
    with pytest.raises(PrepareError, match="val: 1 of 1 pictures.*known format"):
        prepare(root, tmp_path / "store", size=16)


def test_progress_ends_at_all_images_and_starts_where_it_was_left(pictures, tmp_path):
    told = []
    prepare(pictures, tmp_path / "store", size=20, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 26) and told[-1] == (26, 26) and told == sorted(told)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
@pytest.mark.parametrize("after", [1, 8, 17, 25])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(pictures, tmp_path, codec, after, monkeypatch):
    monkeypatch.setattr(module, "_per_chunk", lambda size: 2)
    options = {"size": 20, "codec": codec, "shard_images": 5}
    prepare(pictures, tmp_path / "whole", **options)

    def stop(done, total):
        if done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(pictures, tmp_path / "store", progress=stop, **options)
    started = []
    prepare(pictures, tmp_path / "store", progress=lambda done, total: started.append(done), **options)
    assert started[0] == sum(len(range(a, b)) for a, b in finished(after))
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def finished(after):
    """The shards whose last image is among the first `after` rounded up to a chunk of 2 within its shard."""
    shards = [(0, 5), (5, 10), (10, 15), (15, 20), (20, 21), (21, 26)]
    ends = sorted({min(b, at + 2) for a, b in shards for at in range(a, b, 2)})
    reached = next(end for end in ends if end >= after)
    return [(a, b) for a, b in shards if b <= reached]


def test_an_unfinished_run_with_other_settings_is_not_mixed_in(pictures, tmp_path):
    def stop(done, total):
        if done:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(pictures, tmp_path / "store", size=20, progress=stop)
    with pytest.raises(
        DataError, match="unfinished preparation lies there, with size 20, not 24; go on with it by its own"
    ):
        prepare(pictures, tmp_path / "store", size=24)


def test_a_source_that_changed_meanwhile_is_noticed(pictures, tmp_path, photo, encoded):
    def stop(done, total):
        if done:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(pictures, tmp_path / "store", size=20, progress=stop)
    (pictures / "train" / "cat" / "new.jpg").write_bytes(encoded(photo(0)))
    with pytest.raises(
        DataError,
        match=r"unfinished preparation lies there, with 21 train pictures, not 22; .* or delete .*store to start",
    ):
        prepare(pictures, tmp_path / "store", size=20)


def test_a_second_preparation_in_the_same_folder_waits_outside(pictures, tmp_path):
    def again(done, total):
        with pytest.raises(DataError, match="at work"):
            prepare(pictures, tmp_path / "store", size=20)

    prepare(pictures, tmp_path / "store", size=20, progress=again)


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_a_full_disk_says_so_keeps_what_is_done_and_goes_on_later(pictures, tmp_path, monkeypatch, codec):
    options = {"size": 20, "codec": codec, "shard_images": 5}
    prepare(pictures, tmp_path / "whole", **options)
    kind = module.TarShard if codec == "jpeg" else module.RecordShard
    add, room = kind.add, [12]

    def until_full(self, payload, label):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(self, payload, label)

    monkeypatch.setattr(kind, "add", until_full)
    with pytest.raises(PrepareError, match="disk is full") as caught:
        prepare(pictures, tmp_path / "store", **options)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").rglob("*.part"))
    kept = sorted(path.name for path in (tmp_path / "store" / "train").iterdir())
    assert len(kept) == 2
    monkeypatch.setattr(kind, "add", add)
    prepare(pictures, tmp_path / "store", **options)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("codec", "needed"), [("raw", 26 * 20 * 20 * 3), ("yuv420", 26 * 20 * 20 * 3 // 2)])
def test_what_cannot_fit_is_refused_before_it_starts(pictures, tmp_path, disk, codec, needed):
    disk(needed - 1)
    with pytest.raises(PrepareError, match="GB free"):
        prepare(pictures, tmp_path / "store", size=20, codec=codec)
    disk(needed)
    prepare(pictures, tmp_path / "store", size=20, codec=codec)


KILLER = """
import os, random, signal, sys, time
from alexnet.data.store.prepare import prepare

source, out, codec = sys.argv[1:]
rng, kills = random.Random(2012), 0
for attempt in range(40):
    child = os.fork()
    if child == 0:
        prepare(source, out, size=64, codec=codec, shard_images=12, workers=2)
        os._exit(0)
    if attempt < 12:
        time.sleep(rng.uniform(0, 0.02 * attempt))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    kills += os.WIFSIGNALED(status)
    if status == 0 and attempt >= 12:
        break
print(kills)
"""


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_processes_killed_at_random_moments_end_with_the_same_bytes(class_folders, tmp_path, codec):
    source = class_folders({"cat": 160, "dog": 160})
    prepare(source, tmp_path / "whole", size=64, codec=codec, shard_images=12)
    command = [sys.executable, "-c", KILLER, str(source), str(tmp_path / "store"), codec]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_killed_removal_of_the_scraps_is_made_good(pictures, tmp_path, monkeypatch):
    prepare(pictures, tmp_path / "whole", size=20)
    monkeypatch.setattr(module, "_tidy", lambda path: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        prepare(pictures, tmp_path / "store", size=20)
    monkeypatch.undo()
    prepare(pictures, tmp_path / "store", size=20)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_store_of_a_store_is_the_same_images(pictures, tmp_path):
    prepare(pictures, tmp_path / "a", size=20, codec="raw")
    prepare(tmp_path / "a", tmp_path / "b", size=20, codec="raw")
    a, b = (open_source(tmp_path / name).splits["train"] for name in "ab")
    assert all((a.decode(i) == b.decode(i)).all() for i in range(len(a)))


def test_official_archives_are_prepared_with_the_devkits_classes(ilsvrc, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = ilsvrc()
    prepare(root, tmp_path / "store", size=32)
    source, store = open_source(root), open_source(tmp_path / "store")
    assert store.classes == source.classes and store.classes[0] == "n02119789 kit fox"
    for name in ("train", "val"):
        assert np.array_equal(store.splits[name].labels, source.splits[name].labels)


def test_real_photographs_are_prepared_as_pillow_would(imagenet_samples, tmp_path):
    prepare(imagenet_samples, tmp_path / "store", size=128, codec="raw")
    source, store = open_source(imagenet_samples).splits["train"], open_source(tmp_path / "store").splits["train"]
    for i in range(0, 240, 7):
        image = Image.open(imagenet_samples / source.image_name(i)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        expected = image.crop((left, top, left + side, top + side)).resize((128, 128), Image.Resampling.BILINEAR)
        assert np.abs(store.decode(i).astype(int) - np.asarray(expected)).mean() < 1


def test_a_store_does_not_become_a_class_of_its_source(class_folders):
    root = class_folders({"cat": 2, "dog": 2})
    with pytest.raises(DataError, match="would be a class folder"):
        prepare(root, root / "store", size=8)
    assert open_source(root).classes == ("cat", "dog")


def test_the_number_of_workers_is_checked(pictures, tmp_path):
    with pytest.raises(DataError, match="at least 0, not -1"):
        prepare(pictures, tmp_path / "store", size=8, workers=-1)


def stopped_after(source, root, images, **options):
    """A preparation that was stopped when so many images were done."""

    def stop(done, total):
        if done >= images:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(source, root, progress=stop, **options)


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
@pytest.mark.parametrize("file", ["train/00000.*", "unfinished/train-00000.parquet", "unfinished/train-00000.npz"])
@pytest.mark.parametrize("how", ["cut", "flipped", "removed", "pipe"])
def test_what_was_finished_and_is_damaged_is_made_again(pictures, tmp_path, codec, file, how):
    options = {"size": 20, "codec": codec, "shard_images": 5}
    prepare(pictures, tmp_path / "whole", **options)
    stopped_after(pictures, tmp_path / "store", 12, **options)
    (path,) = (tmp_path / "store").glob(file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how != "removed":
        path.write_bytes(data[:-9] if how == "cut" else data)
    if how == "flipped" and "unfinished" in file:  # these have no hash: damage is noticed where it shows
        path.write_bytes(b"no" + data[2:])
    (tmp_path / "store" / "train" / "00003.npy.0a1b2c3d.part").write_bytes(b"half")
    prepare(pictures, tmp_path / "store", **options)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_settings_of_an_unfinished_store_that_are_damaged_say_so(pictures, tmp_path):
    stopped_after(pictures, tmp_path / "store", 12, size=20, shard_images=5)
    (tmp_path / "store" / "unfinished" / "settings.json").write_text('{"codec": ')
    with pytest.raises(DataError, match=r"settings\.json cannot be read.*delete"):
        prepare(pictures, tmp_path / "store", size=20, shard_images=5)


def test_a_folder_of_a_split_that_is_a_link_is_not_written_to(pictures, tmp_path):
    stopped_after(pictures, tmp_path / "store", 12, size=20, shard_images=5)
    (tmp_path / "store" / "val").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "val").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="val: it is a link"):
        prepare(pictures, tmp_path / "store", size=20, shard_images=5)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_too_many_unreadable_files_stop_it_and_mended_ones_let_it_go_on(pictures, tmp_path, encoded, photo):
    bad = [pictures / "train" / "cat" / f"bad{k:02d}.jpg" for k in range(21)]
    for path in bad:
        path.write_bytes(b"no")
    with pytest.raises(PrepareError, match=r"train: 21 of 42 pictures cannot be read.*bad00\.jpg: .*known format"):
        prepare(pictures, tmp_path / "store", size=20, shard_images=5)
    rows = list(csv.reader((tmp_path / "store" / "unfinished" / "unreadable.csv").read_text().splitlines()))
    assert len(rows) == 22 and rows[21][:3] == ["train", "train/cat/bad20.jpg", "unreadable"]
    for k, path in enumerate(bad):
        path.write_bytes(encoded(photo(900 + k)))
    prepare(pictures, tmp_path / "store", size=20, shard_images=5)
    prepare(pictures, tmp_path / "whole", size=20, shard_images=5)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_twenty_unreadable_files_are_left_out_and_listed(pictures, tmp_path):
    for k in range(20):
        (pictures / "train" / "cat" / f"bad{k:02d}.jpg").write_bytes(b"no")
    manifest = prepare(pictures, tmp_path / "store", size=20)
    assert manifest.splits["train"].unreadable == 20 and manifest.splits["train"].count == 21
    assert sum(row[1] == "unreadable" for row in report(tmp_path / "store").values()) == 20
    assert left_out(tmp_path / "store")[0][0] == "train/cat/bad00.jpg" and len(left_out(tmp_path / "store")) == 5


def test_removing_unreadable_files_between_two_preparations_is_told_in_words(pictures, tmp_path):
    bad = [pictures / "train" / "cat" / f"bad{k:02d}.jpg" for k in range(21)]
    for path in bad:
        path.write_bytes(b"no")
    with pytest.raises(PrepareError, match="or remove them and delete .*store or choose a new folder"):
        prepare(pictures, tmp_path / "store", size=20)
    bad[0].unlink()
    with pytest.raises(DataError, match="with 42 train pictures, not 41; .* delete .*store to start again"):
        prepare(pictures, tmp_path / "store", size=20)


def test_a_class_whose_name_is_no_text_is_refused_before_work_begins(class_folders, tmp_path, photo, encoded):
    root = class_folders({"cat": 1, "dog": 1})
    os.mkdir(os.fsencode(root) + b"/\xff\xfe")
    with open(os.fsencode(root) + b"/\xff\xfe/0.jpg", "wb") as file:
        file.write(encoded(photo(1)))
    with pytest.raises(DataError, match="not text in UTF-8; rename it"):
        prepare(root, tmp_path / "store", size=16)
    assert not (tmp_path / "store").exists()
