"""The report's drawings. Each is drawn by one function, as SVG for the page and as PNG for papers and slides.

A drawing is a `Panel`, made for the width of a phone and of a paper's column alike. The colours are those of the page's
style sheet: in the SVG they become its variables, so that they change with the page in the dark. Everything is drawn
on figures of its own, never on matplotlib's global state. Shapes: `C` classes, `K` kernels, `S` side of an image.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.decode import Pixels
from alexnet.files import atomic_write
from alexnet.report.analysis import Example
from alexnet.report.history import Curve, Points
from alexnet.report.kernels import Kernels

WIDTH = 3.6  # inches: 259 units of 1/72 inch, as SVG counts
DPI = 200
GAP = 0.08  # between panels in a PNG, as a share of one
PIXELATED = 64  # smaller images are shown with their pixels
CELLS_WITH_NUMBERS, NAMED_CELLS = 12, 30  # classes
_STYLE = (resources.files("alexnet.report") / "templates" / "report.css").read_text(encoding="utf-8")
COLOURS = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", _STYLE.partition("@media")[0]))
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
INK, SOFT = COLOURS["ink"], COLOURS["soft"]


@dataclass(frozen=True)
class Panel:
    """A drawing: its size in inches, what it shows in words, and the function that draws it on an empty figure."""

    width: float
    height: float
    about: str
    draw: Callable[[FigureBase], None]


def svg(panel: Panel, name: str) -> Markup:
    """A panel as an SVG element within a page; `name` is the page's own for it. Equal panels give equal text."""
    figure = Figure((panel.width, panel.height), dpi=DPI)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _drawing(name):
        panel.draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    body = re.sub(
        r' id="[\w.]+_\d+"| transform="rotate\(-0 [^"]*"', "", text[text.index(">", text.index("<svg")) + 1 :]
    )
    body = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_VARIABLES.get(m[2], m[2])}", body)
    body = re.sub(r"data:image/png;base64,([^\"]+)", lambda m: _smaller(base64.b64decode(m[1])), body)
    size = f"0 0 {72 * panel.width:g} {72 * panel.height:g}"
    return Markup('<svg class="plot" role="img" aria-label="{}" viewBox="{}">').format(panel.about, size) + Markup(body)


def svg_file(panel: Panel, name: str) -> str:
    """A panel as an SVG file of its own, whose colours change in the dark as the page's do."""
    colours, _, _ = _STYLE.partition("* {")
    opening = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    text = str(svg(panel, name)).replace("<svg ", opening, 1)
    at = text.index(">") + 1
    return f"{text[:at]}<style>{' '.join(colours.split())}</style>{text[at:]}\n"


