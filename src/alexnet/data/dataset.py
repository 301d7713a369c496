"""What every source is made of: labelled splits, and holding some images out.

N images of a split, S the side of a square, C that of a crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.data.decode import SCALING_ROOM, Pixels, decode, square
from alexnet.errors import DataError

Labels = NDArray[np.int64]
SPLITS = ("train", "val", "test")


class Split:
    """A named sequence of labelled images; sources derive from it.

    `labels` is (N,) int64. `side` is the side of the images where all are squares served without decoding a whole file
    format by the sequence itself (a store), else None. Reading is safe from many threads at once.
    """

    name: str
    labels: Labels
    side: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """Return the image's name for its owner: a path or a file name."""
        raise NotImplementedError

    def encoded(self, i: int) -> bytes:
        """Return the bytes of the image's file."""
        raise NotImplementedError

    def read(self, i: int, shortest: int = 0) -> Pixels:
        """Decode an image: (H, W, 3) uint8, perhaps scaled as `decode` does. Raises `UnreadableImage`."""
        return decode(self.encoded(i), shortest=shortest)

    def square(self, i: int, size: int) -> Pixels:
        """Return an image brought to size×size: (S, S, 3) uint8. Raises `UnreadableImage`."""
        return square(self.read(i, shortest=SCALING_ROOM * size), size)

    def cut(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """Write the crop at (row, column) of the image brought to size×size into `out`, (C, C, 3) uint8."""
        crop = out.shape[0]
        out[:] = self.square(i, size)[row : row + crop, column : column + crop]


@dataclass(frozen=True)
class Source:
    """Labelled images: the specification they were opened by, class names in label order, and the splits.

    `splits` has keys among train, val and test.
    """

    spec: str
    classes: tuple[str, ...]
    splits: dict[str, Split]


class Subset(Split):
    """Some images of a split, chosen by position."""

    def __init__(self, split: Split, positions: NDArray[np.int64], name: str) -> None:
        self.name = name
        self.parent = split
        self.positions = positions
        self.labels = split.labels[positions]
        self.side = split.side

    def key(self, i: int) -> str:
        return self.parent.key(int(self.positions[i]))

    def encoded(self, i: int) -> bytes:
        return self.parent.encoded(int(self.positions[i]))

    def read(self, i: int, shortest: int = 0) -> Pixels:
        return self.parent.read(int(self.positions[i]), shortest)

    def cut(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        self.parent.cut(int(self.positions[i]), size, row, column, out)


class ArraySplit(Split):
    """Images that are already pixels in memory: (N, H, W, 3) uint8."""

    def __init__(self, name: str, images: Pixels, labels: Labels, keys: Sequence[str]) -> None:
        self.name = name
        self.images = images
        self.labels = labels
        self._keys = keys

    def key(self, i: int) -> str:
        return self._keys[i]

    def encoded(self, i: int) -> bytes:
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.images[i]).save(buffer, "PNG")
        return buffer.getvalue()

    def read(self, i: int, shortest: int = 0) -> Pixels:
        return self.images[i]


def draws(n: int, *key: int) -> NDArray[np.uint64]:
    """Return n random words, a pure function of the key and the same in every NumPy: (n,) uint64."""
    words = np.random.SeedSequence([int(k) & 0xFFFFFFFFFFFFFFFF for k in key]).generate_state(2, np.uint64)
    return np.asarray(np.random.Philox(key=words).random_raw(n), dtype=np.uint64)


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Part a split in two, the second with `fraction` of each class's images: (the rest, the held-out).

    A pure function of the labels, the fraction and the seed. At least one image of each class is held out where the
    class has two, and at least one stays. Raises `DataError` for a fraction outside 0..1.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
    words = draws(len(split), seed, 0x401D)
    ranking = np.lexsort((words, split.labels))
    classes, starts, counts = np.unique(split.labels[ranking], return_index=True, return_counts=True)
    rank = np.arange(len(split)) - np.repeat(starts, counts)
    wanted = np.clip(np.floor(counts * fraction + 0.5), 1, counts - 1).astype(np.int64)
    if not wanted.any():
        raise DataError(f"split {split.name} has one image a class, so none can be held out for validation")
    held = np.zeros(len(split), dtype=bool)
    held[ranking[rank < np.repeat(wanted, counts)]] = True
    return Subset(split, np.flatnonzero(~held), split.name), Subset(split, np.flatnonzero(held), "val")


def check_source(spec: str, classes: Sequence[str], splits: dict[str, Split]) -> Source:
    """Return a `Source` after the checks common to all, or raise `DataError`.

    At least two classes; no empty split; labels within the classes; no class in val or test that train lacks.
    """
    if not splits:
        raise DataError(f"{spec}: there is no train, val or test split in it")
    if len(classes) < 2:
        names = f" ({classes[0]})" if classes else ""
        raise DataError(f"{spec}: {len(classes)} class{names} found where at least two are needed to tell apart")
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
                strange = np.unique(splits[name].labels[~known[splits[name].labels]])
                if len(strange):
                    raise DataError(
                        f"{spec}: class {classes[int(strange[0])]!r} is in {name} but not in train; "
                        f"add training images of it or remove it from {name}"
                    )
    return Source(spec, tuple(classes), splits)
