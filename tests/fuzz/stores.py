"""Hostile stores: manifests, arrays, lists of files and shards that are edited, damaged, exchanged or made into bombs.

A store lies in `store/`, and beside it a secret that looks like a shard of it: reading the secret's pixels, or anything
outside, is a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from alexnet import presets
from alexnet.config import replace
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import CODECS, record_bytes
from alexnet.data.run_data import open_run_data
from alexnet.data.store.info import info
from alexnet.data.store.prepare import prepare
from alexnet.data.store.verify import verify
from alexnet.engine.ycbcr import to_planes
from alexnet.progress import quiet
from tests.fuzz.harness import Family

SIDE = 16
SECRET = 171  # the value of every pixel of the secret
HUGE = (0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308, True, None, "", "x", "0", [], {}, [[]], "\0")
PATHS = (
    "../secret{}",
    "train/../../secret{}",
    "{root}/secret{}",
    "train/link{}",
    "out/secret{}",
    "/dev/zero",
    "/etc/passwd",
    "//etc/passwd",
    "..\\secret{}",
    "train/00000{}\0",
    "train//00000{}",
    "./train/00000{}",
    "TRAIN/00000{}",
    "~/secret{}",
    "file:///etc/passwd",
    "",
    ".",
    "train",
    "a" * 5000,
    "\ud800",
)


def prepared(folder: Path) -> Path:
    """A source and stores of it, by codec, and stores of another source."""
    rng = np.random.default_rng(0)
    for source, count in (("pictures", 9), ("others", 6)):
        for split in ("train", "val", "test"):
            for name in ("ant", "bee", "cat"):
                place = folder / source / split / name
                place.mkdir(parents=True)
                for i in range(count if split == "train" else 3):
                    pixels = rng.integers(0, 140, (20, 24, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"{i}.png")
        for codec in CODECS:
            prepare(folder / source, folder / f"{source}-{codec}", size=SIDE, codec=codec, shard_images=10, workers=1)
    return folder


def copied(rng: Random, folder: Path, shared: Path, codec: str | None = None) -> Path:
    """A store to be spoilt, and the secret beside it."""
    codec = codec or rng.choice(list(CODECS))
    store = folder / "store"
    shutil.copytree(shared / f"pictures-{codec}", store)
    secret = np.full((10, SIDE, SIDE, 3), SECRET, np.uint8)
    np.save(folder / "secret.npy", np.stack([to_planes(square) for square in secret]) if codec == "yuv420" else secret)
    tar = bytearray((store / "train" / "00000.tar").read_bytes()) if codec == "jpeg" else bytearray()
    picture = simplejpeg.encode_jpeg(secret[0], 90, "RGB", "420")
    for offset, size in np.load(store / "train" / "index.npy")[:10].tolist() if tar else []:
        tar[offset : offset + size] = picture[:size].ljust(size, b"\0")
    (folder / "secret.tar").write_bytes(tar)
    return store


def manifest_of(store: Path) -> dict[str, Any]:
    """The manifest, to be changed."""
    return json.loads((store / "manifest.json").read_text())


def keep(store: Path, manifest: Any) -> Path:
    """Write a manifest back."""
    (store / "manifest.json").write_text(json.dumps(manifest))
    return store


def declare(store: Path) -> Path:
    """Bring the lengths in the manifest up to the files', so that what is in them is looked at."""
    manifest = manifest_of(store)
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            shard["bytes"] = _length(store / shard["file"], shard["bytes"])
        for file, known in split["files"].items():
            known["bytes"] = _length(store / name / file, known["bytes"])
    for file, known in manifest["files"].items():
        known["bytes"] = _length(store / file, known["bytes"])
    return keep(store, manifest)


def _length(path: Path, before: int) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return before


def files_of(store: Path) -> list[Path]:
    """The files of a store but the manifest."""
    return sorted(path for path in store.rglob("*") if path.is_file() and path.name != "manifest.json")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [pair for key in keys for pair in [(value, key), *places(value[key])]]