def save_png(path: Path, panels: Sequence[Panel], across: int) -> None:
    """Panels of one size as a PNG file, `across` of them side by side. Raises OSError."""
    down = -(-len(panels) // across)
    width, height = (across + GAP * (across - 1)) * panels[0].width, (down + GAP * (down - 1)) * panels[0].height
    figure = Figure((width, height), dpi=DPI)
    cells = figure.subfigures(down, across, squeeze=False, wspace=GAP, hspace=GAP).flat
    with _drawing("png"), atomic_write(path) as file:
        for cell, panel in zip(cells, panels, strict=False):
            panel.draw(cell)
        options: dict[str, Any] = {"facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.08}
        figure.savefig(file, format="png", metadata={"Software": None}, **options)


def curves(title: str, unit: str, lines: Sequence[Curve], drops: Points, epochs: float) -> Panel:
    """Curves over epochs, from 0, with the drops of the learning rate as dashed lines.

    What the first twelfth of the run exceeds everything later by runs off the top.
    """
    suffix = "\u202f%" if unit == "%" else ""
    values = [f"{line.name} {line.last:.{2 if suffix else 3}f}{suffix}" for line in lines]

    def draw(figure: FigureBase) -> None:
        axes = figure.add_axes((0.09, 0.12, 0.89, 0.66))
        for line, label in zip(lines, values, strict=True):
            x, y = zip(*line.points, strict=True)
            marker = "o" if len(x) == 1 or line.key != "train" and len(x) < 30 else ""
            thin = line.key == "train"
            axes.plot(
                x, y, marker=marker, ms=2.5, lw=0.8 if thin else 1.4, color=COLOURS[line.key], label=label, zorder=3
            )
        last = max(epochs, 1e-9)
        top = min(1.05 * _top(lines), 100 if suffix else np.inf)
        axes.set(xlim=(0, 1.015 * last), ylim=(-0.01 * top, top))
        _mark_drops(axes, drops, last)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color=COLOURS["line"], lw=0.6)
        axes.tick_params(length=0, pad=3, labelsize=7.5, colors=SOFT)
        axes.spines[:].set_visible(False)
        axes.text(1, -0.14, "epoch", transform=axes.transAxes, ha="right", va="center", size=7.5, color=SOFT)
        axes.set_axisbelow(True)
        figure.text(0, 0.93, f"{title}, {unit}", size=8.5, weight="bold", color=INK)
        figure.legend(
            loc="lower left",
            bbox_to_anchor=(0, 0.85),
            ncols=3,
            frameon=False,
            fontsize=6.5,
            labelcolor=INK,
            handlelength=1,
            handletextpad=0.5,
            columnspacing=1,
            borderpad=0,
            borderaxespad=0,
        )

    return Panel(WIDTH, 2.7, f"{title} over {epochs:.3g} epochs. At the end: {', '.join(values)}", draw)


def kernels(shown: Kernels) -> list[Panel]:
    """The kernels of the first layer, a panel per column of the network (figure 3)."""
    several = len(shown.columns) > 1
    return [
        _column(
            _tiles(column, 8 if several else 12),
            f"Column {i + 1}" if several else shown.layer,
            "" if shown.colour is None else f"{shown.colour[i]:.0f}\u202f% colour",
            "{} kernels of {} by {} weights".format(*column.shape[:3]),
        )
        for i, column in enumerate(shown.columns)
    ]


def _column(tiles: NDArray[np.uint8], title: str, colour: str, about: str) -> Panel:
    head, height = 0.25, WIDTH * len(tiles) / tiles.shape[1]

    def draw(figure: FigureBase) -> None:
        board = _board(figure, WIDTH, head + height)
        _place(board, tiles, 0, head, WIDTH, height)
        board.text(0, 0.45 * head, title, va="center", size=8.5, weight="bold", color=INK)
        board.text(WIDTH, 0.45 * head, colour, va="center", ha="right", size=7.5, color=SOFT)

    return Panel(WIDTH, head + height, f"{title}: {about}", draw)


def prediction(example: Example, classes: Sequence[str]) -> Panel:
    """An image beside its most probable labels as bars, the true one in green (figure 4, left)."""
    truth, guess = classes[example.truth], classes[example.labels[0]]
    side, left, step = 0.38 * WIDTH, 0.41 * WIDTH, 0.063 * WIDTH

    def draw(figure: FigureBase) -> None:
        board = _board(figure, WIDTH, side)
        _place(board, example.image, 0, 0, side, side)
        mark, colour = ("✓", "hit") if example.right else ("✗", "miss")
        title: dict[str, Any] = {"va": "center", "size": 8.5, "weight": "bold"}
        board.text(left, 0.1, _fit(truth, 22), color=INK, **title)
        board.text(WIDTH, 0.1, mark, ha="right", color=COLOURS[colour], **title)
        for place, (label, value) in enumerate(zip(example.labels, example.probabilities, strict=True)):
            kind = "hit" if label == example.truth else "miss" if place == 0 else "other"
            middle = side - (4.5 - place) * step
            for share, name in ((1, "track"), (value, f"{kind}-bar")):
                corner = (left, middle - 0.42 * step)
                board.add_patch(Rectangle(corner, share * (WIDTH - left), 0.84 * step, color=COLOURS[name], lw=0))
            board.text(left + 0.04, middle, _fit(classes[label], 25), size=7, va="center", color=INK)
            colour = SOFT if kind == "other" else INK
            board.text(WIDTH - 0.04, middle, f"{100 * value:.0f}", size=7, va="center", ha="right", color=colour)

    verdict = "right" if example.right else f"taken for {guess}"
    return Panel(WIDTH, side, f"Image of {truth}, {verdict}", draw)


def neighbours(example: Example, classes: Sequence[str]) -> Panel:
    """An image and its nearest training images, those of another class named in red (figure 4, right)."""
    height, side, name, gap = 0.44 * WIDTH, 0.175 * WIDTH, 0.045 * WIDTH, 0.02 * WIDTH

    def draw(figure: FigureBase) -> None:
        board = _board(figure, WIDTH, height)

        def place(pixels: Pixels, label: int, left: float, top: float, side: float, weight: str = "normal") -> None:
            _place(board, pixels, left, top, side, side)
            colour = INK if label == example.truth else COLOURS["miss"]
            text = _fit(classes[label], round(17 * side))
            board.text(left, top + side + 0.035, text, size=6.5, va="top", color=colour, weight=weight)

        place(example.image, example.truth, 0, 0, 2 * side + name, "bold")
        for i, image in enumerate(example.neighbours):
            row, column = divmod(i, 3)
            left = WIDTH - (3 - column) * side - (2 - column) * gap
            place(image.image, image.label, left, row * (side + name), side)

    near = ", ".join(classes[image.label] for image in example.neighbours)
    return Panel(WIDTH, height, f"Image of {classes[example.truth]}, nearest training images of {near}", draw)


def confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Panel:
    """The confusion matrix (C, C), true classes in rows; the larger the share of a class's images, the stronger.

    Few classes have a number in each cell; above that, confusions are shaded in relation to the largest one.
    """
    few = len(classes) <= CELLS_WITH_NUMBERS
    named = len(classes) <= NAMED_CELLS
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    largest = 1 if few else share[~diagonal].max() or 1
    strength = np.sqrt(np.where(diagonal, share, share / largest)) * (0.6 if few else 1)

    def draw(figure: FigureBase) -> None:
        names = [_fit(name, 13) for name in classes] if named else []
        size = min(7, 130 / len(counts))
        longest = max(map(len, names), default=1)
        margin = 0.06 + 0.0024 * size * longest
        axes = figure.add_axes((margin, 0.01, 0.99 - margin, 0.99 - margin))
        if few:
            _cells(axes, counts, strength)
        else:
            pixels = np.empty((*counts.shape, 4))
            pixels[..., :3] = to_rgb(COLOURS["miss"])
            pixels[diagonal, :3] = to_rgb(COLOURS["top1"])
            pixels[..., 3] = strength
            axes.imshow(pixels, interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90 if longest > 2 else 0, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(length=0, pad=2, colors=SOFT, top=False, labeltop=True, labelbottom=False)
        axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5))
        axes.spines[:].set(visible=not few, color=COLOURS["line"], linewidth=0.6)
        figure.text(0.01, 0.5, "true", rotation=90, va="center", size=7, color=SOFT)
        figure.text(0.5, 0.99, "predicted", ha="center", va="top", size=7, color=SOFT)

    return Panel(WIDTH, WIDTH, f"Confusion matrix of {len(classes)} classes, true in rows, predicted in columns", draw)


