"""What the pages of a Parquet column chunk expand to, from their headers, before any is expanded.

A few kilobytes may claim gigabytes: by compression, by a dictionary whose one value stands for every row, or by
encodings of differences. Page headers are structures of Thrift's compact protocol; their fields are numbered as in
parquet-format's parquet.thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MiB = 1 << 20
MOST_BYTES = 1 << 30  # that a column of one row group may expand to
MOST_SMALL = 128 * MiB  # or this, if it is more than `MOST_RATIO` times its size in the file
MOST_RATIO = 20
_MOST_STEPS = 10_000  # fields of one header
_DICTIONARY_PAGE = 2
# PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY; for numbers also DELTA_BINARY_PACKED.
_ENCODINGS = (0, 2, 3, 4, 8)
_DELTA = 5


@dataclass(frozen=True)
class Expansion:
    """Bytes that a chunk's values may take in memory, `allowed`, and those of the largest value of its dictionary."""

    allowed: int
    dictionary: int


def measure(data: memoryview, chunk: Any, is_number: bool = False) -> Expansion:
    """Walk the pages of a column chunk (pyarrow's ColumnChunkMetaData) of a file's bytes.

    Raises ValueError, in words, for a chunk that is damaged or expands too far.
    """
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    size = chunk.total_compressed_size
    if not 0 <= start <= start + size <= len(data):
        raise ValueError("it lies outside its file")
    allowed = min(MOST_BYTES, max(MOST_SMALL, MOST_RATIO * size))
    position, end, total, dictionary = start, start + size, 0, 0
    while position < end:
        header = _Header(data, position, end)
        fields = header.fields
        expanded, packed = fields.get(2), fields.get(3)
        if not isinstance(expanded, int) or not isinstance(packed, int) or min(expanded, packed) < 0:
            raise ValueError("a page of it is damaged")
        position = header.position + packed
        total += expanded
        if total > allowed:
            raise ValueError(f"its {size:,} bytes expand to more than the {allowed:,} that a row group may take")
        if fields.get(1) == _DICTIONARY_PAGE:
            dictionary = max(dictionary, expanded)
        described = fields.get(5) or fields.get(8)
        if isinstance(described, dict):
            encoding = described.get(2 if 5 in fields else 4)
            if encoding not in _ENCODINGS and not (is_number and encoding == _DELTA):
                raise ValueError("its encoding is not read here; write it as PLAIN or with a dictionary")
    return Expansion(allowed, dictionary)


class _Header:
    """A structure of Thrift's compact protocol: its whole numbers and structures by field number, and its end."""

    def __init__(self, data: memoryview, position: int, end: int) -> None:
        self._data, self._end, self._steps = data, end, 0
        self.position = position
        self.fields = self._structure(0)

    def _byte(self) -> int:
        if self.position >= self._end:
            raise ValueError("a page of it is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ValueError("a page of it is damaged")

    def _number(self) -> int:
        word = self._varint()
        return (word >> 1) ^ -(word & 1)

    def _structure(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) & 0x0F:
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._steps += 1
        if depth > 8 or self._steps > _MOST_STEPS:
            raise ValueError("a page of it is damaged")
        if kind in (1, 2, 3):  # a boolean within a list, or a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind in (7, 8):
            length = 8 if kind == 7 else self._varint()
            self.position += length
            return None
        if kind in (9, 10):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._value(head & 0x0F, depth + 1)
            return None
        if kind == 12:
            return self._structure(depth)
        raise ValueError("a page of it is damaged")  # no page header has a map