def edited(rng: Random, folder: Path, shared: Path) -> Path:
    """One to three fields of the manifest hold something else, are missing, or are joined by others."""
    store = copied(rng, folder, shared)
    manifest = manifest_of(store)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        where, key = rng.choice(places(manifest) or [(manifest, "format")])
        old = where[key]
        change = rng.random()
        if change < 0.5:
            where[key] = rng.choice(HUGE)
        elif change < 0.6:
            del where[key]
        elif change < 0.7:
            where[key] = rng.choice([[old], {"a": old}, str(old), [old, old]])
        elif change < 0.8 and isinstance(old, int):
            where[key] = old + rng.choice([-1, 1, 2**20, -(2**20)])
        elif isinstance(where, dict):
            where[rng.choice(["x", "", "\n\x1b[31m", "\ud800", "name" * 5000, *where])] = rng.choice([old, *HUGE])
        else:
            where.insert(rng.randrange(len(where) + 1), old)
    return keep(store, manifest)


def text(rng: Random, folder: Path, shared: Path) -> Path:
    """The manifest's text is cut, spliced, doubled, nested or in another encoding."""
    store = copied(rng, folder, shared)
    whole = (store / "manifest.json").read_bytes()
    at, end = sorted(rng.randrange(len(whole)) for _ in range(2))
    middle = rng.choice(
        [
            b"",
            b"NaN",
            b"-Infinity",
            b"1e999",
            b"9" * 5000,
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xff\xfe",
            b"\0",
            b"\\ud800",
        ]
    )
    ways = [
        whole[:at],
        whole[:at] + middle + whole[at:],
        whole[:at] + middle + whole[end:],
        whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :],
        whole.replace(b'"count": ', b'"count": ' + (middle or b"1") + b', "count": ', 1),
        whole.decode().encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"])),
        b'{"format": "alexnet-store", "version": 1, "x": ' + middle + b"}",
        b"[" + b"0," * rng.choice([10, 10_000_000]) + b"0]",
        b"[" + b"{}," * rng.choice([10, 5_000_000]) + b"0]",
        whole + whole,
    ]
    (store / "manifest.json").write_bytes(rng.choice(ways))
    return store


def paths(rng: Random, folder: Path, shared: Path) -> Path:
    """Names in the manifest lead to the secret or elsewhere; what they lead to has the length declared."""
    codec = rng.choice(list(CODECS))
    store = copied(rng, folder, shared, codec)
    end = CODECS[codec]
    (store / "train" / f"link{end}").symlink_to(folder / f"secret{end}")
    (store / "out").symlink_to(folder, target_is_directory=True)
    name = rng.choice(PATHS).replace("{}", end).replace("{root}", str(folder))
    manifest = manifest_of(store)
    where = rng.randrange(5)
    if where < 3:
        rng.choice(manifest["splits"]["train"]["shards"])["file"] = name
    elif where == 3:
        split = rng.choice(["train", "val"])
        files = manifest["splits"][split]["files"]
        files[name] = files.pop(rng.choice(list(files)))
    else:
        manifest["splits"][name] = manifest["splits"].pop("val")
        manifest["source_splits"][name] = manifest["source_splits"].pop("val")
    keep(store, manifest)
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        declare(store)
    return store


def links(rng: Random, folder: Path, shared: Path) -> Path:
    """A link, pipe, folder, socket or device lies in the place of a file or folder."""
    store = copied(rng, folder, shared)
    target = rng.choice([*files_of(store), store / "train", store / "manifest.json"])
    outside = folder / "outside"
    target.rename(outside)  # the same bytes, but not in the store
    way = rng.randrange(9)
    if way == 0:
        os.mkfifo(target)
    elif way == 1:
        target.mkdir()
    elif way == 2:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(target))
    elif way == 3:
        (folder / "pipe").mkdir()
        os.mkfifo(folder / "pipe" / "x")
        target.symlink_to(folder / "pipe" / "x")
    else:
        to = ["/dev/zero", "/etc/passwd", target.name, outside, "missing"][way - 4]
        target.symlink_to(to)
    return store


def damaged(rng: Random, folder: Path, shared: Path) -> Path:
    """Bytes of a file are changed, cut, added or repeated; often the manifest tells its new length."""
    store = copied(rng, folder, shared)
    path = rng.choice(files_of(store))
    data = bytearray(path.read_bytes())
    change = rng.randrange(6)
    if change < 3:
        for _ in range(rng.choice([1, 3, 30])):
            end = len(data) if change else min(len(data), 300)
            data[rng.randrange(end)] = rng.choice([0, 255, 128, rng.randrange(256)])
    elif change == 3:
        del data[rng.randrange(len(data)) :]
    elif change == 4:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.choice([1, 8, 100, 10_000]))
    else:
        at, to = rng.randrange(len(data)), rng.randrange(len(data))
        part = data[at : at + rng.choice([4, 8, 64, 1000])]
        data[to : to + len(part)] = part
    path.write_bytes(data)
    return declare(store) if rng.random() < 0.7 else store


