"""The walker of tar headers against Python's own reader and GNU tar, and what strangers put into archives."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from alexnet.data.readers.tar import BLOCK, MAX_HEADER, members
from alexnet.errors import DataError

NAMES = [
    "a.jpg",
    "x" * 100,
    "d/" * 60 + "b.jpg",
    "y" * 300 + ".jpg",
    "Übung/图.jpg",
    "../up.jpg",
    "/root.jpg",
    "a b\n.jpg",
]


def by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path, "r:") as archive:
        return [(info.name, info.offset_data, info.size) for info in archive if info.isreg()]


def by_us(path: Path) -> list[tuple[str, int, int]]:
    return [(member.name, member.offset, member.size) for member in members(path)]


def info_of(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "a.jpg" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    return info


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read_as_it_reads_it(tmp_path, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=kind, pax_headers={"comment": "global"}) as archive:
        archive.addfile(info_of("folder/", 0, tarfile.DIRTYPE))
        archive.addfile(info_of("link", 0, tarfile.SYMTYPE))
        for i, name in enumerate(NAMES):
            if kind == tarfile.USTAR_FORMAT and len(name) > 255:
                continue
            info = info_of(name, 511 * i)
            info.mtime = 1.5
            info.uid = 1 << 40 if kind != tarfile.USTAR_FORMAT else 0
            archive.addfile(info, io.BytesIO(bytes([i]) * info.size))
        archive.addfile(info_of("hard", 0, tarfile.LNKTYPE))
        archive.addfile(info_of("last", 3), io.BytesIO(b"end"))
    assert by_us(path) == by_tarfile(path) and len(by_us(path)) > len(NAMES) - 1
    name, offset, size = by_us(path)[-1]
    assert path.read_bytes()[offset : offset + size] == b"end"


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_read_as_tarfile_reads_it(tmp_path, kind):
    folder = tmp_path / "in"
    for i, name in enumerate(
        ["a.jpg", "b/c/d.jpg", "e" * 90 + ".jpg"] + ["f" * 120 + "/" + "g" * 120] * (kind != "v7")
    ):
        if kind != "ustar" or len(name) < 200:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(bytes(700 * i))
    os.link(folder / "a.jpg", folder / "z.jpg")
    (folder / "y.jpg").symlink_to("a.jpg")
    path = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={kind}", "-C", folder, "-cf", path, "."], check=True, capture_output=True)
    assert by_us(path) == by_tarfile(path) and len(by_us(path)) >= 3


def block(name: bytes = b"a.jpg", size: bytes = b"00000000003", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A header with a right checksum."""
    header = bytearray(BLOCK)
    header[: len(name)] = name
    header[124 : 124 + len(size)] = size
    header[156:157] = kind
    header[257:265] = b"ustar\00000"
    for at, value in fields.items():
        header[int(at[1:]) : int(at[1:]) + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return block(b"pax", b"%011o" % len(records), kind) + padded(records)


END, FILE = bytes(2 * BLOCK), block() + padded(b"abc")


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


@pytest.mark.parametrize(
    "content, name, size",
    [
        (FILE, "a.jpg", 3),
        (block(size=b"\x80" + bytes(10) + b"\x03") + padded(b"abc"), "a.jpg", 3),
        (block(kind=b"\0") + padded(b"abc"), "a.jpg", 3),
        (pax(record(b"path", b"long")) + FILE, "long", 3),
        (pax(record(b"size", b"3")) + block(size=b"0") + padded(b"abc"), "a.jpg", 3),
        (pax(record(b"path", b"\xff\xfe")) + FILE, "\udcff\udcfe", 3),
        (block(_345=b"pre/fix") + padded(b"abc"), "pre/fix/a.jpg", 3),
        (b"".join([pax(b"11 comm=xx\n")] * 10_000) + FILE, "a.jpg", 3),
        (pax(record(b"comment", b"for all"), b"g") + FILE, "a.jpg", 3),
    ],
)
def test_headers_of_every_kind_are_read(tmp_path, content, name, size):
    (tmp_path / "a.tar").write_bytes(content + END)
    assert [(member.name, member.size) for member in members(tmp_path / "a.tar")] == [(name, size)]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "cut short"),
        (FILE, "cut short at byte 1024"),
        (FILE[:514], "cut short within 'a.jpg'"),
        (b"\x1f\x8b" + bytes(2000), "compressed file; unpack it"),
        (FILE + b"\1" * BLOCK + END, "damaged or cut short at byte 1024"),
        (block(size=b"-0000000003") + END, "as a file's size"),
        (block(size=b"\xff" * 12) + END, "as a file's size"),
        (block(size=b"0o000000003") + END, "as a file's size"),
        (block(size=b"\x80" + b"\xff" * 11) + END, "cut short within"),
        (block(size=b"77777777777", kind=b"L") + END, "limit of 1048576"),
        (block(b"n", b"%011o" % 5000, b"L") + padded(b"n" * 5000) + FILE + END, "a name of 5000 bytes"),
        (pax(record(b"path", b"n\n" * 5000)) + FILE + END, "a name of 10000 bytes"),
        (pax(record(b"size", b"-3")) + FILE + END, "as a file's size"),
        (pax(record(b"size", b"9" * 5000)) + FILE + END, "as a file's size"),
        (pax(b"99 path=a\n") + FILE + END, "pax header is damaged"),
        (pax(b"0 path=a\n") + FILE + END, "pax header is damaged"),
        (pax(b"5 ab\n") + FILE + END, "pax header is damaged"),
        (pax(record(b"path", b"x"), b"g") + FILE + END, "one name or size"),
        (pax(record(b"GNU.sparse.major", b"1")) + FILE + END, "without --sparse"),
        (block(kind=b"S") + padded(b"abc") + END, "without --sparse"),
        (FILE + block(kind=b"g", size=b"%011o" % (MAX_HEADER + 1)) + END, "more than the limit"),
    ],
)
def test_a_hostile_archive_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        list(members(path))
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "link.tar").symlink_to("nowhere")
    for name, words in [
        ("pipe.tar", "regular file"),
        ("folder.tar", "regular|directory"),
        ("link.tar", "no such archive"),
    ]:
        with pytest.raises(DataError, match=words):
            list(members(tmp_path / name))
    with pytest.raises(DataError, match="regular file"):
        list(members(Path("/dev/zero")))


def test_the_walk_takes_no_memory_for_what_headers_only_claim(tmp_path):
    import tracemalloc

    path = tmp_path / "a.tar"
    path.write_bytes(b"".join([pax(record(b"comment", b"c" * 100_000))] * 100) + FILE + END)
    tracemalloc.start()
    assert len(list(members(path))) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
