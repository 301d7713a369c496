"""Hostile ImageNet archives: `meta.mat` changed outside and inside what is compressed, ground truths, devkits, tars."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.io

from tests.fuzz.archives import block, number, padded, picture, shard, signed, use
from tests.fuzz.harness import Family, Limits

LIMITS = Limits(seconds=5, memory=400)
MIB = 1 << 20
KIT, TOP = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12/data/"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
FIELDS = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
ROWS: list[list[Any]] = [
    [1, "n00000001", "kit fox, Vulpes", "a fox", 0, np.zeros((1, 0)), 0, 2],
    [2, "n00000002", "tench", "a fish", 0, np.zeros((1, 0)), 0, 2],
    [3, "n00000003", "entity", "all", 2, np.array([[1, 2]]), 1, 4],
]


def mat(rows: list[list[Any]], compressed: bool, fields: list[str] = FIELDS) -> bytes:
    array = np.empty((len(rows), 1), dtype=[(name, "O") for name in fields])
    for i, row in enumerate(rows):
        array[i, 0] = tuple(row)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": array}, do_compression=compressed)
    return buffer.getvalue()


def written(
    folder: Path, meta: bytes, truth: bytes = b"1\n2\n2\n", kit: bytes | None = None, outer: bytes | None = None
) -> Path:
    root = folder / "imagenet"
    root.mkdir()
    inner = [(f"n0000000{i}.tar", shard([(f"n0000000{i}_{k}.JPEG", picture(k)) for k in range(2)])) for i in (1, 2)]
    (root / "ILSVRC2012_img_train.tar").write_bytes(shard(inner) if outer is None else outer)
    val = [(f"ILSVRC2012_val_{i:08d}.JPEG", picture(i)) for i in range(3)]
    (root / "ILSVRC2012_img_val.tar").write_bytes(shard(val))
    files = shard([(TOP + "meta.mat", meta), (TOP + TRUTH, truth)])
    (root / KIT).write_bytes(gzip.compress(files, 1) if kit is None else kit)
    return root


def whole(rng: Random, folder: Path) -> Path:
    return written(folder, mat(ROWS, rng.random() < 0.5))


def mutated(rng: Random, data: bytes) -> bytes:
    """Random bytes, tags of elements and cuts."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out))
        what = rng.randrange(5)
        if what < 2:
            out[at] = rng.choice([0, 1, 14, 15, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif what < 4:  # a tag: elements begin at multiples of eight
            at -= at % 8
            size = rng.choice([0, 1, 4, 5, 8, len(out), 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(300)])
            out[at : at + 8] = struct.pack(
                "<II", rng.choice([1, 2, 5, 6, 9, 14, 15, 16, 17, 18, 99, 4 << 16 | 5]), size
            )
        else:
            start, length = rng.randrange(len(out)), rng.choice([1, 8, 64, 500])
            out[at : at + length] = out[start : start + length]
    return bytes(out[: rng.randrange(len(out)) if rng.random() < 0.1 else None])


def outside(rng: Random, folder: Path) -> Path:
    """Bytes of `meta.mat` changed as they lie in the file."""
    return written(folder, mutated(rng, mat(ROWS, rng.random() < 0.3)))


def inside(rng: Random, folder: Path) -> Path:
    """Bytes changed within what is compressed, which is compressed again."""
    data = mat(ROWS, True)
    size = struct.unpack_from("<I", data, 132)[0]
    packed = zlib.compress(mutated(rng, zlib.decompress(data[136 : 136 + size])))
    return written(folder, data[:128] + struct.pack("<II", 15, len(packed)) + packed)


def values(rng: Random, folder: Path) -> Path:
    """Whole files whose ids, names and counts are wrong."""
    odd = [0, -1, 1, 2, 3, 2.5, 2**31, 2**63, float("nan"), float("inf"), "", "1", "n00000001", "x" * 70_000, "n1\n"]
    arrays = [np.zeros((0, 0)), np.arange(4), np.array([["a", "b"]]), np.zeros((3, 3)), True, 1j, np.array([[None]])]
    rows = [list(row) for row in ROWS]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        row[rng.choice([0, 1, 2, 4])] = rng.choice([*odd, *arrays])
    rows = rng.choice([rows, rows, rows, rows * 2, rows[:1], [], rows[::-1]])
    fields = list(FIELDS)
    if rng.random() < 0.2:
        fields[rng.randrange(8)] = rng.choice(["x", "ILSVRC2010_ID", "WNIDs"])
    try:
        return written(folder, mat(rows, rng.random() < 0.5, fields))
    except (ValueError, TypeError, scipy.io.matlab.MatWriteError):  # what cannot be saved
        return written(folder, mat(rows[:0], False))


def truths(rng: Random, folder: Path) -> Path:
    """Ground truths that are none."""
    text = rng.choice(
        [
            b"", b"1\n2\n", b"1\n2\n3\n", b"0\n1\n2\n", b"-1\n1\n2\n", b"1 2 2", b"1\n2\n2\n2\n", b"1.0\n2\n2\n",
            b"cat\n", b"\xff\xfe1\n", b"1_0\n2\n2\n", b"9" * MIB, b"1\n" * (4 * MIB), b"1" + b" " * (7 * MIB),
            b"9" * 20 + b"\n1\n1\n", b"\0" * MIB, "١\n2\n2\n".encode(), b"1\r\n2\r\n2\r\n", b"x" * 9 * MIB,
        ]
    )  # fmt: skip
    return written(folder, mat(ROWS, True), text)


def kits(rng: Random, folder: Path) -> Path:
    """Devkits that expand without end, are damaged, or hold other things than they should."""
    meta = mat(ROWS, True)
    files = shard([(TOP + "meta.mat", meta), (TOP + TRUTH, b"1\n2\n2\n")])
    what = rng.randrange(9)
    if what == 0:  # zeros that expand a thousandfold, once or again and again
        stream = zlib.compressobj(9, zlib.DEFLATED, 31)
        block_of_zeros = bytes(MIB)
        kit = b"".join(stream.compress(block_of_zeros) for _ in range(rng.choice([10, 100, 300]))) + stream.flush()
    elif what == 1:
        kit = bytearray(gzip.compress(files, 1))
        for _ in range(rng.randint(1, 5)):
            kit[rng.randrange(len(kit))] = rng.randrange(256)
        kit = bytes(kit)
    elif what == 2:
        kit = gzip.compress(files)[: rng.randrange(2, 900)]
    elif what == 3:  # one member is a bomb
        kit = gzip.compress(shard([(TOP + rng.choice(["meta.mat", TRUTH, "other"]), bytes(20 * MIB)), ("x", files)]), 1)
    elif what == 4:  # a bomb in the MATLAB file
        stream = zlib.compressobj(9)
        packed = b"".join(stream.compress(bytes(MIB)) for _ in range(rng.choice([2, 20, 200]))) + stream.flush()
        repeated = (struct.pack("<II", 15, len(packed)) + packed) * rng.choice([1, 3, 30])
        return written(folder, meta[:128] + repeated[: 7 * MIB])
    elif what == 5:  # a name in gzip's header that does not end
        kit = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * rng.choice([100, 10 * MIB])
    elif what == 6:
        header = block((TOP + "meta.mat").encode(), number(rng))
        kit = gzip.compress(header + padded(meta) + files)
    elif what == 7:
        kit = files if rng.random() < 0.5 else rng.choice([b"", b"PK\3\4", b"BZh91AY", bytes(2000)])
    else:  # very many records
        root = written(folder, b"")
        (root / "meta.mat").write_bytes(records(rng.choice([1000, 30_000, 200_000, 2**32 - 1])))
        return root
    return written(folder, meta, kit=kit)


def records(count: int) -> bytes:
    """A struct array of empty fields, as many as fit."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    names = b"".join(name.encode().ljust(32, b"\0") for name in ("ILSVRC2012_ID", "WNID", "words", "num_children"))
    head = element(6, struct.pack("<II", 2, 0)) + element(5, struct.pack("<II", count, 1)) + element(1, b"synsets")
    head += struct.pack("<HHi", 5, 4, 32) + element(1, names)
    body = struct.pack("<II", 14, 0) * min(4 * count, 800_000)
    packed = zlib.compress(element(14, head + body))
    return bytes(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed


def tars(rng: Random, folder: Path) -> Path:
    """The tar of tars with changed headers, and other things where files should be."""
    meta = mat(ROWS, True)
    inner = [(f"n0000000{i}.tar", shard([(f"n0000000{i}_{k}.JPEG", picture(k)) for k in range(2)])) for i in (1, 2)]
    data = bytearray(shard(inner))
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(0, len(data), 512)
        header = bytearray(data[at : at + 512])
        if rng.random() < 0.5:
            field = number(rng)
            header[124 : 124 + len(field)] = field
        else:
            name = rng.choice([b"n00000009.tar", b"n00000001.tar", b"../x.tar", b"image.JPEG", b"\xff\n.tar"])
            header[: len(name) + 1] = name + b"\0"
        data[at : at + 512] = signed(header)
    root = written(folder, meta, outer=bytes(data))
    if rng.random() < 0.5:
        odd = root / rng.choice(["ILSVRC2012_img_val.tar", KIT, "meta.mat", TRUTH, "ILSVRC2012_devkit_t12", "data"])
        odd.unlink(missing_ok=True)
        rng.choice(
            [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path), lambda path: os.symlink(path, path)]
        )(odd)
    return root


FAMILIES = [
    Family("ilsvrc whole", whole, use, LIMITS),
    Family("ilsvrc mat outside", outside, use, LIMITS),
    Family("ilsvrc mat inside", inside, use, LIMITS),
    Family("ilsvrc values", values, use, LIMITS),
    Family("ilsvrc truths", truths, use, LIMITS),
    Family("ilsvrc kits", kits, use, LIMITS),
    Family("ilsvrc tars", tars, use, LIMITS),
]
