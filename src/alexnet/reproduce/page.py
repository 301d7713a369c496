"""The ledger as a page: self-contained HTML with plots, or Markdown; made from the records and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alexnet import __version__
from alexnet.errors import UsageError
from alexnet.files import write_text
from alexnet.progress import duration
from alexnet.report import figures
from alexnet.reproduce import plots
from alexnet.reproduce.claims import CHOICES, EVERYTHING
from alexnet.reproduce.ledger import Outcome, Row, main_outcome, rows
from alexnet.reproduce.records import Records
from alexnet.reproduce.scales import ARMS, BASE, SCALES
from alexnet.reproduce.tables import Line, table_1, table_2

TABLES = ("cifar10", "tiny-imagenet")  # scales at which the paper's tables are made
CURVES = {1: ("relu-four-layer", "tanh-four-layer"), 5: (BASE, "no-augmentation"), 7: (BASE, "no-dropout")}


@dataclass(frozen=True)
class Section:
    """One claim on the page: its row, its measured outcomes, and its plots."""

    row: Row
    outcomes: tuple[Outcome, ...]
    plots: tuple[Markup, ...]


def write_page(path: Path, records: Records) -> None:
    """Write the ledger to `path`, .html with its plots inside, or .md with plots in a folder beside it.

    Raises UsageError for another kind, OSError for a full disk.
    """
    if path.suffix not in (".html", ".md"):
        raise UsageError(f"--report {path} should end in .html or .md")
    files = {path.name: html(records)} if path.suffix == ".html" else markdown(records, path.stem)
    for name, text in files.items():
        file = path.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)


def html(records: Records) -> str:
    """The self-contained page."""
    sections = []
    for row in rows(records, EVERYTHING):
        found = measured(row)
        panels = [plots.dots(one) for one in found if one.comparison.decides]
        panels += [curves(row, scale, records) for scale in row.scales if drawn_curves(row, scale, records)]
        name = f"claim{row.claim.number}"
        drawings = tuple(figures.svg(panel, f"{name}-{place}") for place, panel in enumerate(panels))
        sections.append(Section(row, found, drawings))
    return _environment().get_template("claims.html").render(**_context(sections, records))


def markdown(records: Records, stem: str = "claims") -> dict[str, str]:
    """The page as Markdown, `stem`.md, and its plots, one scale of each claim: `stem`/N.svg, `stem`/N-curves.svg."""
    sections: list[Section] = []
    files: dict[str, str] = {}
    for row in rows(records, EVERYTHING):
        number, scale = row.claim.number, row.best[1]
        panels = {}
        if scale and main_outcome(row.scales[scale]).interval is not None:
            panels[f"{stem}/{number}.svg"] = plots.dots(main_outcome(row.scales[scale]))
        if scale and drawn_curves(row, scale, records):
            panels[f"{stem}/{number}-curves.svg"] = curves(row, scale, records)
        files |= {
            name: figures.svg_file(panel, f"claim{number}-{place}")
            for place, (name, panel) in enumerate(panels.items())
        }
        images = (Markup(f"![{panel.about}]({name})") for name, panel in panels.items())
        sections.append(Section(row, measured(row), tuple(images)))
    text = _environment(False).get_template("claims.md").render(**_context(sections, records))
    return {f"{stem}.md": text, **files}


def measured(row: Row) -> tuple[Outcome, ...]:
    """A claim's outcomes that have an interval."""
    return tuple(one for outcomes in row.scales.values() for one in outcomes if one.interval is not None)


def drawn_curves(row: Row, scale: str, records: Records) -> bool:
    """Whether a claim is about the way of a training, and its arms have records at a scale."""
    arms = CURVES.get(row.claim.number, ())
    return bool(arms) and all(records.of(scale, arm) for arm in arms)


def curves(row: Row, scale: str, records: Records) -> figures.Panel:
    """The errors by epoch of a claim's arms."""
    both = row.claim.number != 1  # training and validation
    arms = {arm: tuple(records.of(scale, arm).values()) for arm in CURVES[row.claim.number]}
    return plots.curves(f"{scale}: {'error' if both else 'training error'} by epoch, %", arms, both)


def headline(records: Records) -> str:
    """The table of claims in Markdown: paper, ours, verdict at the scale that shows most."""
    lines = [
        "| | claim | paper | difference here, 95 % interval | scale | n | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(records):
        verdict, scale = row.best
        shown, n = ("–", "–")
        if scale:
            one = main_outcome(row.scales[scale])
            shown, n = difference(one), str(one.n)
        cells = (
            str(row.claim.number),
            row.claim.title,
            row.claim.paper[0],
            shown,
            scale or "–",
            n,
            f"**{verdict}**" if verdict == "confirmed" else verdict,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def small_tables(records: Records, scales: Iterable[str] = TABLES) -> str:
    """The paper's tables 1 and 2 in Markdown, its errors beside ours at each scale."""
    head = "| | paper, top-1 / top-5 |"
    shown = [scale for scale in scales if records.of(scale, BASE)]
    if not shown:
        return "Not measured yet."
    blocks = []
    for number, (title, lines_at) in enumerate(
        (("the network and its rivals", table_1), ("one network and several", table_2)), 1
    ):
        lines = {scale: lines_at(records, scale) for scale in shown}
        rows = [f"*Table {number}: {title}.*", "", head + "".join(f" {scale} |" for scale in shown)]
        rows.append("|---|---|" + "---|" * len(shown))
        for place, first in enumerate(lines_at(records, "digits")):
            found = [lines[scale][place] for scale in shown]
            cells = [f"{_errors(line)} (n = {line.n})" if line.n else "–" for line in found]
            rows.append(f"| {first.model} | {first.paper} |" + "".join(f" {cell} |" for cell in cells))
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)


def _errors(line: Line) -> str:
    if line.top1 is None:
        return "–"
    top5 = "" if line.top5 is None else f" / {line.top5:.1f} %"
    weighted = "" if line.searched is None else f", weights searched {line.searched:.1f} %"
    return f"{line.top1:.1f} %{top5}{weighted}"


def difference(one: Outcome) -> str:
    """A difference with its interval and unit."""
    if one.interval is None:
        return one.missing
    found = one.interval
    words = f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f}) {one.comparison.unit}"
    return words.replace("-", "−")


def _context(sections: Iterable[Section], records: Records) -> dict[str, object]:
    listed = list(sections)
    claims = [section for section in listed if section.row.claim is not CHOICES]
    runs = list(records.runs.values())
    return {
        "sections": listed,
        "claims": claims,
        "confirmed": sum(section.row.best[0] == "confirmed" for section in claims),
        "runs": runs,
        "seconds": sum(run.seconds for run in runs),
        "dates": " to ".join(sorted({min(days), max(days)})) if (days := {run.date[:10] for run in runs}) else "",
        "processors": sorted({run.processor for run in runs}),
        "scales": SCALES,
        "arms": ARMS,
        "version": __version__,
        "main": main_outcome,
        "small_tables": small_tables(records),
        "tables": {
            scale: (table_1(records, scale), table_2(records, scale)) for scale in TABLES if records.of(scale, BASE)
        },
    }


def _environment(escape: bool = True) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("alexnet.reproduce"), PackageLoader("alexnet.report")]),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "errors": _errors,
        "difference": difference,
        "duration": duration,
        "mean": lambda values: f"{sum(values) / len(values):.2f}",
    }
    return environment
