"""Opening stores: in an instant at any size, and one clear line when something is wrong with them."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alexnet.data.loader import BatchLoader
from alexnet.data.mmap_cache import MmapCache
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import RawSplit
from alexnet.data.readers.store_files import FILES_SCHEMA
from alexnet.data.readers.store_format import (
    CODECS,
    NPY_HEADER,
    Manifest,
    Shard,
    SourceSplit,
    StoredFile,
    StoredSplit,
    record_bytes,
)
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError, UnreadableImage


@pytest.fixture(scope="module", params=["yuv420", "raw", "jpeg"])
def whole(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "store"
    prepare("digits", root, size=16, codec=request.param, shard_images=400)
    return root


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def sparse_store(root, images, codec, size=256, shard_images=4096):
    """A store of the right layout and length whose files hold nothing but holes."""
    folder = root / "train"
    folder.mkdir(parents=True)
    shards = []
    for number, first in enumerate(range(0, images, shard_images)):
        count = min(shard_images, images - first)
        path = folder / f"{number:05d}{CODECS[codec]}"
        length = count * 20_000 if codec == "jpeg" else NPY_HEADER + count * record_bytes(codec, size)
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
    manifest = Manifest("holes", codec, size, {"exif_rotate": False}, {}, classes, source, {"train": train}, others)
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
    cases = [(1_300_000, "raw"), (15_000_000, "yuv420"), (15_000_000, "jpeg")]
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
    if isinstance(split, RawSplit):  # the others decode into memory of their own
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


def changed(store, change):
    """Change the manifest of a store in place, as `change(manifest)` does."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return store


def first_shard(manifest):
    return manifest["splits"]["train"]["shards"][0]


@pytest.mark.parametrize("name", ["{secret}", "../secret", "train/../../secret", "train/link", "/etc/passwd", "", "."])
def test_a_shard_outside_the_store_is_not_read(store, name, tmp_path):
    shard = next((store / "train").glob("00000.*"))
    shutil.copy(shard, tmp_path / "secret")  # of the right length, and of the right content too
    (store / "train" / "link").symlink_to(tmp_path / "secret")
    name = name.format(secret=tmp_path / "secret")
    changed(store, lambda manifest: first_shard(manifest).update(file=name))
    with pytest.raises(DataError, match=r"splits\.train\.shards\[0\]\.file .* should be 'train/00000"):
        open_source(store)


@pytest.mark.parametrize("file", ["00000", "labels.npy", "", "manifest.json", "statistics.npz"])
def test_a_link_out_of_the_store_is_not_followed(store, file, tmp_path):
    place = next(store.rglob(f"{file}*")) if file else store / "train"
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with pytest.raises(DataError, match="leads out of the store"):
        open_source(store)


def test_a_link_within_the_store_is_followed(store):
    shard = next((store / "train").glob("00000.*"))
    shard.rename(store / "elsewhere")
    shard.symlink_to(store / "elsewhere")
    assert open_source(store).splits["train"].decode(0).shape == (16, 16, 3)


@pytest.mark.parametrize("file", ["00000", "labels.npy", "statistics.npz"])
def test_a_pipe_or_folder_in_place_of_a_file_is_told_at_once(store, file):
    place = next(store.rglob(f"{file}*"))
    place.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(place)
        with pytest.raises(DataError, match="not a regular file"):
            open_source(store)
        place.rmdir() if place.is_dir() else place.unlink()


def test_a_pipe_in_place_of_the_list_of_files_costs_only_the_names(store):
    place = store / "train" / "files.parquet"
    place.unlink()
    os.mkfifo(place)
    assert open_source(store).splits["train"].image_name(3) == "train#3"


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_a_list_of_files_that_would_take_gigabytes_is_not_read(tmp_path, compression):
    rows = 1 << 16
    sparse_store(tmp_path / "store", rows, "raw", size=1, shard_images=rows)
    once = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * 500_000])  # 33 GB of names
    columns = {"file": once, "sha256": [b""] * rows, "label": [0] * rows}
    columns |= {"height": [1] * rows, "width": [1] * rows, "notes": [""] * rows}
    arrays = [
        columns[field.name] if field.name == "file" else pa.array(columns[field.name], field.type)
        for field in FILES_SCHEMA
    ]
    path = tmp_path / "store" / "train" / "files.parquet"
    pq.write_table(pa.table(arrays, FILES_SCHEMA.names), path, store_schema=False, compression=compression)
    assert path.stat().st_size < 1_000_000
    before = pa.default_memory_pool().max_memory()
    assert open_source(tmp_path / "store").splits["train"].image_name(3) == "train#3"
    assert pa.default_memory_pool().max_memory() < before + (64 << 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["splits"]["train"].update(count="x"), r"splits\.train\.count 'x' should be a whole number from 0"),
        (lambda m: m["splits"]["train"].update(count=-1), r"splits\.train\.count -1 should be a whole number"),
        (lambda m: m["splits"]["train"].update(count=1441), r"splits\.train\.count 1441 should be the sum"),
        (lambda m: m["splits"]["train"].update(shards={}), r"splits\.train\.shards {} should be a list"),
        (lambda m: m["splits"]["train"]["files"].pop("labels.npy"), r"splits\.train\.files .* should be .*labels\.npy"),
        (lambda m: first_shard(m).update(bytes=5), r"shards\[0\]\.bytes 5 should be"),
        (lambda m: first_shard(m).update(sha256="x"), r"sha256 of train/00000.* 'x' should be 64 hexadecimal digits"),
        (
            lambda m: m["splits"].update({"../x": m["splits"].pop("test")}),
            r"splits .* should be among train, val and test",
        ),
        (lambda m: m["source_splits"]["train"].update(count=7), r"source_splits\.train\.count 7 should be 1442"),
        (lambda m: m.update(size=0), r"size 0 should be from 1 to 4096"),
        (lambda m: m.update(size=10**9), r"size 1000000000 should be from 1 to 4096"),
        (lambda m: m.update(codec="webp"), r"codec 'webp' should be yuv420, raw or jpeg"),
        (lambda m: m.update(codec=[]), r"codec \[\] should be a text"),
        (lambda m: m.update(classes=["one"]), r"classes .* should be the names of two classes or more"),
        (lambda m: m.update(classes="abc"), r"classes 'abc' should be a list"),
        (lambda m: m.update(classes=["one"] * 10), r"classes: classes 0 and 1 are both called 'one'"),
        (lambda m: m.update(settings={}), r"settings\.exif_rotate null should be true or false"),
        (lambda m: m["settings"].update(exif_rotate="yes"), r"settings\.exif_rotate 'yes' should be true or false"),
        (lambda m: m.pop("splits"), r"manifest\.splits is missing"),
        (lambda m: m.update(more=1), r"manifest\.more is not known"),
        (lambda m: m.update(version=True), "not the manifest of a store"),
    ],
)
def test_a_field_of_the_manifest_that_cannot_be_is_named(store, change, message):
    with pytest.raises(DataError, match=rf"manifest\.json: .*{message}") as caught:
        open_source(changed(store, change))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(("codec", "other"), [("raw", "yuv420"), ("yuv420", "raw")])
