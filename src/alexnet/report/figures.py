"""The paper's figures as PNG files for papers and slides: curves, kernels, predictions, nearest images, confusions.

Everything is drawn on figures of its own, never on matplotlib's global state. Shapes: `C` classes, `K` kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from alexnet.report.analysis import NEAREST, Example
from alexnet.report.charts import CELLS_AS_TABLE, top_of
from alexnet.report.history import History
from alexnet.report.kernels import Kernels

DPI = 200
COLOURS = {"train": "#9a958a", "top1": "#1f5fa8", "top5": "#c2691a"}
RIGHT, WRONG, OTHER = "#2e7d4f", "#b8372b", "#c9c4b8"
INK, SOFT = "#1d1b18", "#6d685f"


def draw_curves(path: Path, history: History) -> None:
    """Training and validation loss, and errors in percent, over epochs, with the drops of the rate marked."""
    figure = _figure(9, 3.4)
    for place, (lines, title) in enumerate(((history.losses, "loss, nats"), (history.errors, "error, %"))):
        axes = figure.add_subplot(1, 2, place + 1)
        for line in lines:
            x, y = zip(*line.points, strict=True)
            marker = "." if len(x) < 3 else ""
            axes.plot(
                x,
                y,
                color=COLOURS[line.key],
                label=line.name,
                marker=marker,
                linewidth=1.0 if line.key == "train" else 1.6,
            )
        for epoch, rate in history.drops:
            axes.axvline(epoch, color=SOFT, linewidth=0.7, linestyle=(0, (3, 3)))
            axes.annotate(
                f"{rate:g}",
                (epoch, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, -8),
                textcoords="offset points",
                fontsize=6.5,
                color=SOFT,
            )
        axes.set_title(title, loc="left", fontsize=9, color=INK)
        axes.set_xlabel("epoch", fontsize=8, color=SOFT)
        if lines:
            axes.set_ylim(0, 1.05 * top_of(lines))
            axes.legend(frameon=False, fontsize=8)
        _plain(axes)
    _save(figure, path)


def draw_kernels(path: Path, kernels: Kernels) -> None:
    """The kernels of the first layer, a column below the other as in the paper's figure 3."""
    across, gap, apart = 16, 0.08, 0.4  # in kernels
    rows = [-(-len(column) // across) for column in kernels.columns]
    height = sum(rows) * (1 + gap) - gap + apart * (len(rows) - 1)
    axes = _board(across * (1 + gap) - gap, height, 0.5)
    top = 0.0
    for column, count in zip(kernels.columns, rows, strict=True):
        for i, pixels in enumerate(column):
            row, place = divmod(i, across)
            _place(axes, pixels, place * (1 + gap), top + row * (1 + gap))
        top += count * (1 + gap) + apart
    _save(axes.figure, path)


def draw_predictions(path: Path, examples: Sequence[Example], classes: Sequence[str]) -> None:
    """Images with their most probable labels as bars; the true label's bar tells right from wrong (figure 4, left)."""
    across = 4
    down = -(-len(examples) // across)
    figure = _figure(9, 3.6 * down)
    grid = figure.add_gridspec(
        2 * down,
        across,
        height_ratios=[2.2, 1] * down,
        hspace=0.16,
        wspace=0.12,
        left=0.02,
        right=0.98,
        top=0.97,
        bottom=0.02,
    )
    for i, example in enumerate(examples):
        row, column = divmod(i, across)
        picture = figure.add_subplot(grid[2 * row, column])
        _picture(picture, example.image)
        picture.set_title(_short(classes[example.truth], 24), fontsize=8, color=RIGHT if example.right else WRONG)
        bars = figure.add_subplot(grid[2 * row + 1, column])
        places = np.arange(len(example.labels))
        colours = [_bar_colour(example, label) for label in example.labels]
        bars.barh(places, example.probabilities, color=colours, height=0.8)
        for place, label in enumerate(example.labels):
            bars.text(0.015, place, _short(classes[label], 26), fontsize=6.5, va="center", color=INK)
        bars.set_xlim(0, 1)
        bars.set_ylim(len(places) - 0.4, -0.6)
        bars.set_axis_off()
    _save(figure, path)


def draw_nearest(path: Path, examples: Sequence[Example], classes: Sequence[str]) -> None:
    """Each image followed by its nearest training images, those of another class framed (figure 4, right)."""
    step, line = 1.08, 1.28  # from image to image and row to row, in images
    axes = _board(NEAREST * step + 1.2, len(examples) * line, 1.0)
    for row, example in enumerate(examples):
        shown = [(example.image, example.truth), *((near.image, near.label) for near in example.nearest)]
        for column, (pixels, label) in enumerate(shown):
            left, top = column * step + (0.12 if column else 0), row * line + 0.2
            _place(axes, pixels, left, top)
            strange = column > 0 and label != example.truth
            axes.text(
                left,
                top - 0.05,
                _short(classes[label], 18),
                fontsize=5.5,
                color=WRONG if strange else INK,
                fontweight="bold" if column == 0 else "normal",
            )
    _save(axes.figure, path)


def draw_confusion(path: Path, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """The confusion matrix, true classes in rows, coloured by the share of a class's images; names up to 40 classes."""
    n = len(classes)
    figure = _figure(6.6, 6.2)
    axes = figure.add_subplot(1, 1, 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if n <= CELLS_AS_TABLE:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.text(
                j,
                i,
                str(counts[i, j]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.25 else INK,
            )
    if n <= 40:
        size = 8 if n <= 20 else 5.5
        names = [_short(name, 20) for name in classes]
        axes.set_xticks(range(n), names, rotation=90, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
    axes.tick_params(length=0, labelsize=8 if n <= 20 else 5.5)
    axes.set_xlabel("predicted", fontsize=8, color=SOFT)
    axes.set_ylabel("true", fontsize=8, color=SOFT)
    for spine in axes.spines.values():
        spine.set_color("#ddd8cc")
    _save(figure, path)


def _bar_colour(example: Example, label: int) -> str:
    if label == example.truth:
        return "#7fbf9a"
    return "#e0968d" if label == example.labels[0] else OTHER


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _board(width: float, height: float, scale: float) -> Axes:
    """Bare axes over a whole figure for pictures of side 1, `scale` inches each; the origin is at the top left."""
    axes = _figure(width * scale, height * scale).add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return axes


def _place(axes: Axes, pixels: NDArray[np.uint8], left: float, top: float) -> None:
    """A picture of side 1 on a board."""
    axes.imshow(pixels, extent=(left, left + 1, top + 1, top), interpolation=_interpolation(pixels), aspect="auto")


def _interpolation(pixels: NDArray[np.uint8]) -> str:
    return "nearest" if len(pixels) <= 64 else "antialiased"


def _picture(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    axes.imshow(pixels, interpolation=_interpolation(pixels))
    axes.set_axis_off()


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=SOFT)


def _short(text: str, length: int) -> str:
    """A name that fits, with the characters that matplotlib would read as mathematics taken literally."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(c if c.isprintable() else "·" for c in text).replace("$", r"\$")


def _save(figure: Figure | SubFigure, path: Path) -> None:
    """Write beside and rename, so that a reader never finds half a picture."""
    assert isinstance(figure, Figure)
    beside = path.with_name(path.name + ".new")
    options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08, "facecolor": "white"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # class names in scripts the font lacks
        figure.savefig(beside, format="png", dpi=DPI, **options)
    beside.replace(path)
