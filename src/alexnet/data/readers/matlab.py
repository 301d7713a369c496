"""The records of a MATLAB file, as far as a devkit's `meta.mat` needs them: texts and single numbers.

Level 5 files, as "MAT-File Format" (The MathWorks) gives them: elements of a tag (type, bytes) and data padded to 8
bytes; an array is an element of elements. Nothing is taken on trust: every size is checked against what is there, and
what is compressed expands to `MOST_BYTES` at most.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

MOST_BYTES = 1 << 24  # that a file or what is compressed in it may take; ImageNet's have under three million
_MOST_RECORDS = 1 << 15
_MOST_TEXT = 1 << 16  # bytes
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4
# Types of numbers and of texts, by their numbers in a tag.
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMERIC_CLASSES = range(6, 16)  # double, single, and whole numbers of 8 to 64 bits


Elements = Iterator[tuple[int, memoryview]]


def read_records(data: bytes, name: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return some fields of every record of a struct array: text or a number each, else None.

    Raises ValueError, in words, for a file that is damaged, too large or without that array or field.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is not a MATLAB file of level 5")
    order = "<" if data[126:128] == b"IM" else ">"
    room = MOST_BYTES
    for kind, content in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            content = _inflate(content, room)
            room -= len(content)
            kind, content = next(_elements(content, order), (0, content))
        if kind == _MATRIX and content:
            array_class, count, called, rest = _array(content, order)
            if called == name and array_class == _STRUCT:
                return _records(count, rest, order, fields)
    raise ValueError(f"it has no struct array {name}")


def _elements(data: memoryview, order: str) -> Elements:
    """Yield the type and the bytes of each element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # a small one: its size in the upper half, its data in the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, after = at + 4, at + 8
            if size > 4:
                raise ValueError("an element of it is damaged")
        else:
            start = at + 8
            after = start + size + (0 if kind == _COMPRESSED else -size % 8)
            if size > len(data) - start:
                raise ValueError("it is cut short")
        yield kind, data[start : start + size]
        at = after


def _inflate(data: memoryview, most: int) -> memoryview:
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, max(1, most))
    except zlib.error:
        raise ValueError("what is compressed in it is damaged") from None
    if not stream.eof:
        raise ValueError("what is compressed in it is cut short or too large")
    return memoryview(out)


def _next(elements: Elements) -> memoryview:
    for _, content in elements:
        return content
    raise ValueError("an array of it is cut short")


def _array(content: memoryview, order: str) -> tuple[int, int, str, Elements]:
    """The class of an array, how many values it has, its name, and the elements after these."""
    elements = _elements(content, order)
    flags, sizes, name = _next(elements), _next(elements), _next(elements)
    if len(flags) < 4 or not 8 <= len(sizes) <= 128 or len(sizes) % 4:
        raise ValueError("an array of it is damaged")
    (word,) = struct.unpack_from(order + "I", flags)
    dimensions = struct.unpack(f"{order}{len(sizes) // 4}I", sizes)
    return word & 0xFF, math.prod(dimensions), bytes(name).decode("latin-1"), elements


def _records(count: int, elements: Elements, order: str, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    length, listed = _next(elements), bytes(_next(elements))
    width = struct.unpack_from(order + "i", length)[0] if len(length) >= 4 else 0
    if not 0 < width <= 256 or count > _MOST_RECORDS:
        raise ValueError("its struct array is damaged or too large")
    names = [listed[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(listed), width)]
    for name in wanted:
        if name not in names:
            raise ValueError(f"its records have no field {name}")
    records = []
    for _ in range(count):
        contents = {name: _next(elements) for name in names}
        records.append({name: _value(contents[name], order) for name in wanted})
    return records


def _value(content: memoryview, order: str) -> str | int | float | None:
    """A text, or the number of an array of one; None for anything else."""
    if not content:
        return None
    array_class, count, _, elements = _array(content, order)
    kind, data = next(elements, (0, memoryview(b"")))
    if array_class == _CHAR:
        if len(data) > _MOST_TEXT:
            raise ValueError(f"a text of it has {len(data)} bytes")
        encoding = _TEXTS.get(kind, "latin-1")
        wide = encoding.startswith(("utf-16", "utf-32"))
        return bytes(data).decode(encoding + ("-le" if order == "<" else "-be") * wide, "replace")
    if array_class in _NUMERIC_CLASSES and count == 1 and kind in _NUMBERS:
        form = order + _NUMBERS[kind]
        if len(data) == struct.calcsize(form):
            number: int | float = struct.unpack(form, data)[0]
            return number
    return None
