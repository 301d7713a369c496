"""Statistics of a set of images, streamed: mean image, RGB mean and covariance, and PCA (paper, §2, §4.1).

All sums are exact integers, so they do not depend on the order of the images or on how the work was divided.
N images, S the side of their squares.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.dataset import OnProgress, Split
from alexnet.data.decode import Pixels
from alexnet.engine.statistics import colour_products
from alexnet.errors import DataError, one_line, quoted
from alexnet.files import read_npz, write_npz

MOST_SIDE = 4096  # pixels of a square
_MOST_BYTES = MOST_SIDE**2 * 3 * 4 + (1 << 16)  # of a file of statistics
# How the arrays are stored: dtype, shape, and the range of their numbers.
_STORED: dict[str, tuple[str, tuple[int, ...], float, float]] = {
    "mean_image": ("<f4", (), 0, 255),  # of any side
    "rgb_mean": ("<f8", (3,), 0, 255),
    "rgb_covariance": ("<f8", (3, 3), -(255**2), 255**2),
    "eigenvalues": ("<f8", (3,), 0, 3 * 255**2),
    "eigenvectors": ("<f8", (3, 3), -1.001, 1.001),
    "count": ("<i8", (), 1, 2**53),
}
_CENTRE = 128
# Pixels are taken 4 at a time (12 columns) in blocks of 512 rows: a sum of 512 products of at most 2**14 is below 2**24
# and therefore exact in float32, which BLAS multiplies fastest.
_ABREAST = 4
_ROWS = 512


@dataclass(frozen=True)
class Statistics:
    """What training needs to know of its images, in 0..255 units.

    `mean_image` (S, S, 3) float32; `rgb_mean` (3,) and `rgb_covariance` (3, 3) over all pixels, float64; `eigenvalues`
    (3,) descending and `eigenvectors` (3, 3) in columns, of the covariance, float64; `count` images.
    """

    mean_image: NDArray[np.float32]
    rgb_mean: NDArray[np.float64]
    rgb_covariance: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]
    count: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as .npz, atomically; equal statistics give equal bytes."""
        write_npz(Path(path), {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what `save` wrote. Raises `DataError` if the file is missing, damaged or of another kind."""
        try:
            arrays = read_npz(path, _MOST_BYTES)
        except FileNotFoundError:
            raise DataError(f"{path}: there are no statistics there") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: it does not hold statistics: {one_line(error)}") from None
        if arrays.keys() != _STORED.keys():
            raise DataError(f"{path}: it does not hold statistics: it has {quoted(', '.join(arrays))} in it")
        side = arrays["mean_image"].shape[:1] or (0,)
        for name, (dtype, shape, low, high) in _STORED.items():
            array = arrays[name]
            whole = (*side, *side, 3) if name == "mean_image" else shape
            if array.dtype != dtype or array.shape != whole or not 1 <= side[0] <= MOST_SIDE:
                raise DataError(f"{path}: it does not hold statistics: {name} is {array.dtype} {array.shape}")
            if not ((array >= low) & (array <= high)).all():  # what is no number fails too
                raise DataError(f"{path}: {name} in it should have numbers from {low:g} to {high:g}")
        return cls(**{**arrays, "count": int(arrays["count"])})  # type: ignore[arg-type]


class Accumulator:
    """Sums over batches of images (N, S, S, 3) uint8, from which `statistics` follow exactly."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self.sums: NDArray[np.int64] = np.zeros((size, size, 3), np.int64)
        self.products: NDArray[np.int64] = np.zeros((3, 3), np.int64)  # of values less 128

    def add(self, images: Pixels) -> None:
        """Add a batch: (N, S, S, 3) uint8."""
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size, 3):
            wanted = (self.size, self.size, 3)
            raise ValueError(f"statistics need uint8 images (N, {wanted}), not {images.dtype} {images.shape}")
        for first in range(0, len(images), 256):  # 256 times 255 fits 16 bits
            self.sums += images[first : first + 256].sum(axis=0, dtype=np.uint16)
        chunk = max(1, 65536 // self.size**2)  # what fits the cache
        for first in range(0, len(images), chunk):
            self.products += _products(images[first : first + chunk])
        self.count += len(images)

    def merge(self, other: Accumulator) -> None:
        """Add the sums of another accumulator of the same size."""
        self.sums += other.sums
        self.products += other.products
        self.count += other.count

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Return the sums as arrays, for `from_state`."""
        return {"sums": self.sums, "products": self.products, "count": np.int64(self.count) * np.ones((), np.int64)}

    @classmethod
    def from_state(cls, state: dict[str, NDArray[np.int64]]) -> Accumulator:
        """Rebuild an accumulator from `state`. Raises ValueError for another one."""
        shapes = {name: (array.shape, array.dtype) for name, array in state.items()}
        sums = cls(state["sums"].shape[0] if "sums" in state and state["sums"].ndim else 0)
        if shapes != {name: (array.shape, array.dtype) for name, array in sums.state().items()}:
            raise ValueError("they are not sums of images")
        sums.sums, sums.products, sums.count = state["sums"].copy(), state["products"].copy(), int(state["count"])
        return sums

    def statistics(self) -> Statistics:
        """Return the statistics of all images added. Raises `DataError` if there were none."""
        if self.count == 0:
            raise DataError("there are no readable images to compute statistics from")
        pixels = self.count * self.size**2
        totals = [int(total) - _CENTRE * pixels for total in self.sums.sum(axis=(0, 1))]
        # Integers of any length: the subtraction that makes a covariance loses nothing.
        covariance = np.array(
            [
                [(int(self.products[a, b]) * pixels - totals[a] * totals[b]) / (pixels * pixels) for b in range(3)]
                for a in range(3)
            ],
            dtype=np.float64,
        )
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        # An eigenvector's sign is arbitrary; its largest component becomes positive.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(3)])
        return Statistics(
            mean_image=(self.sums / self.count).astype(np.float32),
            rgb_mean=np.array([total / pixels + _CENTRE for total in totals]),
            rgb_covariance=covariance,
            eigenvalues=np.ascontiguousarray(values),
            eigenvectors=np.ascontiguousarray(vectors * signs),
            count=self.count,
        )


def fit(
    split: Split,
    size: int,
    workers: int | None = None,
    progress: OnProgress | None = None,
    memory: int = 2 << 30,
) -> Statistics:
    """Return the statistics of a split's readable images brought to size×size, each read once.

    `workers`, `progress` and `memory` are those of `BatchLoader`. Raises `DataError` if none can be read.
    """
    from alexnet.data.loader import BatchLoader

    sums = Accumulator(size)
    loader = BatchLoader(split, size, 64, seed=0, shuffle=False, workers=workers, memory=memory, progress=progress)
    for batch in loader.epoch(0):
        sums.add(batch.images.numpy())
        batch.release()
    return sums.statistics()


def _products(images: Pixels) -> NDArray[np.int64]:
    """Return the sums of products of the centred channels over all pixels, exactly: (3, 3) int64."""
    products = colour_products(images, _CENTRE)
    return _matrix_products(images) if products is None else products


def _matrix_products(images: Pixels) -> NDArray[np.int64]:
    """Do the same by NumPy, where the engine is not built."""
    values = images.reshape(-1).astype(np.float32)
    values -= _CENTRE
    block = _ROWS * _ABREAST * 3
    whole = len(values) - len(values) % block
    rows = values[:whole].reshape(-1, _ROWS, _ABREAST * 3)
    gram = np.matmul(rows.transpose(0, 2, 1), rows).sum(axis=0, dtype=np.float64)
    total = gram.reshape(_ABREAST, 3, _ABREAST, 3).trace(axis1=0, axis2=2)
    rest = values[whole:].reshape(-1, 3).astype(np.float64)
    return np.rint(total + rest.T @ rest).astype(np.int64)