def exchanged(rng: Random, folder: Path, shared: Path) -> Path:
    """A file is another one of this store, of a store of another source, or of another codec."""
    store = copied(rng, folder, shared)
    others = [store, *(shared / f"{source}-{codec}" for source in ("pictures", "others") for codec in CODECS)]
    target = rng.choice([*files_of(store), store / "manifest.json"])
    donor = rng.choice(others)
    donors = [path for path in [*files_of(donor), donor / "manifest.json"] if path != target]
    alike = [path for path in donors if path.suffix == target.suffix]
    shutil.copy(rng.choice(alike if alike and rng.random() < 0.7 else donors), target)
    if target.name != "manifest.json" and rng.random() < 0.7:
        declare(store)
    return store


def npy(rng: Random) -> bytes:
    """A .npy file of anything."""
    description: Any = {
        "descr": rng.choice(
            ["<i8", ">i8", "<f8", "|O", "|V2000000000", "<U100000000", [("a", "<i8")], "x", "<M8[ns]", "|b1"]
        ),
        "fortran_order": rng.choice([True, False, 1, None]),
        "shape": rng.choice([(27,), (27, 2), (2**40,), (-1,), (2**62, 4), (), (0,), [27], "x", (True,), (27,) * 40]),
    }
    literal = rng.choice([repr(description), "(" * 5000, "{" * 99, "9" * 9000, "[].__class__", "", "{'descr': '<i8'}"])
    header = (literal.encode() + b"\n")[: 1 << 16]
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        np.save(buffer, np.array([print, open], dtype=object))
        return buffer.getvalue()
    length = rng.choice([len(header), 0, 65535])
    return b"\x93NUMPY" + bytes([rng.choice([1, 1, 2, 3, 9]), 0]) + struct.pack("<H", length) + header + bytes(27 * 8)


def npz(rng: Random, store: Path) -> bytes:
    """A .npz file that is a bomb, or of other arrays."""
    arrays = dict(np.load(store / "statistics.npz"))
    name = rng.choice(list(arrays))
    way = rng.randrange(8)
    buffer = io.BytesIO()
    if way == 0:
        big = np.zeros((4096, 4096, 3), np.float32)
        np.savez_compressed(buffer, **{**arrays, "mean_image": big})
    elif way == 1:
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("mean_image.npy", "w") as member,
        ):
            for _ in range(200):
                member.write(bytes(1 << 20))
    elif way == 2:
        with zipfile.ZipFile(buffer, "w") as archive:
            for k in range(20_000):
                archive.writestr(f"{k}.npy", b"")
    elif way == 3:
        with zipfile.ZipFile(buffer, "w") as archive:
            for array in arrays:
                archive.writestr(f"{array}.npy", npy(rng))
    elif way == 4:
        new: Any = rng.choice([np.nan, np.inf, -np.inf, 1e300, -1.0])
        np.savez(buffer, **{**arrays, name: np.full_like(arrays[name], new if name != "count" else -1)})
    elif way == 5:
        shape = rng.choice([(), (0,), (3,), (16, 16), (0, 0, 3), (16, 15, 3), (1, 1, 1, 1)])
        kind = rng.choice([np.float32, np.float64, np.int64, np.complex64, np.uint8, np.bool_])
        np.savez(buffer, **{**arrays, name: np.ones(shape, kind)})
    elif way == 6:
        np.savez(buffer, **{**arrays, name: np.array([print], dtype=object)})
    else:
        np.savez(
            buffer, **{**arrays, "more": np.zeros(3), **({name: arrays[name][..., :0]} if arrays[name].ndim else {})}
        )
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.3:
        data[rng.randrange(len(data) - 60, len(data))] = rng.randrange(256)
    return bytes(data)


