"""The forward pass of a network by the compiled kernels, in float32, bfloat16 or int8.

Maps go through the layers a few views at a time, so that they stay in the processor's cache; fully-connected layers,
which read their weights once whatever the number of views, take all together.

Shapes: `N` images, `S` side of a square, `V` of a view, `K` kernel side, `P` side of the first maps, `C` maps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import LRN, Activation, Conv, Dropout, Full, Network, Pool
from alexnet.engine import forward
from alexnet.engine.layers import Layers, Pad
from alexnet.engine.library import Dtype
from alexnet.engine.plain_network import View
from alexnet.engine.plan import ALIGNED, STORED, Maps, Plan
from alexnet.engine.preparation import Floats, Step
from alexnet.engine.quantization import Quantizer
from alexnet.engine.sharing import Group, Slices, grouped, length

CACHE = 4 << 20  # bytes of the maps of a few views
PLANS = 32  # kept: one for each number of views and choice of taps
PARTS = 128  # likewise, of the parts of maps that views share
NO_PAD = (0, 0, 0, 0)


@dataclass(frozen=True)
class Batch:
    """What one call computes, and in which memory: vectors at its start, then maps."""

    squares: NDArray[np.uint8]
    views: Sequence[View]
    vectors: Plan
    memory: NDArray[np.uint8]
    taps: dict[str, Floats]

    @property
    def count(self) -> int:
        """Views of all images; that of image i in view j is number j·N + i."""
        return len(self.squares) * len(self.views)

    @property
    def maps(self) -> NDArray[np.uint8]:
        """The memory for maps."""
        return self.memory[self.vectors.size :]

    def vector(self, number: int) -> int:
        """The address of what the first fully-connected layer takes of a view."""
        return self.memory.ctypes.data + self.vectors.given.bytes // self.count * number


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
        """`dtype` is that of maps and of weights, but those of layers with a quantizer, which are int8.

        `threads` are how many compute together. Raises MemoryError, as `forward` does.
        """
        self.side, self.mean, self.scale, self.threads = network.image, mean, scale, threads
        self.layers = Layers(network, steps, dtype, threads, quantizers)
        self.names = [step.entry.name for step in steps]
        kinds = [step.entry.layer for step in steps]
        self.first_full = next(i for i, layer in enumerate(kinds) if isinstance(layer, Full))
        # The first convolutions and pooling layers, which views can share, each with what follows it place by place.
        heads = [i for i, layer in enumerate(kinds) if i == 0 or not isinstance(layer, Activation | LRN | Dropout)]
        self.stages = [range(i, after) for i, after in pairwise(heads)]
        self.shareable: list[tuple[Conv | Pool, int]] = []  # with the sides of what they give
        for stage in self.stages:
            layer = kinds[stage.start]
            if not isinstance(layer, Conv | Pool):
                break
            self.shareable.append((layer, steps[stage.start].entry.shape[1]))
        self.maps_plan, self.vectors_plan = lru_cache(PLANS)(self._maps_plan), lru_cache(PLANS)(self._vectors_plan)
        self.part_plan, self.groups = lru_cache(PARTS)(self._part_plan), lru_cache(PLANS)(self._groups)
        self.together = max(1, CACHE // self._maps_plan(0, 1, frozenset(self.names[-1:])).size)
        self._free: list[NDArray[np.uint8]] = []  # memory that no call is using

    def forward(
        self, squares: NDArray[np.uint8], views: Sequence[View], wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Taps by name of squares (N, S, S, 3), views one after the other: (views·N, H, W, C) or (views·N, units)."""
        squares, names, count = np.ascontiguousarray(squares), frozenset(wanted), len(squares) * len(views)
        vectors = self.vectors_plan(count, names)
        groups: list[Group] = []
        alone = list(range(len(views)))
        if not names & set(self.names[: self.first_full]):
            groups, alone = self.groups(tuple(views), squares.shape[1])
        rooms = [self._rooms(group, min(len(squares), self._images(group)), names)[-1] for group in groups]
        if alone:
            rooms.append(self.maps_plan(0, min(self.together, count), names).size)
        with self._memory(vectors.size + max(rooms)) as memory:
            batch = Batch(squares, views, vectors, memory, {})
            self._alone(batch, alone, names)
            for group in groups:
                for first in range(0, len(squares), self._images(group)):
                    self._group(batch, group, first, min(len(squares) - first, self._images(group)), names)
            vectors.run(memory, partial(_keep, batch.taps, 0, count))
        return batch.taps

    # ---- views on their own ------------------------------------------------------------------------------------------

    def _alone(self, batch: Batch, views: Sequence[int], wanted: frozenset[str]) -> None:
        """Views that share nothing, a few at a time, from crops to vectors."""
        n, sides, one = len(batch.squares), (self.side, self.side), self.layers.given(0, 1, flat=False).bytes
        count = n * len(views)
        for first in range(0, count, self.together):
            plan = self.maps_plan(0, min(self.together, count - first), wanted)
            runs = list(_runs(first, plan.given.shape[0], n))
            for offset, place, image, images in runs:
                to = batch.maps.ctypes.data + offset * one
                self._crop(batch, batch.views[views[place]], sides, image, images, to)
            plan.run(batch.maps, partial(_keep, batch.taps, first, count))
            for offset, place, image, images in runs if batch.vectors.stages else ():
                self._flatten(plan, batch.maps, offset, images, batch.vector(views[place] * n + image))

    def _maps_plan(self, first: int, views: int, wanted: frozenset[str]) -> Plan:
        """From what a layer takes of some views to the last maps that are needed."""
        given = self.layers.given(first, views, flat=False)
        layers = range(first, min(self.first_full, self._needed(wanted)))
        return Plan(given, self.layers.operations(layers, given, wanted), wanted)

    def _vectors_plan(self, views: int, wanted: frozenset[str]) -> Plan:
        """The fully-connected layers that are needed and what lies between them."""
        given = self.layers.given(self.first_full, views)
        layers = range(self.first_full, self._needed(wanted))
        return Plan(given, self.layers.operations(layers, given, wanted), wanted)

    def _needed(self, wanted: frozenset[str]) -> int:
        return max(i for i, name in enumerate(self.names, 1) if name in wanted)

    def _crop(self, batch: Batch, place: View, sides: tuple[int, int], image: int, images: int, out: int) -> None:
        """A part of some images to `out`."""
        side = batch.squares.shape[1]
        source = batch.squares.ctypes.data + image * side * side * 3
        mean, scale = (None if values is None else values.ctypes.data for values in (self.mean, self.scale))
        forward.crop(source, (images, side), place, sides, mean, scale, out, self.layers.dtype, self.threads)

    def _flatten(self, plan: Plan, memory: NDArray[np.uint8], offset: int, views: int, out: int) -> None:
        """The last maps of some of a plan's views, each one's in the order of the weights."""
        maps = plan.out
        source = memory.ctypes.data + plan.end + maps.bytes // maps.shape[0] * offset
        forward.flatten(source, out, STORED[maps.dtype].itemsize, (views, *maps.shape[1:]), self.threads)

    # ---- views that share windows of the first layers ----------------------------------------------------------------

    def _groups(self, views: tuple[View, ...], square: int) -> tuple[list[Group], list[int]]:
        """Which of the views of squares share windows, and which share none."""
        return grouped(views, square, self.side, self.shareable)

    def _group(self, batch: Batch, group: Group, image: int, images: int, wanted: frozenset[str]) -> None:
        """A group's views of some images, from crops to vectors."""
        rooms = self._rooms(group, images, wanted)
        common = own = np.empty(0)  # the maps in common (1, N, H, W, C), those of each view (views, N, H, W, C)
        for i, level in enumerate(group.levels):
            last = i == len(group.levels) - 1
            found = self._part(batch, group, i, level.source, None, image, images, common)
            shared = self._kept(batch, rooms[i % 2], found.shape)
            shared[...] = found
            shape = (len(group.views), images, level.side, level.side, found.shape[-1])
            views = self._kept(batch, rooms[4 if last else 2 + i % 2], shape)
            for strip in level.strips:
                views[:, :, *strip.target] = self._part(batch, group, i, strip.source, strip.pad, image, images, own)
            for view, part in product(range(len(group.views)), level.copied):
                views[view, :, *part] = shared[0, :, *level.common(view, part)]
            common, own = shared, views
        plan, after = self._plan_after(group, images, wanted), batch.maps[rooms[4] :]
        plan.run(after)
        for at, view in enumerate(group.views):
            self._flatten(plan, after, at * images, images, batch.vector(view * len(batch.squares) + image))

    def _part(
        self,
        batch: Batch,
        group: Group,
        stage: int,
        source: Slices,
        pad: Pad | None,
        image: int,
        images: int,
        maps: NDArray[Any],
    ) -> NDArray[Any]:
        """What a stage gives of a part of each view's maps, or without `pad` of the common ones, until the next call.

        The first takes it from the images.
        """
        members = [None] if pad is None else range(len(group.views))
        sides = length(source[0]), length(source[1])
        plan = self.part_plan(stage, len(members) * images, *sides, pad or NO_PAD)
        given = plan.given.view(batch.maps, 0).reshape(len(members), images, *plan.given.shape[1:])
        if stage:
            given[...] = maps[:, :, *source]
        else:
            for member, to in zip(members, given, strict=True):
                place = group.part(source, member).place(batch.squares.shape[1], group.mirrored)
                self._crop(batch, place, sides, image, images, to.ctypes.data)
        plan.run(batch.maps)
        return plan.out.view(batch.maps, plan.end).reshape(len(members), images, *plan.out.shape[1:])

    def _kept(self, batch: Batch, at: int, shape: Sequence[int]) -> NDArray[Any]:
        return Maps(tuple(shape), self.layers.dtype).view(batch.maps, at)

    def _part_plan(self, stage: int, images: int, rows: int, columns: int, pad: Pad) -> Plan:
        """A stage over a part of some images' maps."""
        layers = self.stages[stage]
        maps = self.layers.given(layers.start, 1, flat=False).shape[-1]
        given = Maps((images, rows, columns, maps), self.layers.dtype)
        return Plan(given, self.layers.operations(layers, given, pad=pad))

    def _plan_after(self, group: Group, images: int, wanted: frozenset[str]) -> Plan:
        """The layers that a group's views do not share."""
        return self.maps_plan(self.stages[len(group.levels) - 1].stop, images * len(group.views), wanted)

    def _images(self, group: Group) -> int:
        """How many images a group of views takes together."""
        return max(1, self.together // len(group.views))

    def _rooms(self, group: Group, images: int, wanted: frozenset[str]) -> list[int]:
        """Where maps lie in `_group`: the common ones of even and odd layers, the views' own, the last; and the end."""
        work, sizes, number = 0, [0] * 4, len(group.views)
        for i, level in enumerate(group.levels):
            plans = [self.part_plan(i, images, *map(length, level.source), NO_PAD)]
            plans += [self.part_plan(i, number * images, *map(length, s.source), s.pad) for s in level.strips]
            work = max(work, *(plan.size for plan in plans))
            own = Maps((number * images, level.side, level.side, plans[0].out.shape[-1]), self.layers.dtype)
            for at, room in ((i % 2, plans[0].out.room), (2 + i % 2, own.room)):
                sizes[at] = max(sizes[at], room)
        return list(accumulate([*sizes, self._plan_after(group, images, wanted).size], initial=work))

    @contextlib.contextmanager
    def _memory(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """Memory of at least `size` bytes, which starts at a line of the cache, for one call."""
        memory = np.empty(0, np.uint8)
        with contextlib.suppress(IndexError):
            memory = self._free.pop()
        if len(memory) < size:
            memory = np.empty(size + ALIGNED, np.uint8)
            memory = memory[-memory.ctypes.data % ALIGNED :]
        try:
            yield memory
        finally:
            self._free.append(memory)


def _runs(first: int, count: int, n: int) -> Iterator[tuple[int, int, int, int]]:
    """Views number `first` and on, cut where one view of all `n` images ends: offset, view, image, images."""
    at = first
    while at < first + count:
        images = min(n - at % n, first + count - at)
        yield at - first, at // n, at % n, images
        at += images


def _keep(taps: dict[str, Floats], first: int, count: int, name: str, values: Floats) -> None:
    """Put a tap of some views into its place among all `count`."""
    if name not in taps:
        taps[name] = np.empty((count, *values.shape[1:]), np.float32)
    taps[name][first : first + len(values)] = values
