"""What each codec of a store costs: bytes, error against the square, and the time of a crop.

One thread cuts crops of 224 from 256-pixel squares, each image once in a turn, all codecs in every turn. Errors are the
mean over all pixels and channels, in grey levels, against the raw store's squares.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alexnet.data.dataset import Split
from alexnet.data.readers.open import open_source
from alexnet.data.store.prepare import prepare
from benchmarks.records import Result
from benchmarks.timing import Call, rounded, summarize, take_turns

SIZE, CROP = 256, 224
RAW, PEER = "raw", "jpeg, quality 90"
CODECS = {"yuv420": ("yuv420", 90), RAW: ("raw", 90)}
CODECS |= {f"jpeg, quality {quality}": ("jpeg", quality) for quality in (75, 80, 85, 90, 95)}
PREFIX = f"a crop of {CROP} from a store of "


def codecs(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """A result for each of `CODECS`: microseconds per crop, with `bytes` per image and `mean_error` beside."""
    splits, sizes = {}, {}
    for name, (codec, quality) in CODECS.items():
        place = folder / name
        manifest = prepare(options.images, place, size=SIZE, codec=codec, quality=quality, workers=options.workers)
        splits[name] = open_source(place).splits["train"]
        sizes[name] = manifest.bytes / sum(split.count for split in manifest.splits.values())
    seconds = take_turns({name: cropping(split) for name, split in splits.items()}, options.turns)
    times = {name: [1e6 * t / len(splits[name]) for t in values] for name, values in seconds.items()}
    peer = statistics.median(times[PEER])
    for name, values in times.items():
        also = {"bytes": rounded(sizes[name]), "mean_error": rounded(mean_error(splits[name], splits[RAW]))}
        beside = {"peers": {PEER: rounded(peer)}, "ratio": round(peer / statistics.median(values), 3)}
        yield summarize(PREFIX + name, values, "µs", by=name, also=also, **(beside if name != PEER else {}))


def cropping(split: Split) -> Call:
    """One crop of every image, at places that go through all of them."""
    out, room = np.empty((CROP, CROP, 3), np.uint8), SIZE - CROP + 1

    def run() -> None:
        for i in range(len(split)):
            split.crop_into(i, SIZE, i % room, 7 * i % room, out)

    return run


def mean_error(split: Split, squares: Split) -> float:
    """The mean absolute difference of two splits' images, in grey levels."""
    each = [np.abs(split.decode(i).astype(np.int16) - squares.decode(i)).mean() for i in range(len(split))]
    return float(np.mean(each))
