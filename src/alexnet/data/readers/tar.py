"""Uncompressed tar files, walked by their headers: where each regular file's bytes lie. Nothing is ever unpacked.

Read are ustar, GNU (long names, sizes in base 256) and pax (path, size) headers, as POSIX 1003.1 and GNU tar's manual
give them. Memory is constant and time proportional to the headers, whatever they say.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alexnet.data.mmap_cache import open_regular
from alexnet.errors import DataError, quoted

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of a long name or a pax header
MAX_NAME = 4096  # bytes, as in a file system
_FILES = (b"0", b"\0", b"7")
_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL, _SPARSE = b"L", b"K", (b"x", b"X"), b"g", b"S"
_WITHOUT_BYTES = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*.*", re.DOTALL)
_LENGTH = re.compile(rb"([0-9]{1,8}) ")


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, the offset of its bytes in the outermost file, and their number."""

    name: str
    offset: int
    size: int


def members(path: Path, offset: int = 0, size: int | None = None) -> Iterator[Member]:
    """Yield the regular files of a tar, or of a tar of `size` bytes at `offset` within a file, in the archive's order.

    Links, devices and folders are passed over. Raises `DataError` if it is not a plain tar or ends too soon.
    """
    with opened(path) as file:
        whole = os.fstat(file.fileno()).st_size
        yield from walk(file, str(path), offset, whole if size is None else min(whole, offset + size))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open an archive for reading. Raises `DataError`, at once also for a pipe, a device or a folder."""
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such archive") from None
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror}") from None


def walk(file: BinaryIO, where: str, start: int, end: int) -> Iterator[Member]:
    """Yield the regular files of the tar between two offsets of `file`. Raises `DataError` that begins with `where`."""
    position = start
    name: str | None = None  # by extended headers, for the file after them; of several the first is true
    size: int | None = None
    while (header := _read(file, where, position, BLOCK, end)) != bytes(BLOCK):
        if not _is_header(header):
            if position == start:
                raise DataError(f"{where}: it is not an uncompressed tar{_hint(header)}")
            raise DataError(f"{where}: the archive is damaged or cut short at byte {position}; fetch it again")
        kind, length = header[156:157], _number(where, header[124:136])
        position += BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _GLOBAL, *_PAX):
            if length > MAX_HEADER:
                raise DataError(f"{where}: a header of {length} bytes is more than the limit of {MAX_HEADER}")
            content = _read(file, where, position, length, end)
            if kind == _LONG_NAME and name is None:
                name = _text(where, content)
            elif kind in (_GLOBAL, *_PAX):
                fields = _pax(where, content)
                if any(key.startswith(b"GNU.sparse") for key in fields):
                    raise DataError(f"{where}: it holds sparse files; write it again without --sparse")
                if kind == _GLOBAL and fields.keys() & {b"path", b"size"}:
                    raise DataError(f"{where}: it gives all its files one name or size")
                if b"path" in fields and name is None:
                    name = _text(where, fields[b"path"])
                if b"size" in fields and size is None:
                    size = _decimal(where, fields[b"size"])
            position += _padded(length)
            continue
        own = _name(header)
        if kind == _SPARSE:
            raise DataError(f"{where}: {quoted(own)} is a sparse file; write the archive again without --sparse")
        if kind in _WITHOUT_BYTES or (kind == b"\0" and own.endswith("/")):
            length = 0  # an old archive's folder is a file whose name ends so
        else:
            length = length if size is None else size
            if position + length > end:
                shown = quoted(own if name is None else name)
                raise DataError(f"{where}: the archive is cut short within {shown}; fetch it again")
            if kind in _FILES:
                yield Member(own if name is None else name, position, length)
        position += _padded(length)
        name = size = None


def inflated(data: bytes, most: int) -> bytes:
    """Return what gzip's first stream in `data` holds, or `data` if it is none.

    Raises ValueError for more than `most` bytes, before there are more, and for a damaged stream.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        out = stream.decompress(data, most)
    except zlib.error:
        raise ValueError("it is a damaged gzip file; fetch it again") from None
    if not stream.eof:
        raise ValueError(f"it is cut short, or expands to more than the limit of {most:,} bytes")
    return out


def _read(file: BinaryIO, where: str, position: int, length: int, end: int) -> bytes:
    if position + length <= end:
        file.seek(position)
        data = file.read(length)
        if len(data) == length:
            return data
    raise DataError(f"{where}: the archive is damaged or cut short at byte {position}; fetch it again")


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _is_header(header: bytes) -> bool:
    """Whether a block's checksum is right; some old tars summed signed bytes."""
    match = _OCTAL.fullmatch(header[148:156])
    assert match
    told = int(match[1] or b"0", 8)
    unsigned = sum(header) - sum(header[148:156]) + 8 * 0x20
    if told == unsigned:
        return True
    return told == unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _hint(header: bytes) -> str:
    if header.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return " but a compressed file; unpack it first"
    return ""


def _number(where: str, field: bytes) -> int:
    """A header's number: octal digits, or base 256 where the first byte is 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise DataError(f"{where}: a header gives {quoted(field)} as a file's size")
    return int(digits or b"0", 8)


def _decimal(where: str, text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text):
        raise DataError(f"{where}: a header gives {quoted(text)} as a file's size")
    return int(text)


def _text(where: str, name: bytes) -> str:
    name = name.split(b"\0", 1)[0]
    if len(name) > MAX_NAME:
        raise DataError(f"{where}: {quoted(name)} is a name of {len(name)} bytes; the limit is {MAX_NAME}")
    return name.decode("utf-8", "surrogateescape").rstrip("/")


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    if prefix and header[257:263] == b"ustar\0":  # GNU's own headers keep times there
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _pax(where: str, content: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: each is `length key=value` and a new line."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(content) and content[at]:
        match = _LENGTH.match(content, at)
        after = at + int(match[1]) if match else 0
        if not match or not match.end() < after <= len(content) or content[after - 1] != 0x0A:
            raise DataError(f"{where}: a pax header is damaged: {quoted(content[at : at + 100])}")
        key, equals, value = content[match.end() : after - 1].partition(b"=")
        if not equals:
            raise DataError(f"{where}: a pax header is damaged: {quoted(key)}")
        fields[key] = value
        at = after
    return fields
