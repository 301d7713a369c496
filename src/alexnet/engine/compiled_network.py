"""The forward pass of a network by the compiled kernels, in float32, bfloat16 or int8.

Maps go through the layers a few images at a time, so that they stay in the processor's cache; fully-connected layers,
which read their weights once whatever the number of images, take all together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Full, Network
from alexnet.engine import forward
from alexnet.engine.layers import Layers
from alexnet.engine.library import Dtype
from alexnet.engine.plain_network import View
from alexnet.engine.plan import ALIGNED, STORED, Plan
from alexnet.engine.preparation import Floats, Step
from alexnet.engine.quantization import Quantizer

CACHE = 4 << 20  # bytes of the maps of a few images
PLANS = 16  # kept: one for each number of images and choice of taps


class CompiledNetwork:
    """A network and its preprocessing. Safe to use from several threads at once, each in memory of its own."""

    def __init__(
        self,
        network: Network,
        steps: Sequence[Step],
        mean: Floats | None,
        scale: Floats | None,
        dtype: Dtype,
        threads: int,
        quantizers: Mapping[str, Quantizer],
    ) -> None:
        """`dtype` is that of maps and weights; `threads` are how many compute together.

        Layers that have a quantizer are computed in int8.
        """
        self.side, self.mean, self.scale, self.threads = network.image, mean, scale, threads
        self.layers, self.names = (
            Layers(network, steps, dtype, threads, quantizers),
            [step.entry.name for step in steps],
        )
        self.first_full = next(i for i, step in enumerate(steps) if isinstance(step.entry.layer, Full))
        self.maps_plan = lru_cache(PLANS)(self._maps_plan)
        self.vectors_plan = lru_cache(PLANS)(self._vectors_plan)
        self.together = max(1, CACHE // self._maps_plan(1, frozenset(self.names[-1:])).size)
        self._free: list[NDArray[np.uint8]] = []  # memory that no call is using

    def forward(
        self, squares: NDArray[np.uint8], views: Sequence[View], wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Taps by name of squares (N, S, S, 3), views one after the other: (views·N, H, W, C) or (views·N, units)."""
        squares, names, count = np.ascontiguousarray(squares), frozenset(wanted), len(squares) * len(views)
        together = min(self.together, count)
        vectors = self.vectors_plan(count, names)
        memory = self._take(vectors.size + self.maps_plan(together, names).size)
        taps: dict[str, Floats] = {}
        try:
            for first in range(0, count, together):
                plan, part = self.maps_plan(min(together, count - first), names), memory[vectors.size :]
                self._crops(squares, views, range(first, first + plan.given.shape[0]), part.ctypes.data)
                plan.run(part, partial(_keep, taps, first, count))
                if vectors.stages:
                    self._flatten(plan, part.ctypes.data, memory.ctypes.data + first * vectors.given.bytes // count)
            vectors.run(memory, partial(_keep, taps, 0, count))
        finally:
            self._free.append(memory)
        return taps

    def _maps_plan(self, images: int, wanted: frozenset[str]) -> Plan:
        """From crops to the last maps that are needed."""
        layers = range(min(self.first_full, self._needed(wanted)))
        return Plan(self.layers.given(0, images, flat=False), self.layers.operations(layers, images, wanted), wanted)

    def _vectors_plan(self, images: int, wanted: frozenset[str]) -> Plan:
        """The fully-connected layers that are needed and what lies between them."""
        layers = range(self.first_full, self._needed(wanted))
        return Plan(self.layers.given(self.first_full, images), self.layers.operations(layers, images, wanted), wanted)

    def _needed(self, wanted: frozenset[str]) -> int:
        return max(i for i, name in enumerate(self.names, 1) if name in wanted)

    def _crops(self, squares: NDArray[np.uint8], views: Sequence[View], places: range, out: int) -> None:
        """Some of the crops, numbered view by view, one after the other to `out`."""
        n, side = squares.shape[:2]
        one = self.layers.given(0, 1, flat=False).bytes
        mean, scale = (None if values is None else values.ctypes.data for values in (self.mean, self.scale))
        at = places.start
        while at < places.stop:
            view, image = divmod(at, n)
            images = min(n - image, places.stop - at)
            source = squares.ctypes.data + image * side * side * 3
            target = out + (at - places.start) * one
            forward.crop(
                source, (images, side), views[view], self.side, mean, scale, target, self.layers.dtype, self.threads
            )
            at += images

    def _flatten(self, plan: Plan, base: int, out: int) -> None:
        """The last maps of a plan, each image's in the order of the weights."""
        maps = plan.stages[-1].operation.out if plan.stages else plan.given
        forward.flatten(base + plan.end, out, STORED[maps.dtype].itemsize, maps.shape, self.threads)

    def _take(self, size: int) -> NDArray[np.uint8]:
        """Memory of at least `size` bytes, which starts at a line of the cache."""
        with contextlib.suppress(IndexError):
            memory = self._free.pop()
            if len(memory) >= size:
                return memory
        memory = np.empty(size + ALIGNED, np.uint8)
        return memory[-memory.ctypes.data % ALIGNED :]


def _keep(taps: dict[str, Floats], first: int, count: int, name: str, values: Floats) -> None:
    """Put a tap of some images into its place among all `count`."""
    if name not in taps:
        taps[name] = np.empty((count, *values.shape[1:]), np.float32)
    taps[name][first : first + len(values)] = values
