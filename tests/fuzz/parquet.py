"""Hostile Parquet files: other schemas, footers and pages changed, bombs, and descriptions that make no sense."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.archives import picture, use
from tests.fuzz.harness import Family, Limits

LIMITS = Limits(seconds=5, memory=600)
MIB = 1 << 20


def described(names: Any = ("cat", "dog")) -> dict[bytes, bytes]:
    label = {"names": list(names) if isinstance(names, tuple) else names, "_type": "ClassLabel"}
    return {b"huggingface": json.dumps({"info": {"features": {"label": label, "image": {"_type": "Image"}}}}).encode()}


def columns(rows: int = 6) -> dict[str, pa.Array]:
    images = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(rows)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return {"image": pa.array(images, kind), "label": pa.array([i % 2 for i in range(rows)], pa.int64())}


def table(held: dict[str, pa.Array] | None = None, metadata: dict[bytes, bytes] | None = None) -> pa.Table:
    held = columns() if held is None else held
    return pa.table(held).replace_schema_metadata(described() if metadata is None else metadata)


def written(folder: Path, content: pa.Table | bytes, name: str = "train-0.parquet", **options: Any) -> Path:
    (folder / "set").mkdir(exist_ok=True)
    if isinstance(content, bytes):
        (folder / "set" / name).write_bytes(content)
    else:
        pq.write_table(content, folder / "set" / name, **options)
    return folder / "set"


def options(rng: Random) -> dict[str, Any]:
    return {
        "compression": rng.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "use_dictionary": rng.random() < 0.5,
        "row_group_size": rng.choice([1, 2, 100]),
        "data_page_version": rng.choice(["1.0", "2.0"]),
        "version": rng.choice(["1.0", "2.4", "2.6"]),
        "write_page_index": rng.random() < 0.3,
        "store_schema": rng.random() < 0.8,
    }


def whole(rng: Random, folder: Path) -> Path:
    written(folder, table(), "test-0.parquet", **options(rng))
    return written(folder, table(), **options(rng))


def schemas(rng: Random, folder: Path) -> Path:
    """Columns of other types, names and numbers than are expected, and shards that differ."""
    n = 6
    blobs = [picture(i) for i in range(n)]

    def image() -> pa.Array:
        inner = rng.choice(
            [
                pa.array(blobs, pa.binary()),
                pa.array(blobs, pa.large_binary()),
                pa.array([str(i) for i in range(n)]),
                pa.array([float(i) for i in range(n)]),
                pa.array([blobs[:1]] * n, pa.list_(pa.binary())),
                pa.array([None] * n, pa.binary()),
                pa.array(blobs, pa.binary()).dictionary_encode(),
                pa.array([None] * n, pa.null()),
            ]
        )
        path = rng.choice(
            [
                pa.array([f"{i}" for i in range(n)]),
                pa.array([i for i in range(n)]),
                pa.array([b"\xff%d" % i for i in range(n)], pa.binary()),
                pa.array([None] * n, pa.string()),
                pa.array(["x" * 100_000] * n),
                pa.array(["a\n\x1b[2J"] * n),
                pa.array([["a"]] * n),
                pa.array(blobs, pa.binary()).view(pa.string()) if hasattr(pa.Array, "view") else None,
            ]
        )
        what = rng.randrange(5)
        if what == 0:
            return inner
        if what == 1:
            return pa.StructArray.from_arrays([inner], ["bytes"])
        if what == 2:
            return pa.StructArray.from_arrays([inner, inner, path], ["bytes", "bytes", "path"])
        if what == 3:
            outer = pa.StructArray.from_arrays([inner, path], ["bytes", "path"])
            return pa.ListArray.from_arrays(pa.array(range(n + 1), pa.int32()), outer)
        return pa.StructArray.from_arrays([path, inner], ["path", "bytes"])

    def label() -> pa.Array:
        return rng.choice(
            [
                pa.array([i % 2 for i in range(n)], rng.choice([pa.int8(), pa.uint8(), pa.int32(), pa.uint64()])),
                pa.array([rng.choice([0, 1, 2**63 - 1, -(2**63), 2**20, 5 * 10**7, -1]) for _ in range(n)], pa.int64()),
                pa.array([2**64 - 1] * n, pa.uint64()),
                pa.array([-1] * n),
                pa.array([0, 1, None, 0, 1, None]),
                pa.array([0.0, 1.0, float("nan"), float("inf"), 1.0, 0.0]),
                pa.array(["cat", "dog"] * 3),
                pa.array(["cat", "dog"] * 3).dictionary_encode(),
                pa.array([True, False] * 3),
                pa.array([[0], [1]] * 3),
                pa.array([{"label": 1}] * n),
                pa.array([None] * n, pa.null()),
            ]
        )

    def pairs() -> pa.Table:
        held = [(rng.choice(["image", "img", "", "a.b", "label.x", "\x1b[2J"]), image())]
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            held.append((rng.choice(["label", "label", "labels", "fine_label", "klass"]), label()))
        if rng.random() < 0.2:
            held.append(rng.choice(held))
        rng.shuffle(held)
        return pa.Table.from_arrays([array for _, array in held], [name for name, _ in held])

    one = pairs() if rng.random() < 0.8 else table()
    two = rng.choice([one, table(), pairs()])
    for name, content in (("train-0.parquet", one), ("train-1.parquet", two), ("test-0.parquet", one)):
        content = content.replace_schema_metadata(described()) if rng.random() < 0.5 else content
        try:
            path = written(
                folder, content if rng.random() < 0.9 else content.slice(0, 0), name, store_schema=rng.random() < 0.7
            )
        except pa.ArrowException:  # a type that cannot be written
            path = written(folder, b"PAR1", name)
    return path


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def features(rng: Random, folder: Path) -> Path:
    """What the Hugging Face library would say of the classes, said wrongly."""
    names = rng.choice(
        [
            None, [], "catdog", 7, 1.5, True, ["cat"], ["cat", "cat"], ["cat", 7], ["cat", None], ["cat", ["dog"]],
            ["x" * 100_000, "y"], [f"{i}" for i in range(70_000)], {"0": "cat", "1": "dog"}, {"1": "dog", "0": "cat"},
            {"a": "cat"}, {"0": "cat", "2": "dog"}, {"-1": "a", "0": "b"}, {"0" * 5000: "x"}, {}, nested(500),
            ["", "b"], ["a\nb", "\x1b[2J"], ["\ud800", "b"],
        ]
    )  # fmt: skip
    text = rng.choice(
        [
            described(names)[b"huggingface"], described(names)[b"huggingface"], described(names)[b"huggingface"],
            b"", b"{", b"[" * 100_000, b'{"info":' * 50_000, b"null", b"[]", b"7", b"\xff\xfe", b"[[]," * MIB,
            json.dumps({"info": rng.choice([None, [], 1, {"features": rng.choice([None, [], 3])}])}).encode(),
            json.dumps({"info": {"features": {"gone": {"_type": "ClassLabel", "names": ["a", "b"]}}}}).encode(),
            json.dumps({"info": {"features": {"klass": {"_type": "ClassLabel", "names": ["a", "b"]}}}}).encode(),
        ]
    )  # fmt: skip
    held = columns()
    if rng.random() < 0.3:
        held["klass"] = held.pop("label")
    if rng.random() < 0.5:
        written(folder, table(held), "test-0.parquet")
    return written(folder, table(held, {b"huggingface": text}))


def noise(rng: Random, folder: Path) -> Path:
    """Random bytes, cuts and splices: in the pages, in the footer, or in its length."""
    path = written(folder, table(), **options(rng)) / "train-0.parquet"
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    low, high = rng.choice([(0, len(data)), (4, len(data) - footer - 8), (len(data) - footer - 8, len(data) - 8)])
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(low, high)
        what = rng.randrange(6)
        if what < 3:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif what == 3:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 4:
            data[at : at + 5] = b"\xff\xff\xff\xff\x0f"
        else:
            start = rng.randrange(low, high)
            data[at : at + 8] = data[start : start + 8]
    if rng.random() < 0.1:
        data[-8:-4] = rng.choice([0, 1, footer - 1, footer + 1, 2**31, 2**32 - 1]).to_bytes(4, "little")
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    path.write_bytes(data)
    return folder / "set"


def bombs(rng: Random, folder: Path) -> Path:
    """A few kilobytes that expand: by compression, by a dictionary, by differences, by counts."""
    what = rng.randrange(6)
    size = rng.choice([1, 20, 200]) * MIB
    packed = rng.choice(["gzip", "zstd", "snappy", "lz4", "brotli"])
    if what == 0:  # one value, packed well
        held = {"image": pa.array([bytes(size)] * 2, pa.binary()), "label": pa.array([0, 1])}
        return written(folder, table(held), compression=packed, use_dictionary=False)
    if what == 1:  # one value for very many rows
        rows = rng.choice([100, 10_000])
        held = {
            "image": pa.DictionaryArray.from_arrays(
                pa.array([0] * rows, pa.int32()), pa.array([bytes(min(size, 20 * MIB))])
            )
        }
        held["label"] = pa.array([0, 1] * (rows // 2))
        return written(folder, table(held), compression=packed, dictionary_pagesize_limit=1 << 30, store_schema=False)
    if what == 2:  # differences: each value begins as the one before
        held = {"image": pa.array([bytes(MIB)] * 100, pa.binary()), "label": pa.array([0, 1] * 50)}
        kind = rng.choice(["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
        return written(
            folder,
            table(held),
            compression=packed,
            use_dictionary=False,
            column_encoding={"image": kind, "label": "PLAIN"},
        )
    if what == 3:  # very many labels
        held = {"image": pa.array([b""] * MIB, pa.binary()), "label": pa.array([0] * MIB)}
        return written(folder, table(held), compression=packed)
    if what == 4:  # names instead of images
        held = columns(2)
        path = pa.array(["n" * size] * 2)
        held["image"] = pa.StructArray.from_arrays([held["image"].field("bytes"), path], ["bytes", "path"])
        return written(folder, table(held), compression=packed, use_dictionary=rng.random() < 0.5)
    held = columns(4) | {f"c{i}": pa.array([0] * 4) for i in range(rng.choice([100, 3000]))}
    return written(folder, table(held), row_group_size=rng.choice([1, 4]))


def places(rng: Random, folder: Path) -> Path:
    """Pipes, folders, links and other files in a shard's place."""
    path = written(folder, table())
    odd = path / rng.choice(["train-0.parquet", "test-0.parquet"])
    odd.unlink(missing_ok=True)
    what = rng.randrange(5)
    if what == 0:
        os.mkfifo(odd)
    elif what == 1:
        odd.mkdir()
    elif what == 2:
        odd.symlink_to(rng.choice(["nowhere", odd.name, "/dev/null", ".."]))
    elif what == 3:
        odd.write_bytes(
            rng.choice([b"", b"PAR1", b"PAR1" * 3, b"PARE" * 5, bytes(100), b"PAR1" + b"\xff" * 4 + b"PAR1"])
        )
    else:
        os.mkfifo(folder / "pipe.parquet")
        return folder / "pipe.parquet"
    return rng.choice([path, odd])


FAMILIES = [
    Family("parquet whole", whole, use, LIMITS),
    Family("parquet schemas", schemas, use, LIMITS),
    Family("parquet features", features, use, LIMITS),
    Family("parquet noise", noise, use, LIMITS),
    Family("parquet bombs", bombs, use, LIMITS),
    Family("parquet places", places, use, LIMITS),
]
