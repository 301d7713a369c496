"""What several views of a square have in common: the windows of the first convolution that lie inside each of them.

Views that lie a multiple of the stride apart see those windows alike, so that they are computed once, over the part of
the square that the views cover. Only where a window reaches past a view's right or bottom edge, where it sees zeros,
has the view rows and columns of its own. Places are those of the square as it is, or mirrored as the views are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.architecture import Conv, output_side
from alexnet.engine.plain_network import View

Slices = tuple[slice, slice]  # rows and columns


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
    """A part whose windows are computed, with zeros around it (top, bottom, left, right), and what is copied of them.

    `copies`: the place of a view in its group, rows and columns among the windows, rows and columns in the view.
    """

    part: Part
    pad: tuple[int, int, int, int]
    copies: tuple[tuple[int, Slices, Slices], ...]


@dataclass(frozen=True)
class Group:
    """Views that share windows, by their numbers, and all strips of windows that they are put together of."""

    views: tuple[int, ...]
    mirrored: bool
    strips: tuple[Strip, ...]


def grouped(views: Sequence[View], square: int, side: int, layer: Conv) -> tuple[list[Group], list[int]]:
    """The groups of views of `side` that share windows of a layer, and the views that share none."""
    groups: list[Group] = []
    alone: list[int] = []
    step = layer.stride
    for mirrored in (False, True):
        corners = {
            i: (top, square - side - left if mirrored else left)
            for i, (top, left, mirror) in enumerate(views)
            if bool(mirror) == mirrored
        }
        for phase in sorted({(top % step, left % step) for top, left in corners.values()}):
            members = {i: at for i, at in corners.items() if (at[0] % step, at[1] % step) == phase}
            strips = _strips(list(members.values()), side, layer)
            if strips:
                groups.append(Group(tuple(members), mirrored, strips))
            else:
                alone += members
    return groups, sorted(alone)


def _strips(corners: list[tuple[int, int]], side: int, layer: Conv) -> tuple[Strip, ...]:
    """Those of views at `corners`; none where they would be no less work than the views one by one."""
    size, step = layer.size, layer.stride
    inner = (side - size) // step + 1  # windows along a side that lie inside a view
    all_windows = output_side(side, size, step, ceil=layer.ceil)
    top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
    cover = Part(top, left, *(max(corner[axis] for corner in corners) - (top, left)[axis] + side for axis in (0, 1)))
    windows = ((cover.rows - size) // step + 1) * ((cover.columns - size) // step + 1)
    if layer.pad or step > size or windows >= len(corners) * inner**2:
        return ()
    within, edge, whole = slice(0, inner), slice(inner, all_windows), slice(0, all_windows)
    copies = []
    strips = []
    past = (all_windows - 1) * step + size - side  # how far the last window reaches past the view
    for place, (row, column) in enumerate(corners):
        y, x = (row - top) // step, (column - left) // step
        copies.append((place, (slice(y, y + inner), slice(x, x + inner)), (within, within)))
        if all_windows > inner:
            start, rest = inner * step, side - inner * step
            below = Part(row + start, column, rest, side)
            beside = Part(row, column + start, (inner - 1) * step + size, rest)
            everything = (slice(None), slice(None))
            strips.append(Strip(below, (0, past, 0, past), ((place, everything, (edge, whole)),)))
            strips.append(Strip(beside, (0, 0, 0, past), ((place, everything, (within, edge)),)))
    return Strip(cover, (0, 0, 0, 0), tuple(copies)), *strips