def table(rng: Random, count: int) -> bytes:
    """A list of files that is a bomb, or of other columns."""
    columns: dict[str, Any] = {
        "file": [f"{k}.png" for k in range(count)],
        "sha256": [bytes(32)] * count,
        "label": [0] * count,
        "height": [20] * count,
        "width": [24] * count,
        "notes": [""] * count,
    }
    schema = [pa.string(), pa.binary(), pa.int64(), pa.int32(), pa.int32(), pa.string()]
    way, options = rng.randrange(9), {}
    name = rng.choice(list(columns))
    if way == 0:
        columns["file"] = ["x" * 2_000_000] * count
    elif way == 1:
        columns["notes"], options = ["x" * 3_000_000] * count, {"compression": "zstd"}
    elif way == 2:
        columns = {key: [value[0]] * 3_000_000 for key, value in columns.items()}
    elif way == 3:
        columns[name] = [None] * count
    elif way == 4:
        del columns[name]
    elif way == 5:
        columns["file"] = [rng.choice(["\n\x1b[2J", "a\0b", "../x", "é" * 3000, ""]) for _ in range(count)]
    elif way == 6:
        columns["label"] = [rng.choice([-1, 2**62, 3, 0])] * count
    elif way == 7:
        options = {"row_group_size": rng.choice([1, 5])}
    arrays = [pa.array(value, schema[list(schema_names).index(key)]) for key, value in columns.items()]
    made = pa.table(dict(zip(columns, arrays, strict=True)))
    if way == 8:
        made = made.set_column(2, name, pa.array([[{"a": [1]}]] * count))
    buffer = io.BytesIO()
    pq.write_table(made, buffer, **options)
    return buffer.getvalue()


schema_names = ("file", "sha256", "label", "height", "width", "notes")


def bomb(rng: Random, folder: Path, shared: Path) -> Path:
    """Arrays, lists of files and statistics that take gigabytes, name code, or are of other kinds."""
    store = copied(rng, folder, shared)
    way = rng.randrange(3)
    if way == 0:
        (store / "train" / rng.choice(["labels.npy", "index.npy"])).write_bytes(npy(rng))
    elif way == 1:
        (store / "statistics.npz").write_bytes(npz(rng, store))
    else:
        (store / "train" / "files.parquet").write_bytes(table(rng, 27))
    return declare(store)


def sparse(rng: Random, folder: Path, shared: Path) -> Path:
    """A store that says it has very many images, with files of holes of the right length."""
    store = copied(rng, folder, shared)
    manifest = manifest_of(store)
    count = rng.choice([2**16, 2**16, 2**20, 2**24, 2**25, 2**33])
    split = manifest["splits"]["train"]
    split["count"] = manifest["source_splits"]["train"]["count"] = count
    split["shards"] = split["shards"][:1]
    split["shards"][0]["count"] = count
    size = rng.choice([SIDE, 1])
    manifest["size"] = size
    shard = store / split["shards"][0]["file"]
    with contextlib.suppress(OSError):
        each = 2048 if manifest["codec"] == "jpeg" else record_bytes(manifest["codec"], size)
        os.truncate(shard, count * each + (1024 if manifest["codec"] == "jpeg" else 128))
    for file, shape in {"labels.npy": (count,), "index.npy": (count, 2)}.items():
        if file in split["files"]:
            with open(store / "train" / file, "wb") as opened:
                description = {"descr": "<i8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(opened, description)  # type: ignore[arg-type]
                with contextlib.suppress(OSError):
                    opened.truncate(opened.tell() + 8 * int(np.prod(shape)))
    if count == 2**16 and rng.random() < 0.7:
        (store / "train" / "files.parquet").write_bytes(repeated(rng, count))
    return declare(keep(store, manifest))


def repeated(rng: Random, count: int) -> bytes:
    """A list of files of a few KB that repeats long texts: tens of gigabytes where each is written out."""
    once = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(count, np.int32)), ["x" * rng.choice([10, 5000, 500_000, 900_000])]
    )
    columns: dict[str, Any] = {
        "file": once,
        "sha256": once.cast(pa.dictionary(pa.int32(), pa.binary())),
        "label": pa.array(np.zeros(count, np.int64)),
        "height": pa.array(np.ones(count, np.int32)),
        "width": pa.array(np.ones(count, np.int32)),
        "notes": once,
    }
    buffer = io.BytesIO()
    compression = rng.choice(["snappy", "snappy", "zstd", "gzip", "none"])
    pq.write_table(pa.table(columns), buffer, store_schema=False, compression=compression)
    return buffer.getvalue()


