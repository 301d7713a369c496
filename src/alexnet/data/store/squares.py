"""A source's images decoded, squared and encoded by several threads: what the shards of a store are made of.

S the side of the squares.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from alexnet.data.dataset import Split
from alexnet.data.decode import notes_of
from alexnet.data.preprocess import decode_square
from alexnet.data.statistics import Accumulator
from alexnet.data.store.manifest import Record
from alexnet.engine.ycbcr import to_planes
from alexnet.errors import UnreadableImage

TINY = 32  # a shorter side below this is reported as tiny


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring images of a shard: the unit of work of a thread."""

    split: Split
    shard: int
    first: int
    last: int


@dataclass(frozen=True)
class Settings:
    """Everything the bytes of a store depend on besides the source's images."""

    size: int
    codec: str
    quality: int
    exif_rotate: bool


@dataclass(frozen=True)
class SquaredChunk:
    """A chunk's records, and the payloads of those that could be read."""

    records: list[Record]
    payloads: list[bytes | memoryview]
    sums: Accumulator | None


def square_chunk(chunk: Chunk, settings: Settings, stop: threading.Event) -> SquaredChunk:
    """Decode, square and encode a chunk's images, and add up the statistics of the train split.

    Raises CancelledError soon after `stop` is set: nobody waits for the chunk then.
    """
    split = chunk.split
    squares = np.empty((chunk.last - chunk.first, settings.size, settings.size, 3), np.uint8)
    records: list[Record] = []
    payloads: list[bytes | memoryview] = []
    for i in range(chunk.first, chunk.last):
        if stop.is_set():
            raise CancelledError
        pixels = squares[len(payloads)]
        record = square_one(split, i, settings, pixels)
        records.append(record)
        if not record.reason:
            payloads.append(_encode(pixels, settings))
    sums = None
    if split.name == "train":
        sums = Accumulator(settings.size)
        sums.add(squares[: len(payloads)])
    return SquaredChunk(records, payloads, sums)


def square_one(split: Split, i: int, settings: Settings, out: NDArray[np.uint8]) -> Record:
    """Square image i into `out`, (S, S, 3), and return what is known of its file."""
    name, label, size = _printable(split.image_name(i)), int(split.labels[i]), settings.size
    digest = b""
    try:
        data = split.read_bytes(i)
        digest = hashlib.sha256(data).digest()
        decoded = decode_square(data, size, settings.exif_rotate)
        out[:] = decoded.pixels
    except UnreadableImage as error:
        return Record(name, digest, label, 0, 0, "", str(error) or "it cannot be decoded")
    notes = list(notes_of(decoded, name))
    shorter = min(decoded.height, decoded.width)
    if shorter < TINY and shorter < size:
        notes.append(f"tiny, {decoded.width}x{decoded.height}")
    if shorter < size:
        notes.append(f"upscaled from {shorter} to {size}")
    return Record(name, digest, label, decoded.height, decoded.width, "; ".join(notes), "")


def _encode(pixels: NDArray[np.uint8], settings: Settings) -> bytes | memoryview:
    if settings.codec == "jpeg":
        return bytes(simplejpeg.encode_jpeg(pixels, settings.quality, "RGB", "420"))
    return to_planes(pixels).data if settings.codec == "yuv420" else pixels.data


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def work_on(chunks: Iterator[Chunk], settings: Settings, threads: int) -> Generator[SquaredChunk, None, None]:
    """Yield what is made of each chunk, in order; a few per thread are under way, which bounds the memory."""
    waiting: deque[Future[SquaredChunk]] = deque()
    stop = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            while True:
                for chunk in itertools.islice(chunks, 3 * threads - len(waiting)):
                    waiting.append(pool.submit(square_chunk, chunk, settings, stop))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def chunks(shards: list[Chunk], count: int) -> Iterator[Chunk]:
    """Yield whole shards in parts of `count` images."""
    for shard in shards:
        for at in range(shard.first, shard.last, count):
            yield Chunk(shard.split, shard.shard, at, min(shard.last, at + count))