def _cells(axes: Axes, counts: NDArray[np.int64], strength: NDArray[np.float64]) -> None:
    """A matrix of few classes as squares with numbers."""
    for (i, j), count in np.ndenumerate(counts):
        place, side = (j - 0.47, i - 0.47), 0.94
        axes.add_patch(Rectangle(place, side, side, color=COLOURS["track"], lw=0))
        if count:
            colour = COLOURS["top1" if i == j else "miss"]
            axes.add_patch(Rectangle(place, side, side, facecolor=colour, alpha=strength[i, j], lw=0))
            axes.text(j, i, str(count), ha="center", va="center", size=7, color=INK)


def _mark_drops(axes: Axes, drops: Points, last: float) -> None:
    free = -np.inf
    for epoch, lr in drops:
        label = f"lr {lr:g}"
        width = 0.02 * len(label) * last
        lower = epoch < free
        free = free if lower else epoch + width
        left = epoch + width > last
        axes.axvline(epoch, ymax=1 - 0.07 * (1 + lower), color=SOFT, lw=0.7, ls=(0, (3, 3)))
        axes.annotate(
            label,
            (epoch, 1 - 0.07 * lower),
            xycoords=("data", "axes fraction"),
            ha="right" if left else "left",
            va="top",
            size=6.5,
            color=SOFT,
        )


def _top(lines: Sequence[Curve]) -> float:
    """The highest value a chart shows: what the first twelfth of the run exceeds runs off the top."""
    last = max((epoch for line in lines for epoch, _ in line.points), default=0.0)
    later = [value for line in lines for epoch, value in line.points if epoch >= last / 12]
    return max(later, default=1.0) or 1.0


def _tiles(column: NDArray[np.uint8], across: int) -> NDArray[np.uint8]:
    """(K, S, S, 3) kernels → (H, W, 4) pixels of them all, enlarged, with transparent gaps."""
    factor = max(1, 88 // column.shape[1])
    large = column.repeat(factor, 1).repeat(factor, 2)
    side, gap = large.shape[1], 4
    down = -(-len(large) // across)
    tiles = np.zeros((down * (side + gap) - gap, across * (side + gap) - gap, 4), np.uint8)
    for i, pixels in enumerate(large):
        top, left = (side + gap) * (i // across), (side + gap) * (i % across)
        tiles[top : top + side, left : left + side] = np.dstack([pixels, np.full((side, side), 255, np.uint8)])
    return tiles


def _board(figure: FigureBase, width: float, height: float) -> Axes:
    """Bare axes over a whole figure, in inches from its top left."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def _place(board: Axes, pixels: NDArray[np.uint8], left: float, top: float, width: float, height: float) -> None:
    """A picture on a board, its pixels visible where it is small."""
    interpolation = "nearest" if len(pixels) <= PIXELATED else None
    board.imshow(pixels, extent=(left, left + width, top + height, top), aspect="auto", interpolation=interpolation)


def _fit(text: str, length: int) -> str:
    """A name cut to fit; wide characters count twice."""
    widths = np.cumsum([2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text])
    return text if not len(text) or widths[-1] <= length else text[: int(np.searchsorted(widths, length))] + "…"


def _smaller(png: bytes) -> str:
    """A picture's address within the page, as PNG or as JPEG, whichever is smaller; JPEG only where it is opaque."""
    kind, content = "png", png
    with Image.open(io.BytesIO(png)) as image:
        if image.mode != "RGBA" or image.getchannel("A").getextrema()[0] == 255:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=90)
            if buffer.tell() < len(png):
                kind, content = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@contextmanager
def _drawing(salt: str) -> Iterator[None]:
    """The same drawing everywhere: the font that comes with matplotlib, text as text and stable identifiers in SVG.

    Characters that the font lacks are drawn without a warning.
    """
    settings: dict[Any, Any] = {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}
    settings |= {"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False, "image.composite_image": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
