"""Hostile tars and WebDataset shards: bytes and header fields changed with checksums put right, bombs, wrong labels."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
from PIL import Image

# Imported here, once: every case is a fork of this process.
from alexnet.data.dataset import Source
from alexnet.data.readers import hub, ilsvrc, parquet, store, webdataset  # noqa: F401
from alexnet.data.readers.open import open_source
from alexnet.errors import UnreadableImage
from tests.fuzz.harness import Family, Limits

pa.array(np.zeros(1)).to_numpy()  # this imports much, on its first call
BLOCK = 512
LIMITS = Limits(seconds=5, memory=200)
NUMBERS = [0, 1, 255, 511, 512, 513, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 33) - 1, (1 << 63) - 1, 1 << 63]
LABELS: list[object] = [
    *(-1, 2**20, 2**20 - 1, 32_768, 5 * 10**7, 2**31, 2**63, 2**64, 10**100, 1.0, 0.5, 1e400, -1e400, float("nan")),
    *(True, None, "", "cat", "1", "1_0", " 1 ", "٣", "9" * 5000, [], [1], [[[]]], {}, {"label": 1}, "\0", "\n"),
]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (seed % 256, 99, 3)).save(buffer, "JPEG" if seed % 2 else "PNG")
    return buffer.getvalue()


def use(path: Path) -> str:
    """Open a source as training does and read two images of every split, and their names."""
    return look(open_source(path))


def look(source: Source) -> str:
    found = []
    for name, split in source.splits.items():
        for i in (0, len(split) - 1):
            split.image_name(i)
            try:
                found.append(f"{name} {split.resize_crop(i, 16).shape[0]}")
            except UnreadableImage as error:
                assert 0 < len(str(error)) < 1000 and str(error).isprintable()
    return ", ".join(found) or "nothing readable"


def signed(header: bytearray) -> bytes:
    """A header with its checksum put right, so that what is wrong reaches the reader."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def block(name: bytes, size: bytes | int, kind: bytes = b"0") -> bytes:
    header = bytearray(BLOCK)
    header[: len(name)] = name[:100]
    field = b"%011o" % size if isinstance(size, int) else size
    header[124 : 124 + len(field)] = field
    header[156:157] = kind
    header[257:265] = b"ustar\00000"
    return signed(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    digits = 1
    while True:
        length = digits + len(key) + len(value) + 3
        if len(str(length)) == digits:
            return b"%d %s=%s\n" % (length, key, value)
        digits += 1


def shard(samples: list[tuple[str, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def good(rng: Random) -> list[tuple[str, bytes]]:
    samples = []
    for i in range(4):
        stem = rng.choice(["", "a/b/", "x" * 90 + "/", "y" * 200 + "/" * rng.randint(0, 1)]) + f"{i:04d}"
        samples.append((f"{stem}.{rng.choice(['jpg', 'png', 'JPEG'])}", picture(i)))
        if rng.random() < 0.5:
            samples.append((f"{stem}.cls", b"%d" % (i % 2)))
        else:
            samples.append((f"{stem}.json", b'{"label": %d}' % (i % 2)))
    return samples


def written(folder: Path, data: bytes, name: str = "set-train-0.tar") -> Path:
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "shards" / name).write_bytes(data)
    return folder / "shards"


def whole(rng: Random, folder: Path) -> Path:
    return written(folder, shard(good(rng), rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))


def number(rng: Random) -> bytes:
    """A size field: octal, base 256, negative, or nonsense."""
    value = rng.choice(NUMBERS)
    return rng.choice(
        [
            b"%011o" % (value % 8**11),
            b"\x80" + value.to_bytes(11, "big"),
            b"\xff" + bytes(rng.randrange(256) for _ in range(11)),
            b"-%010o" % (value % 8**10),
            b"0x%09x" % (value % 16**9),
            b" " * 12,
            b"",
            bytes(rng.randrange(256) for _ in range(12)),
        ]
    )


def fields(rng: Random, folder: Path) -> Path:
    """Headers whose fields are others', extreme or nonsense, with right checksums."""
    data = bytearray(shard(good(rng), rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))
    headers = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.randint(1, 4)):
        at = rng.choice(headers)
        header = bytearray(data[at : at + BLOCK])
        what = rng.randrange(5)
        if what == 0:
            field = number(rng)
            header[124 : 124 + len(field)] = field[:12]
        elif what == 1:
            header[156] = rng.choice(b"0123456789LKxXgSDMNVA\0\xff")
        elif what == 2:
            name = rng.choice(
                [b"../../up.jpg", b"/etc/passwd", b"", b"\0", b"\xff" * 100, b"a\n\x1b[2J.jpg", b"." * 99, b"/" * 99]
            )
            header[: len(name)] = name
        elif what == 3:
            header[257:265] = rng.choice([b"ustar  \0", b"ustar\00000", b"\0" * 8])
            header[345:500] = bytes(rng.randrange(256) for _ in range(155))
        else:
            for _ in range(rng.randint(1, 8)):
                header[rng.randrange(BLOCK)] = rng.randrange(256)
        data[at : at + BLOCK] = signed(header)
    return written(folder, bytes(data))


def noise(rng: Random, folder: Path) -> Path:
    """Random bytes, cuts and splices anywhere."""
    data = bytearray(shard(good(rng), rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 2, 8, 100, 512, 1000, 4096])
        what = rng.randrange(4)
        if what == 0:
            data[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
        elif what == 1:
            del data[at : at + length]
        elif what == 2:
            data[at:at] = data[(start := rng.randrange(len(data) + 1)) : start + length]
        else:
            data = data[: max(at, 1)]
    return written(folder, bytes(data))


def pax(rng: Random, folder: Path) -> Path:
    """Extended headers: odd records, lengths that lie, chains and floods of them."""

    def content() -> bytes:
        key = rng.choice(
            [b"path", b"size", b"linkpath", b"comment", b"GNU.sparse.map", b"hdrcharset", b"mtime", b"", b"\xff"]
        )
        value = rng.choice(
            [b"", b"0", b"-1", b"3", b"9" * 30, b"x" * 200, b"\n" * 50, b"a" * 5000, b"\0", b"1e9", b"\xff\xfe.jpg"]
        )
        whole_record = record(key, value)
        if rng.random() < 0.3:
            return (
                rng.choice([b"0 ", b"-5 ", b"99999999 ", b"99999999999 ", b" ", b"5", b"\n", b"1" * 100]) + whole_record
            )
        return whole_record

    parts = []
    for i in range(rng.choice([1, 2, 3, 50, 3000])):
        data = b"".join(content() for _ in range(rng.randint(1, 4)))
        size = len(data) if rng.random() < 0.9 else rng.choice(NUMBERS) % 8**11
        parts.append(block(b"header%d" % (i % 100), size, rng.choice("xxXgLK").encode()) + padded(data))
    return written(folder, b"".join(parts) + shard(good(rng)))


def bombs(rng: Random, folder: Path) -> Path:
    """Giant names, headers, counts and sparse files of holes."""
    what = rng.randrange(6)
    end = shard(good(rng))
    if what == 0:  # a name of up to 30 MB, by GNU's or pax header
        data = b"n\n" * rng.choice([3000, 500_000, 15_000_000])
        kind = rng.choice([b"L", b"K", b"x", b"g"])
        data = record(b"path", data) if kind in b"xg" else data
        return written(folder, block(b"long", len(data), kind) + padded(data) + end)
    if what == 1:  # very many headers
        return written(folder, block(b"", 0, rng.choice([b"L", b"x", b"g", b"5", b"2", b"V"])) * 20_000 + end)
    if what == 2:  # very many empty files
        return written(folder, b"".join(block(b"%d.cls" % i, 0) for i in range(20_000)) + end)
    if what == 3:  # a hole of a hundred gigabytes, in a file that takes no room
        path = written(
            folder, block(b"0.jpg", 100 << 30 if rng.random() < 0.5 else b"\x80" + (100 << 30).to_bytes(11, "big"))
        )
        os.truncate(path / "set-train-0.tar", (100 << 30) + 2048)
        return path
    if what == 4:  # a label of a megabyte and more
        text = rng.choice([b"1", b"[", b'{"label":', b"\0", b" "]) * rng.choice([1000, 100_000, 2_000_000])
        return written(folder, shard([("0.jpg", picture(0)), (rng.choice(["0.cls", "0.json"]), text)]))
    return written(folder, block(b"deep.jpg", 512 * 60, b"S") + b"\1" * 512 * 60 + end)


def labels(rng: Random, folder: Path) -> Path:
    """Labels that are none, and lists of classes that are none."""
    samples = good(rng)
    label = rng.choice(LABELS)
    text = json.dumps({rng.choice(["label", "cls", "other"]): label})
    if rng.random() < 0.2:
        text = rng.choice(["[" * 200_000, '{"label":' * 5000, "null", "1", '"x"', '{"label": 1', "{" + '"a":{' * 900])
    samples.append(("z.jpg", picture(9)))
    if rng.random() < 0.5:
        samples.append(("z.json", text.encode()))
    else:
        samples.append(("z.cls", str(label).encode()))
    path = written(folder, shard(samples, tarfile.PAX_FORMAT))
    if rng.random() < 0.5:
        names = rng.choice(
            [
                b"",
                b"cat\n",
                b"cat\ndog\n",
                b"cat\n\ndog\n",
                b"cat\ncat\n",
                b"\xff\xfe\0",
                b"x" * 100_000,
                b"a\n" * 10**5,
                b"".join(b"%d\n" % i for i in range(40_000)),
                b"\x1b[2J\n\x07\n",
            ]
        )
        (path / "classes.txt").write_bytes(names)
    return path


def places(rng: Random, folder: Path) -> Path:
    """Pipes, folders, links and other kinds of file where a shard or the list of classes should be."""
    path = written(folder, shard(good(rng)))
    name = rng.choice(["set-train-0.tar", "set-val-0.tar", "classes.txt", "n00000001.tar", "ILSVRC2012_img_train.tar"])
    odd = path / name
    odd.unlink(missing_ok=True)
    what = rng.randrange(7)
    if what == 0:
        os.mkfifo(odd)
    elif what == 1:
        odd.mkdir()
    elif what == 2:
        odd.symlink_to(rng.choice(["nowhere", name, "/dev/null", "..", "/dev/urandom"]))
    elif what == 3:
        odd.write_bytes(rng.choice([b"", b"\0", bytes(1024), b"\x1f\x8b\x08", b"PK\3\4", b"<html>"]))
    elif what == 4:
        import gzip

        odd.write_bytes(gzip.compress(shard(good(rng))))
    elif what == 5:
        os.mkfifo(folder / "pipe.tar")
        return folder / "pipe.tar"
    else:
        (folder / "dangling.tar").symlink_to("nowhere.tar")
        return folder / rng.choice(["dangling.tar", "x" * 5000, "a\nb", "shards/set-train-0.tar/x"])
    return rng.choice([path, odd])


def nested(rng: Random, folder: Path) -> Path:
    """Tars of synsets within a tar, with sizes and names that lie."""
    inner = [(f"n0000000{i}.tar", bytearray(shard([(f"{i}_{k}.JPEG", picture(k)) for k in range(2)]))) for i in (1, 2)]
    for _, data in inner:
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(0, len(data), BLOCK)
            header = bytearray(data[at : at + BLOCK])
            field = number(rng)
            header[124 : 124 + len(field)] = field
            data[at : at + BLOCK] = signed(header)
    name = rng.choice(["n00000003.tar", "../n1.tar", "n00000001.tar", "x" * 90 + ".tar", "a\n.tar", "image.jpg"])
    outer = shard(
        [(known, bytes(data)) for known, data in inner] + [(name, rng.choice([b"", b"x" * 600, bytes(1024)]))]
    )
    (folder / "outer.tar").write_bytes(outer if rng.random() < 0.8 else outer[: rng.randrange(len(outer))])
    return folder / "outer.tar"


FAMILIES = [
    Family("tar whole", whole, use, LIMITS),
    Family("tar fields", fields, use, LIMITS),
    Family("tar noise", noise, use, LIMITS),
    Family("tar pax", pax, use, LIMITS),
    Family("tar bombs", bombs, use, LIMITS),
    Family("webdataset labels", labels, use, LIMITS),
    Family("tar places", places, use, LIMITS),
    Family("tar in tar", nested, use, LIMITS),
]
