"""Curves and confusion matrices as inline SVG and HTML, coloured by the page's variables so that they suit the dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.report.history import Curve, Points

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 30, 38
CELLS_AS_TABLE = 12  # classes up to which a confusion matrix is a table with numbers


def curves(lines: Sequence[Curve], drops: Points, epochs: float, unit: str, alt: str, log: bool = False) -> str:
    """A chart of curves over epochs with the drops of the rate as dashed verticals, as SVG.

    A linear chart starts at 0 and lets what the first steps overshoot run off its top.
    """
    scale = _log_scale(lines) if log else _linear_scale(lines, 100 if unit == "%" else math.inf)
    right = max(epochs, 1e-9)

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / right

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale.place(value)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">']
    for tick in scale.ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0, right, 6):
        if tick <= right:
            parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="unit" x="{LEFT - 6}" y="13" text-anchor="end">{escape(unit)}</text>')
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">epoch</text>')
    free = -math.inf
    for epoch, rate in drops:
        label = f"ε {rate:g}"
        wide = 9 * len(label) + 10  # on phones letters are larger beside the chart
        at, anchor = (x(epoch) + 3, "start") if x(epoch) + wide < WIDTH else (x(epoch) - 3, "end")
        row = 13 if x(epoch) >= free else 26
        free = x(epoch) + wide if row == 13 else free
        parts.append(
            f'<line class="drop" x1="{x(epoch):.1f}" x2="{x(epoch):.1f}" y1="{row - 9}" y2="{HEIGHT - BOTTOM}"/>'
        )
        parts.append(f'<text class="unit" x="{at:.1f}" y="{row}" text-anchor="{anchor}">{label}</text>')
    width, height = WIDTH - LEFT - RIGHT + 4, HEIGHT - TOP - BOTTOM + 3  # room for a dot at the end and a line at 0
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">')
    for line in lines:
        places = [f"{x(epoch) - LEFT:.1f},{y(value) - TOP:.1f}" for epoch, value in line.points]
        parts.append(f'<polyline class="{line.key}" points="{" ".join(places)}"/>')
        if len(places) == 1 or line.key != "train" and len(places) < 30:
            parts += [
                f'<circle class="{line.key}" cx="{place.split(",")[0]}" cy="{place.split(",")[1]}" r="2.2"/>'
                for place in places
            ]
    parts.append("</svg></svg>")
    return "".join(parts)


def confusion_table(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """A confusion matrix of few classes as an HTML table: true classes in rows, predicted ones in columns."""
    rows = []
    for i, name in enumerate(classes):
        total = max(1, int(counts[i].sum()))
        cells = "".join(_cell(int(counts[i, j]), total, i == j) for j in range(len(classes)))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in classes)
    kind = "confusion" if max(map(len, classes)) > 3 else "confusion brief"
    return f'<table class="{kind}"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def confusion_image(counts: NDArray[np.int64], alt: str) -> str:
    """A confusion matrix of many classes as an image: the larger the share of a class's images, the less transparent.

    Confusions are shaded in relation to the largest one, the diagonal in relation to all of a class's images.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = share * (1 - np.eye(len(counts)))
    share = np.sqrt(np.where(np.eye(len(counts), dtype=bool), share, wrong / (wrong.max() or 1)))
    pixels = np.zeros((*counts.shape, 4), np.uint8)
    pixels[..., :3] = (222, 84, 58)
    pixels[np.diag_indices(len(counts))] = (63, 136, 197, 0)
    pixels[..., 3] = np.rint(255 * share)
    factor = max(1, 800 // len(counts))
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(buffer, "PNG", optimize=True)
    return f'<img class="matrix" src="{data_uri(buffer.getvalue(), "image/png")}" alt="{escape(alt)}">'


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as the address of an image that is within the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _cell(count: int, total: int, right: bool) -> str:
    if not count:
        return "<td></td>"
    share = 100 * math.sqrt(count / total)
    kind = "hit" if right else "miss"
    return f'<td class="{kind}" style="--share:{share:.0f}%">{count}</td>'


@dataclass(frozen=True)
class _Scale:
    """Where values stand on the vertical axis, 0 to 1, and its ticks."""

    place: Callable[[float], float]
    ticks: tuple[float, ...]


def top_of(lines: Sequence[Curve]) -> float:
    """The highest value a linear chart shows: what the first twelfth of the run exceeds runs off the top."""
    last = max((epoch for line in lines for epoch, _ in line.points), default=0.0)
    later = [value for line in lines for epoch, value in line.points if epoch >= last / 12]
    return max(later, default=1.0) or 1.0


def _linear_scale(lines: Sequence[Curve], limit: float) -> _Scale:
    ticks = _ticks(0, min(1.02 * top_of(lines), limit), 5)
    return _Scale(lambda value: value / ticks[-1], ticks)


def _log_scale(lines: Sequence[Curve]) -> _Scale:
    values = [value for line in lines for _, value in line.points if value > 0] or [1.0]
    low, high = math.log10(min(values)), math.log10(max(values))
    low, high = (low - 0.05, high + 0.05) if high - low < 0.3 else (low, high)
    steps = (1.0, 2.0, 5.0) if high - low < 3 else (1.0,)
    ticks = tuple(step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps)
    inside = tuple(tick for tick in ticks if low <= math.log10(tick) <= high)
    return _Scale(lambda value: (math.log10(max(value, 10**low)) - low) / (high - low), inside)


def _ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Round values from `low` to the first at or past `high`, about `count` of them."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return tuple(round(low + step * i, 10) for i in range(math.ceil((high - low) / step - 1e-9) + 1))
