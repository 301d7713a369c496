"""What every source is made of: labelled splits, and holding some images out.

N images of a split, S the side of a square, C that of a crop.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.decode import Pixels, decode
from alexnet.data.preprocess import SCALING_ROOM, to_square
from alexnet.data.random import raw_words
from alexnet.errors import DataError, quoted, several, suggestion

Labels = NDArray[np.int64]
OnProgress = Callable[[int, int], None]  # called with what is done and the total
SPLITS = ("train", "val", "test")


class Split:
    """A named sequence of labelled images; readers derive from it.

    `labels` is (N,) int64. `side` is the side of the images where all are squares whose decoding costs about a copy,
    else None. `exif_rotate` says whether decoding turns files as their EXIF orientation says. Reading is safe from many
    threads.
    """

    name: str
    labels: Labels
    side: int | None = None
    exif_rotate = False

    def __len__(self) -> int:
        return len(self.labels)

    def image_name(self, i: int) -> str:
        """Return what the image is called: a path or a file name."""
        raise NotImplementedError

    def image_names(self) -> Iterable[str]:
        """The names of all images in order, or what tells them apart; no image is read."""
        return (self.image_name(i) for i in range(len(self)))

    def read_bytes(self, i: int) -> bytes:
        """Return the bytes of the image's file."""
        raise NotImplementedError

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """Decode an image: (H, W, 3) uint8, perhaps scaled as `decode` does. Raises `UnreadableImage`."""
        return decode(self.read_bytes(i), shortest=shortest, exif_rotate=self.exif_rotate)

    def resize_crop(self, i: int, size: int) -> Pixels:
        """Return an image brought to size×size: (S, S, 3) uint8. Raises `UnreadableImage`."""
        return to_square(self.decode(i, shortest=SCALING_ROOM * size), size)

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """Write the crop at (row, column) of the image brought to size×size into `out`, (C, C, 3) uint8."""
        crop = out.shape[0]
        out[:] = self.resize_crop(i, size)[row : row + crop, column : column + crop]

    def rotated(self) -> Split:
        """Return the same images, turned as their EXIF orientation says; prepared squares stay as they are."""
        if self.exif_rotate:
            return self
        twin = copy.copy(self)
        twin.exif_rotate = True
        return twin


@dataclass(frozen=True)
class Source:
    """Labelled images: the specification they were opened by, class names in label order, and the splits.

    `splits` has keys among train, val and test. A store says how it was prepared: `exif_rotate`, whether pictures were
    turned, and `statistics_file`, the statistics of its train split at its size; elsewhere both are None. `words` says
    what the classes mean where their names do not, as with ImageNet's wnids: one text per class, "" where unknown.
    `notes` are what whoever opens it should be told, such as how many files are of a kind that is not read.
    """

    spec: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    exif_rotate: bool | None = None
    statistics_file: Path | None = None
    words: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def rotated(self) -> Source:
        """Return the source with every split turned as `Split.rotated` does."""
        return replace(self, splits={name: split.rotated() for name, split in self.splits.items()})

    def only(self, names: Sequence[str]) -> Source:
        """Return the source with some of its classes alone, numbered anew in their order; with no names as it is.

        A name is a class's own, or else its number from 0 on, or a range of numbers as 0-149. Raises `DataError` for
        one that fits no class, naming the nearest, and for fewer than two classes.
        """
        if not names:
            return self
        chosen = sorted({number for name in names for number in self._numbers(name)})
        renumbered = np.full(len(self.classes), -1, np.int64)
        renumbered[chosen] = np.arange(len(chosen))
        splits: dict[str, Split] = {}
        for name, split in self.splits.items():
            splits[name] = Subset(split, np.flatnonzero(renumbered[split.labels] >= 0), name)
            splits[name].labels = renumbered[splits[name].labels]
        checked = check_source(self.spec, [self.classes[i] for i in chosen], splits)
        words = tuple(self.words[i] for i in chosen) if self.words else None
        return replace(checked, exif_rotate=self.exif_rotate, words=words, notes=self.notes)

    def _numbers(self, name: str) -> Iterable[int]:
        if name in self.classes:
            return (self.classes.index(name),)
        first, dash, last = name.partition("-")
        if first.isdecimal() and (last.isdecimal() or not dash) and len(name) < 16:
            numbers = range(int(first), int(last or first) + 1)
            if numbers and numbers[-1] < len(self.classes):
                return numbers
            raise DataError(
                f"data.classes {name} should be within 0-{len(self.classes) - 1}, the classes of {self.spec}"
            )
        raise DataError(f"data.classes {quoted(name)} is no class of {self.spec}{suggestion(name, self.classes)}")


