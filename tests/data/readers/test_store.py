"""Opening stores: in an instant at any size, and one clear line when something is wrong with them."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet.data.loader import BatchLoader
from alexnet.data.mmap_cache import MmapCache
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import NPY_HEADER, Manifest, Shard, SourceSplit, StoredFile, StoredSplit
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError, UnreadableImage


@pytest.fixture(params=["raw", "jpeg"])
def store(request, tmp_path):
    prepare("digits", tmp_path / "store", size=16, codec=request.param, shard_images=400)
    return tmp_path / "store"


def sparse_store(root, images, codec, size=256, shard_images=4096):
    """A store of the right layout and length whose files hold nothing but holes."""
    folder = root / "train"
    folder.mkdir(parents=True)
    shards = []
    for number, first in enumerate(range(0, images, shard_images)):
        count = min(shard_images, images - first)
        path = folder / f"{number:05d}{'.npy' if codec == 'raw' else '.tar'}"
        length = NPY_HEADER + count * size * size * 3 if codec == "raw" else count * 20_000
        with open(path, "wb") as file:
            file.truncate(length)
        shards.append(Shard(f"train/{path.name}", count, length, "0" * 64))
    arrays = {"labels.npy": (images,)} | ({"index.npy": (images, 2)} if codec == "jpeg" else {})
    for name, shape in arrays.items():
        with open(folder / name, "wb") as file:
            description = {"descr": "<i8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, description)
            file.truncate(file.tell() + 8 * int(np.prod(shape)))
    classes = tuple(f"class {k}" for k in range(1000))
    (root / "statistics.npz").write_bytes(b"")
    length = {file: StoredFile((folder / file).stat().st_size, "0" * 64) for file in arrays}
    nothing = StoredFile(0, "0" * 64)
    train = StoredSplit(images, 0, 0, tuple(shards), {**length, "files.parquet": nothing})
    others = {"report.csv": nothing, "statistics.npz": nothing}
    source = {"train": SourceSplit(images, "")}
    manifest = Manifest("holes", codec, size, {}, {}, classes, source, {"train": train}, others)
    (root / "manifest.json").write_text(json.dumps(manifest.to_json()))


MEASURE = """
import resource, sys
import numpy, torch, pyarrow.parquet, simplejpeg
from alexnet.data import loader
from alexnet.data.readers import open as sources, parquet, webdataset, ilsvrc, store

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    split = sources.open_source(path).splits["train"]
    pixel = int(split.decode(len(split) - 1)[0, 0, 0]) if split.side else 0
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(len(split), pixel, more / 1024)
"""


def test_stores_of_millions_open_without_being_read(tmp_path):
    cases = [(1_300_000, "raw"), (15_000_000, "raw"), (15_000_000, "jpeg")]
    paths = [str(tmp_path / f"{codec}-{images}") for images, codec in cases]
    for path, (images, codec) in zip(paths, cases, strict=True):
        sparse_store(Path(path), images, codec)
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for line, (images, _) in zip(done.stdout.splitlines(), cases, strict=True):
        length, pixel, megabytes = line.split()
        assert int(length) == images and int(pixel) == 0
        assert float(megabytes) < 100


def test_many_shards_are_read_with_few_files_open(tmp_path):
    split = prepare_small_shards(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    split._mapped = MmapCache(split._mapped.paths, limit=3)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(split)).tolist():
        assert split.decode(i).shape == (8, 8, 3)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def prepare_small_shards(root):
    prepare("digits", root / "small", size=8, shard_images=10)
    return open_source(root / "small").splits["train"]


def test_a_view_outlives_the_unmapping_of_its_file(tmp_path):
    split = prepare_small_shards(tmp_path)
    split._mapped = MmapCache(split._mapped.paths, limit=1)
    first = split.decode(0)
    copy = first.copy()
    for i in range(0, len(split), 10):
        split.decode(i)
    assert (first == copy).all()


def test_stored_images_cannot_be_overwritten_by_accident(store):
    split = open_source(store).splits["train"]
    if split.side:
        with pytest.raises(ValueError, match="read-only"):
            split.decode(0)[:] = 0


def test_a_shard_cut_short_makes_its_images_unreadable_not_the_process_crash(store):
    shard = next((store / "train").glob("00001.*"))
    train = open_source(store).splits["train"]
    os.truncate(shard, shard.stat().st_size // 2)  # after it was opened
    feed = BatchLoader(train, 16, 64, 0, memory=0)
    count = sum(len(batch.labels) for batch in feed.epoch(0))
    assert 1442 - 400 < count < 1442 and len(feed.unreadable) == 1442 - count
    assert "cut short" in next(iter(feed.unreadable.values()))


def test_a_missing_shard_is_named(store):
    train = open_source(store).splits["train"]
    next((store / "train").glob("00000.*")).unlink()
    with pytest.raises(UnreadableImage, match="00000"):
        train.decode(3)
    with pytest.raises(DataError, match="00000"):
        open_source(store)


def test_scrambled_bytes_in_a_jpeg_shard_are_unreadable_images(tmp_path):
    prepare("digits", tmp_path / "store", size=16, codec="jpeg")
    shard = tmp_path / "store" / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[100_000:200_000] = bytes(100_000)
    shard.write_bytes(data)
    feed = BatchLoader(open_source(tmp_path / "store").splits["train"], 16, 64, 0, memory=0)
    assert 0 < sum(len(batch.labels) for batch in feed.epoch(0)) < 1442
    assert "damaged" in next(iter(feed.unreadable.values()))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": "alexnet-store"}', "\x00\xff"])
def test_a_manifest_that_is_none_is_named(store, text):
    (store / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="manifest"):
        open_source(store)


def test_a_manifest_of_another_version_is_named(store):
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(DataError, match="version"):
        open_source(store)


@pytest.mark.parametrize("spoil", [b"", b"rubbish", None])
def test_labels_that_are_damaged_are_named(store, spoil):
    path = store / "train" / "labels.npy"
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil)
    with pytest.raises(DataError, match=r"labels\.npy"):
        open_source(store)


def test_labels_of_another_length_are_named(store):
    np.save(store / "train" / "labels.npy", np.zeros(5, np.int64))
    with pytest.raises(DataError, match=r"labels\.npy"):
        open_source(store)


def test_a_pickled_array_is_not_loaded(store):
    np.save(store / "train" / "labels.npy", np.array([print] * 1442, dtype=object))
    with pytest.raises(DataError, match=r"labels\.npy"):
        open_source(store)
