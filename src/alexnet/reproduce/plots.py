"""The ledger's drawings, in the report's colours: values by seed with the interval of their difference, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from alexnet.report.figures import COLOURS, INK, SOFT, WIDTH, Panel
from alexnet.reproduce.ledger import Outcome
from alexnet.reproduce.records import RunRecord

BETTER, WORSE = COLOURS["top1"], COLOURS["top5"]
HIT, MISS = COLOURS["hit"], COLOURS["miss"]


def dots(one: Outcome) -> Panel:
    """Both sides' values, a dot per seed, those of one seed joined; below them the difference with its interval."""
    found = one.interval
    assert found is not None
    sides = ((one.comparison.better, one.better, BETTER), (one.comparison.worse, one.worse, WORSE))

    def draw(figure: FigureBase) -> None:
        axes = figure.add_axes((0.03, 0.42, 0.94, 0.44))
        if found.paired and len(one.better) == len(one.worse):
            for pair in zip(one.better, one.worse, strict=True):
                axes.plot(pair, (1, 0), color=SOFT, alpha=0.35, lw=0.8, zorder=1)
        for height, (side, values, colour) in zip((1, 0), sides, strict=True):
            axes.plot(values, [height] * len(values), "o", ms=4.5, color=colour, alpha=0.75, mew=0, zorder=3)
            mean = float(np.mean(values))
            axes.plot([mean], [height], "|", ms=13, mew=1.6, color=colour, zorder=4)
            axes.annotate(
                f"{_side(side.arm, side.metric)}  {mean:.2f}",
                (0, height),
                (0, 11),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                size=7.5,
                color=INK,
                va="center",
            )
        axes.set(ylim=(-0.3, 1.6))
        axes.margins(x=0.04)
        _bare(axes)
        below = figure.add_axes((0.03, 0.12, 0.94, 0.16))
        colour = {"confirmed": HIT, "refuted": MISS}.get(one.verdict, SOFT)
        below.axvline(0, color=SOFT, lw=0.8, ls=(0, (3, 2)))
        below.plot([found.low, found.high], [0, 0], color=colour, lw=2.2, solid_capstyle="butt")
        below.plot([found.mean], [0], "o", ms=5, color=colour, mew=0)
        reach = 1.15 * max(abs(found.low), abs(found.high), 1e-6)
        below.set(xlim=(-reach, reach), ylim=(-1, 1))
        _bare(below)
        figure.text(0, 0.95, f"{one.scale}, {one.comparison.unit}", size=8.5, weight="bold", color=INK, va="top")
        figure.text(0, 0.31, "difference, > 0: as claimed", size=6.5, color=SOFT, va="center")

    about = (
        f"{one.scale}: {one.comparison.name}. {_side(one.comparison.better.arm, one.comparison.better.metric)} "
        f"{np.mean(one.better):.2f}, {_side(one.comparison.worse.arm, one.comparison.worse.metric)} "
        f"{np.mean(one.worse):.2f}; difference {found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"
    )
    return Panel(WIDTH, 2.2, about, draw)


def curves(title: str, arms: Mapping[str, Sequence[RunRecord]], validation: bool) -> Panel:
    """Training error by epoch of two arms or more, a thin line per seed and a thick one for their mean.

    With `validation` also the validation error, dashed.
    """
    colours = (BETTER, WORSE, HIT, MISS)

    def draw(figure: FigureBase) -> None:
        axes = figure.add_axes((0.09, 0.12, 0.89, 0.66))
        for (arm, runs), colour in zip(arms.items(), colours, strict=False):
            for dashed in (False, True) if validation else (False,):
                lines = [
                    [(epoch.epoch, (epoch.val_error or 0.0) if dashed else epoch.train_error) for epoch in run.curve]
                    for run in runs
                ]
                style = (0, (3, 1.5)) if dashed else "-"
                for line in lines:
                    axes.plot(*zip(*line, strict=True), color=colour, lw=0.4, alpha=0.5, ls=style)
                length = min(map(len, lines))
                mean = np.mean([[value for _, value in line[:length]] for line in lines], axis=0)
                label = f"{arm}, validation" if dashed else f"{arm}, training" if validation else arm
                axes.plot([x for x, _ in lines[0][:length]], mean, color=colour, lw=1.5, ls=style, label=label)
        axes.set(ylim=(0, None))
        axes.margins(x=0.02)
        axes.grid(axis="y", color=COLOURS["line"], lw=0.6)
        _bare(axes, both=True)
        axes.text(1, -0.14, "epoch", transform=axes.transAxes, ha="right", va="center", size=7.5, color=SOFT)
        figure.text(0, 0.95, title, size=8.5, weight="bold", color=INK, va="top")
        figure.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0.9),
            ncols=2,
            frameon=False,
            fontsize=6.5,
            labelcolor=INK,
            handlelength=1.6,
            columnspacing=1,
            borderpad=0,
            borderaxespad=0,
        )

    said = [
        f"{arm} ends at {np.mean([run.curve[-1].train_error for run in runs]):.1f} % training error"
        for arm, runs in arms.items()
    ]
    return Panel(WIDTH, 2.7, f"{title}: {'; '.join(said)}", draw)


def _side(arm: str, metric: str) -> str:
    words = {"top1_error": "", "top1_error_views": ", views averaged", "ensemble_error": ", averaged"}
    return arm + words.get(metric, f", {metric.replace('_', ' ')}")


def _bare(axes: Axes, both: bool = False) -> None:
    """Axes without a frame, with few numbers."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3, labelsize=7.5, colors=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_axisbelow(True)
    if both:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_yticks([])