def test_records_of_another_codec_are_not_taken_for_images(tmp_path, codec, other):
    prepare("digits", tmp_path / "store", size=16, codec=codec)
    with pytest.raises(DataError, match=r"shards\[0\]\.bytes \d+ should be"):
        open_source(changed(tmp_path / "store", lambda manifest: manifest.update(codec=other)))


def test_a_crop_of_planes_is_that_of_the_square_and_touches_no_other_page(tmp_path, monkeypatch):
    prepare("digits", tmp_path / "store", size=16, codec="yuv420", shard_images=400)
    split = open_source(tmp_path / "store").splits["train"]
    out, read = np.empty((9, 9, 3), np.uint8), []
    step = record_bytes("yuv420", 16)
    kept = split._mapped.slice
    monkeypatch.setattr(split._mapped, "slice", lambda *place: read.append(place) or kept(*place))
    for i in (0, 399, 400, 1441):
        split.crop_into(i, 16, 3, 7, out)
        assert (out == split.decode(i)[3:12, 7:16]).all()
        assert read.pop() == read.pop() == (i // 400, NPY_HEADER + i % 400 * step, step)


@pytest.mark.parametrize("size", [15, 16])
def test_the_readers_lines_in_the_documents_read_a_store(tmp_path, monkeypatch, size):
    page = (Path(__file__).parents[3] / "docs" / "store.md").read_text()
    (lines,) = re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M)
    assert len([line for line in lines.splitlines() if line]) <= 17
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name / "one.png")
    prepare(tmp_path / "pictures", tmp_path / "store", size=size, codec="yuv420")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    split = open_source(tmp_path / "store").splits["train"]
    for i in range(2):
        assert (names["read"](i) == split.decode(i)).all()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', '{"a": %s}' % ("9" * 5000)]
)
def test_json_that_only_some_would_read_is_refused(store, text):
    (store / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_source(store)


@pytest.mark.parametrize("label", [-1, 10, 2**62])
def test_a_label_of_no_class_is_named(store, label):
    labels = np.load(store / "train" / "labels.npy")
    labels[-1] = label
    np.save(store / "train" / "labels.npy", labels)
    with pytest.raises(DataError, match=rf"labels\.npy: it has label {label}, but they run from 0 to 9"):
        open_source(store)


@pytest.mark.parametrize("place", [(-1, 600), (512, 0), (512, -5), (2**62, 600), (0, 2**62)])
def test_an_index_that_points_nowhere_makes_an_unreadable_image(tmp_path, place):
    prepare("digits", tmp_path / "store", size=16, codec="jpeg")
    path = tmp_path / "store" / "train" / "index.npy"
    index = np.load(path)
    index[2] = place
    np.save(path, index)
    split = open_source(tmp_path / "store").splits["train"]
    split.decode(1)
    with pytest.raises(UnreadableImage):
        split.decode(2)


def test_a_jpeg_of_many_scans_in_a_shard_is_not_decoded(tmp_path):
    prepare("digits", tmp_path / "store", size=16, codec="jpeg")
    path = tmp_path / "store" / "train" / "index.npy"
    shard = tmp_path / "store" / "train" / "00000.tar"
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", progressive=True)
    index, data = np.load(path), bytearray(shard.read_bytes())
    offset = index[-1, 0] - 1024 - len(buffer.getvalue())
    data[offset : offset + len(buffer.getvalue())] = buffer.getvalue()
    index[0] = offset, len(buffer.getvalue())
    shard.write_bytes(data)
    np.save(path, index)
    with pytest.raises(UnreadableImage, match="another kind of JPEG"):
        open_source(tmp_path / "store").splits["train"].decode(0)