class Subset(Split):
    """Some images of a split, chosen by position."""

    def __init__(self, split: Split, positions: NDArray[np.int64], name: str) -> None:
        self.name = name
        self.parent = split
        self.positions = positions
        self.labels = split.labels[positions]
        self.side = split.side

    def image_name(self, i: int) -> str:
        """As `Split.image_name`, by position in the subset."""
        return self.parent.image_name(int(self.positions[i]))

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`, by position in the subset."""
        return self.parent.read_bytes(int(self.positions[i]))

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """As `Split.decode`, by position in the subset."""
        return self.parent.decode(int(self.positions[i]), shortest)

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """As `Split.crop_into`, by position in the subset."""
        self.parent.crop_into(int(self.positions[i]), size, row, column, out)

    def rotated(self) -> Split:
        """As `Split.rotated`, by position in the subset."""
        return Subset(self.parent.rotated(), self.positions, self.name)


class ArraySplit(Split):
    """Images that are already pixels in memory: (N, H, W, 3) uint8."""

    def __init__(self, name: str, images: Pixels, labels: Labels, image_names: Sequence[str]) -> None:
        self.name = name
        self.images = images
        self.labels = labels
        self._image_names = image_names

    def image_name(self, i: int) -> str:
        """As `Split.image_name`."""
        return self._image_names[i]

    def read_bytes(self, i: int) -> bytes:
        """The pixels as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.images[i]).save(buffer, "PNG")
        return buffer.getvalue()

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """The pixels as they are."""
        return self.images[i]


def too_many_unreadable(unreadable: int, total: int) -> bool:
    """Whether so many of `total` pictures cannot be read that nothing should be made of the rest.

    More than 1 % and more than 20 of them, or all; training, preparing and verifying go by it.
    """
    return unreadable > 20 and unreadable * 100 > total or unreadable >= total > 0


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Part a split in two, the second with `fraction` of each class's images: (the rest, the held-out).

    A pure function of the labels, the fraction and the seed. At least one image of each class is held out where the
    class has two, and at least one stays. Raises `DataError` for a fraction outside 0..1.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
    words = raw_words(len(split), seed, 0x401D)
    ranking = np.lexsort((words, split.labels))
    classes, starts, counts = np.unique(split.labels[ranking], return_index=True, return_counts=True)
    rank = np.arange(len(split)) - np.repeat(starts, counts)
    wanted = np.clip(np.floor(counts * fraction + 0.5), 1, counts - 1).astype(np.int64)
    if not wanted.any():
        raise DataError(f"split {split.name} has one image per class, so none can be held out for validation")
    held = np.zeros(len(split), dtype=bool)
    held[ranking[rank < np.repeat(wanted, counts)]] = True
    return Subset(split, np.flatnonzero(~held), split.name), Subset(split, np.flatnonzero(held), "val")


def other_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """Which class names are gone and which are new, the first of each; or that they are in another order, or nothing.

    Short work for any number of names: `other classes (gone: 'ant', 'bee'; new: 'cow')`.
    """
    gone, new = ([name for name in names if name not in rest] for names, rest in ((before, {*now}), (now, {*before})))
    if gone or new:
        parts = [f"{word}: {several(names)}" for word, names in (("gone", gone), ("new", new)) if names]
        return f"other classes ({'; '.join(parts)})"
    return "" if list(before) == list(now) else "classes in another order"


def check_source(spec: str, classes: Sequence[str], splits: dict[str, Split]) -> Source:
    """Return a `Source` after the checks common to all, or raise `DataError`.

    At least two classes; no empty split; labels within the classes; no class in val or test that train lacks.
    """
    if not splits:
        raise DataError(f"{spec}: there is no train, val or test split in it")
    if len(classes) < 2:
        names = f" ({classes[0]})" if classes else ""
        raise DataError(f"{spec}: {len(classes)} class{names} where at least two are needed")
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{spec}: split {name} holds no images")
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(classes):
            wrong = low if low < 0 else high
            raise DataError(f"{spec}: split {name} has label {wrong}, but labels run from 0 to {len(classes) - 1}")
    if "train" in splits:
        known = np.zeros(len(classes), dtype=bool)
        known[splits["train"].labels] = True
        if known.sum() < 2:
            raise DataError(f"{spec}: the train split has images of one class only; at least two are needed")
        for name in ("val", "test"):
            if name in splits:
                unknown = np.unique(splits[name].labels[~known[splits[name].labels]])
                if len(unknown):
                    raise DataError(
                        f"{spec}: class {classes[int(unknown[0])]!r} is in {name} but not in train; "
                        f"add training images of it or remove it from {name}"
                    )
    return Source(spec, tuple(classes), splits)
