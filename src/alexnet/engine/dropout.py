"""Calls of the compiled choice of the units that dropout keeps."""

from __future__ import annotations

from alexnet.engine.library import call


def dropout(
    keep: int,
    positions: int,
    images: int,
    units: int,
    first_unit: int,
    key: tuple[int, int, int],
    threshold: int,
    threads: int,
) -> None:
    """Write `keep` (images, units) uint8: 1 for units that stay, else 0. Raises MemoryError.

    `positions` (images,) int64; `key` is the seed (64 bits), the epoch and the layer's number (32 bits each).
    """
    seed, epoch, layer = key
    signed = seed - (1 << 64) if seed >> 63 else seed
    call("dropout", keep, positions, images, units, first_unit, signed, epoch, layer, threshold, threads)
