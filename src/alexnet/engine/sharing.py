"""What several views of a square have in common: the windows of the first layers that lie inside each of them.

Views that lie a multiple of the strides apart see those windows alike, so that they are computed once, over the part of
the square that the views cover, layer after layer. Near its edges, where windows reach past them and see zeros, a view
has maps of its own, and the deeper the layer, the broader they are: sharing ends where it saves little.

Places are those of the square as it is, or mirrored as the views are. Rows and columns alike, a span of a view's maps
is a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alexnet.architecture import Conv, Pool
from alexnet.engine.plain_network import View

WORTH = 0.8  # a layer is shared where its windows are fewer than this part of those of the views one by one

Slices = tuple[slice, slice]  # rows and columns
Corner = tuple[int, int]  # a row and a column


@dataclass(frozen=True)
class Part:
    """A rectangle of a square: top, left, rows, columns."""

    top: int
    left: int
    rows: int
    columns: int

    def place(self, side: int, mirrored: bool) -> View:
        """Where it is cut from the square itself: a mirrored one from the other side."""
        return self.top, side - self.left - self.columns if mirrored else self.left, mirrored


@dataclass(frozen=True)
class Strip:
    """A part of each view's maps that is its own: what the layer takes for it, and where it lies in what it gives.

    `pad` are the zeros around what it takes (top, bottom, left, right).
    """

    source: Slices
    pad: tuple[int, int, int, int]
    target: Slices


@dataclass(frozen=True)
class Level:
    """One layer over a group's views: `side` is that of a view's maps.

    Of the common maps below it takes `source` and gives maps, of which each view has rows and columns `inner`, from its
    corner on. `copied` are the parts of a view's maps which are needed and lie among these.
    """

    side: int
    source: Slices
    inner: slice
    corners: tuple[Corner, ...]
    strips: tuple[Strip, ...]
    copied: tuple[Slices, ...]

    def common(self, view: int, part: Slices) -> Slices:
        """Where a part of a view's maps lies in the common ones."""
        return _shifted(part, *(at - self.inner.start for at in self.corners[view]))


@dataclass(frozen=True)
class Group:
    """Views that share windows, by their numbers, and the layers in which they do."""

    views: tuple[int, ...]
    mirrored: bool
    places: tuple[Corner, ...]  # of the views
    corner: Corner  # of what they cover
    levels: tuple[Level, ...]

    def part(self, source: Slices, view: int | None = None) -> Part:
        """The rectangle of the square that a part of the common image, or of a view's own, is."""
        at = self.corner if view is None else self.places[view]
        rows, columns = _shifted(source, *at)
        return Part(rows.start, columns.start, length(rows), length(columns))


def length(span: slice) -> int:
    """How many rows or columns."""
    return int(span.stop - span.start)


def grouped(
    views: Sequence[View], square: int, side: int, layers: Sequence[tuple[Conv | Pool, int]]
) -> tuple[list[Group], list[int]]:
    """The groups of views of `side` that share windows of the first layers, and the views that share none.

    `layers` come with the sides of what they give.
    """
    groups: list[Group] = []
    alone: list[int] = []
    step = layers[0][0].stride if layers else 1
    for mirrored in (False, True):
        corners = {
            i: (top, square - side - left if mirrored else left)
            for i, (top, left, mirror) in enumerate(views)
            if bool(mirror) == mirrored
        }
        for phase in sorted({(top % step, left % step) for top, left in corners.values()}):
            members = {i: at for i, at in corners.items() if (at[0] % step, at[1] % step) == phase}
            places = tuple(members.values())
            corner = min(top for top, _ in places), min(left for _, left in places)
            levels = _levels([(top - corner[0], left - corner[1]) for top, left in places], side, layers)
            if levels:
                groups.append(Group(tuple(members), mirrored, places, corner, levels))
            else:
                alone += members
    return groups, sorted(alone)


def _levels(corners: Sequence[Corner], side: int, layers: Sequence[tuple[Conv | Pool, int]]) -> tuple[Level, ...]:
    """Those of the layers, one after the other, in which views at `corners` have enough in common."""
    levels: list[Level] = []
    inner = slice(0, side)
    for layer, out in layers:
        size, step, pad = layer.size, layer.stride, layer.pad if isinstance(layer, Conv) else 0
        whole = (side - size) // step + 1  # windows inside a view: one at least where others are cut at its edge
        most = whole - 1 if isinstance(layer, Pool) and out > whole else out
        shared = slice(-(-(inner.start + pad) // step), min((inner.stop + pad - size) // step + 1, most))
        if length(shared) <= 0 or any(at % step for corner in corners for at in corner):
            break
        corners = [(row // step, column // step) for row, column in corners]
        counts = [length(shared) + max(corner[axis] for corner in corners) for axis in (0, 1)]
        apart = len(corners) * out**2
        if counts[0] * counts[1] + apart - len(corners) * length(shared) ** 2 >= WORTH * apart:
            break
        start = shared.start * step - pad - inner.start
        rows, columns = (slice(start, start + (count - 1) * step + size) for count in counts)
        strips = tuple(_strip(layer, side, *target) for target in _around(shared, out))
        levels.append(Level(out, (rows, columns), shared, tuple(corners), strips, ((shared, shared),)))
        inner, side = shared, out
    for i, after in enumerate(levels[1:]):
        inner = levels[i].inner
        parts = ((_both(strip.source[0], inner), _both(strip.source[1], inner)) for strip in after.strips)
        levels[i] = replace(levels[i], copied=tuple(part for part in parts if all(length(span) > 0 for span in part)))
    return tuple(levels)


def _around(inner: slice, side: int) -> list[Slices]:
    """The rectangles around the square `inner` of maps of `side`: above and below it, and at its left and right."""
    whole, before, after = slice(0, side), slice(0, inner.start), slice(inner.stop, side)
    found = [(before, whole), (after, whole), (inner, before), (inner, after)]
    return [part for part in found if all(length(span) for span in part)]


def _strip(layer: Conv | Pool, side: int, rows: slice, columns: slice) -> Strip:
    """What a layer over maps of `side` takes for some rows and columns of what it gives."""
    pad = layer.pad if isinstance(layer, Conv) else 0
    spans = [(s.start * layer.stride - pad, (s.stop - 1) * layer.stride - pad + layer.size) for s in (rows, columns)]
    source = tuple(slice(max(0, first), min(side, last)) for first, last in spans)
    zeros = (edge for first, last in spans for edge in (max(0, -first), max(0, last - side)))
    return Strip(source, tuple(zeros), (rows, columns))  # type: ignore[arg-type]


def _both(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _shifted(part: Slices, down: int, right: int) -> Slices:
    rows, columns = part
    return slice(rows.start + down, rows.stop + down), slice(columns.start + right, columns.stop + right)