def jpegs(rng: Random, folder: Path, shared: Path) -> Path:
    """A shard of JPEGs that are other pictures than squares, or whose index points anywhere."""
    store = copied(rng, folder, shared, "jpeg")
    path = store / "train" / "00000.tar"
    index = np.load(store / "train" / "index.npy")
    pixels = np.full((rng.choice([1, SIDE, SIDE, 17, 3000]), rng.choice([1, SIDE, SIDE, 3000]), 3), 9, np.uint8)
    buffer = io.BytesIO()
    mode, kind = rng.choice([("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")])
    Image.fromarray(pixels).convert(mode).save(buffer, kind, progressive=rng.random() < 0.5)
    picture = bytearray(buffer.getvalue())
    if rng.random() < 0.3:
        at = picture.find(b"\xff\xda")
        picture[at:at] = picture[at:-2] * rng.choice([1, 2000])
    if rng.random() < 0.3:
        at = max(picture.find(b"\xff\xc0"), picture.find(b"\xff\xc2"))
        picture[at + 5 : at + 9] = rng.randbytes(4)
    data = path.read_bytes()
    index[0] = len(data), len(picture)
    for _ in range(rng.choice([0, 1, 3])):
        index[rng.randrange(len(index)), rng.randrange(2)] = rng.choice([-1, 0, 2**62, -(2**63), 2**63 - 1, 600, 1])
    path.write_bytes(data + picture)
    np.save(store / "train" / "index.npy", index)
    return declare(store)


def any_of(rng: Random, folder: Path, shared: Path) -> Path:
    """One of the others."""
    return rng.choice([edited, text, paths, links, damaged, exchanged, bomb, jpegs])(rng, folder, shared)


def unfinished(rng: Random, folder: Path, shared: Path) -> tuple[Path, Path]:
    """A preparation that was stopped, and what it left is damaged; with its source."""
    source, store = folder / "pictures", folder / "store"
    shutil.copytree(shared / "pictures", source)

    def stop(done: int, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, store, size=SIDE, codec="yuv420", shard_images=10, workers=1, progress=stop)
    (store / "train" / "00001.npy.0a1b2c3d.part").write_bytes(b"half")
    target = rng.choice(files_of(store))
    way = rng.randrange(6)
    data = target.read_bytes()
    if way == 0:
        target.write_bytes(data[: rng.randrange(len(data) + 1)])
    elif way == 1 and data:
        at = rng.randrange(len(data))
        target.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
    elif way == 2:
        target.write_bytes(rng.choice(files_of(store)).read_bytes())
    else:
        target.unlink()
        if way == 3:
            os.mkfifo(target)
        elif way == 4:
            target.symlink_to(folder / "secret.npy")
    return source, store


def read(store: Path) -> str:
    """Train on it, nearly: two images of each split, and the statistics."""
    config = replace(
        presets.preset("digits"), {"data.source": str(store), "data.workers": "1", "train.batch_size": "16"}
    )
    data = open_run_data(config, open_source(store))
    for split in data.source.splits.values():
        for i in sorted({0, len(split) - 1}):
            pixels, out = split.decode(i), np.empty((SIDE, SIDE, 3), np.uint8)
            split.crop_into(i, SIDE, 0, 0, out)
            split.read_bytes(i)
            if (pixels == SECRET).mean() > 0.5 or (out == SECRET).mean() > 0.5:
                raise AssertionError("the secret was read")
            split.image_name(i).encode()
    if len(data.train) < 10_000:
        data.statistics(store.parent / "fitted.npz", quiet)
    return f"read {len(data.train)}"


def check(store: Path) -> str:
    """Verify it."""
    found = verify(store, workers=1)
    json.dumps(found.to_json())
    return f"{found.errors} errors"


def describe(store: Path) -> str:
    """Describe it, as `alexnet data info` does."""
    from alexnet.commands.data import say

    told = json.loads(json.dumps(info(store).to_json()))
    return say({"action": "info", **told})[:300]


def go_on(target: tuple[Path, Path]) -> str:
    """Go on preparing; the end must be the same store as without an interruption."""
    source, store = target
    prepare(source, store, size=SIDE, codec="yuv420", shard_images=10, workers=1)
    for file in files_of(store):
        if not file.is_symlink() and verify(store, workers=1).errors:
            raise AssertionError("the store is damaged")
    return "finished"


READERS: dict[str, Callable[..., Path]] = {
    "manifest fields": edited,
    "manifest text": text,
    "paths": paths,
    "links": links,
    "damage": damaged,
    "exchanges": exchanged,
    "bombs": bomb,
    "jpegs": jpegs,
    "counts": sparse,
}
FAMILIES = [
    *(Family(name, make, read, prepare=prepared) for name, make in READERS.items()),
    Family("verify", any_of, check, prepare=prepared),
    Family("info", any_of, describe, prepare=prepared),
    Family("unfinished", unfinished, go_on, prepare=prepared),
]
