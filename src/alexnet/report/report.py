"""`alexnet report`: one self-contained HTML page about a run, and its figures as PNG files.

The words are in the templates, the drawings in `figures`; here is what they are made from.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from alexnet import __version__, presets
from alexnet.architecture import Dropout, shape_text
from alexnet.checkpoint import has_checkpoint
from alexnet.comparison import difference
from alexnet.config import Config, fields, flags, text_of
from alexnet.data.run_data import load_statistics
from alexnet.errors import DataError, UsageError
from alexnet.files import open_regular, write_text
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor
from alexnet.model.summary import summary
from alexnet.progress import Progress, quiet
from alexnet.report import figures
from alexnet.report.analysis import SEARCHED, Analysis, analyse
from alexnet.report.history import History, read_history
from alexnet.report.kernels import Kernels, first_kernels, grey_images
from alexnet.run import Run

CONFUSED, HARDEST = 8, 10  # shown
SHOWN = b'<meta name="images" content="shown">'  # near the beginning of a page
UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # Unicode's categories of control and format characters
JOINERS = "\u200c\u200d"  # which Persian, Hindi and emoji need
WNID = re.compile(r"^n\d{8}[ _-]")


def write_report(
    run: Run, progress: Progress = quiet, searched: int = SEARCHED, data: str | None = None, out: Path | None = None
) -> Path:
    """Write `report.html` and `figures/*.png` of a run and return the page's path; a run still in training may be read.

    With `out` the page is written there instead, and the run's folder stays as it is. The images shown are of the test
    split, of validation where there is none; their nearest are looked for among at most `searched` training images;
    `data` is where they are now, if they were moved. What a run does not have yet, or what needs images that are no
    longer there, is left out with a sentence; but it does not replace a report that has them. Raises RunError or
    CheckpointError for a run that cannot be read, DataError for the latter, OSError for a full disk.
    """
    history = read_history(run)
    kernels: Kernels | None = None
    analysis: Analysis | None = None
    missing = "The network is not saved yet; `alexnet train --resume` goes on with the run."
    shown: dict[str, Any] = {}
    checkpoint = next((name for name in ("best", "last") if has_checkpoint(run.checkpoints, name)), None)
    if checkpoint:
        predictor = load(run.path, checkpoint=checkpoint)
        assert isinstance(predictor, NetworkPredictor)
        shown = predictor.description
        grey = grey_images(load_statistics(run.statistics_file, run.config.data.size))
        kernels = first_kernels(run.config.network, predictor.trained.weights, grey)
        try:
            analysis = analyse(predictor, run, progress, searched, data)
        except DataError as error:
            if out is None:
                _keep_images(run.report_file, error)
            missing = f"The images cannot be read: {error}."
            progress.warn(f"the report goes without images: {error}")
    progress.note("drawing the figures")
    classes = class_names(run.classes)
    template = _environment().get_template("report.html")
    page = template.render(
        run=run,
        title=f"{run.config.preset} on {_name(run.config.data.source)}",
        version=__version__,
        history=history,
        classes=classes,
        checkpoint=checkpoint,
        kernels=kernels,
        analysis=analysis,
        missing=missing,
        summary=summary(run.config.network),
        evaluations=_other_evaluations(run, shown),
        figures=_draw(None if out else run.figures, history, kernels, analysis, classes),
        confused=_most_confused(analysis.confusion) if analysis else [],
        hardest=_hardest(analysis.confusion) if analysis else [],
        few=len(classes) <= figures.CELLS_WITH_NUMBERS,
        dropout=any(isinstance(layer, Dropout) for layer in run.config.network.layers),
        length=_length(history),
        settings=fields(run.config),
        changes={f"{row.where}.{row.field}": row.a for row in _changes(run.config)},
        command=command(run),
        hardware=_hardware(run),
    )
    write_text(out or run.report_file, page)
    return out or run.report_file


def _keep_images(page: Path, missing: DataError) -> None:
    """Raise DataError where a report that was written before shows images, which are `missing` now."""
    head = b""
    with contextlib.suppress(OSError, ValueError), open_regular(page) as file:
        head = file.read(1 << 10)
    if SHOWN in head:
        raise DataError(f"{page} shows images and is kept; for one without them give --out: {missing}")


def printable(text: str) -> str:
    """A text from outside without control characters and those that turn the text around them."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in UNSEEN and c not in JOINERS else c for c in text
    )


def class_names(names: Sequence[str]) -> list[str]:
    """Class names as they are shown: printable, and without ImageNet's identifiers where the words tell them apart."""
    shown = [printable(name) for name in names]
    words = [WNID.sub("", name) for name in shown]
    return words if len(set(words)) == len(words) and all(words) else shown


def command(run: Run) -> list[list[str]]:
    """The command that repeats the run, made from its settings: the words that belong together, together."""
    config = run.config
    base = ["--preset", config.preset]
    try:
        changes = flags(presets.preset(config.preset, config.network.classes), config)
    except UsageError:  # no preset of this version has this network
        base, changes = ["--config", str(run.path)], {}
    words = [["alexnet", "train"], base, ["--data", config.data.source]]
    words += [[f"--{path}", text] for path, text in changes.items() if path != "data.source"]
    return [*words, ["--out", f"runs/{run.path.resolve().name}"]]


def _environment() -> Environment:
    """The templates; every value is escaped and without control characters."""

    def finalize(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("alexnet.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda value: f"{value:.2f}\u202f%",
        "count": lambda value: f"{value:,}",
        "duration": _duration,
        "times": shape_text,
        "name": _name,
        "text": text_of,
        "shell": lambda words: shlex.join(map(str, words)),
    }
    return environment


def _draw(
    folder: Path | None, history: History, kernels: Kernels | None, analysis: Analysis | None, classes: Sequence[str]
) -> dict[str, list[Markup]]:
    """Every figure that there is something for, returned as SVG for the page, and written to a folder where one is."""
    panels: dict[str, list[figures.Panel]] = {"curves": [], "kernels": figures.kernels(kernels) if kernels else []}
    for title, unit, lines in (("Loss", "nats", history.losses), ("Error", "%", history.errors)):
        if lines:
            panels["curves"].append(figures.curves(title, unit, lines, history.drops, history.epochs))
    if analysis:
        panels["predictions"] = [figures.prediction(example, classes) for example in analysis.examples]
        panels["nearest"] = [figures.neighbours(example, classes) for example in analysis.examples]
        panels["confusion"] = [figures.confusion(analysis.confusion, classes)]
    for name, group in panels.items():
        if group and folder:
            folder.mkdir(parents=True, exist_ok=True)
            figures.save_png(folder / f"{name}.png", group, min(2, len(group)))
    return {name: [figures.svg(panel, f"{name}{i}") for i, panel in enumerate(group)] for name, group in panels.items()}


def _other_evaluations(run: Run, shown: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of this run alone and the report does not measure itself: several views, other images, …

    `shown` describes the weights that the report is about; each entry's `weights` say in words which were measured.
    """
    own = (1, run.config.data.source, run.source.get("path"), *_weights(shown)) if shown else None
    entries = [
        entry
        for entry in run.evaluations()
        if (entry["views"], entry["data"], entry.get("path"), *_weights(entry["models"][0])) != own
        or entry.get("data_changed")
    ]
    blank = {"path": None, "data_changed": ""}
    return [{**blank, **entry, "weights": _which(entry["models"][0], shown)} for entry in entries]


def _weights(model: dict[str, Any]) -> tuple[Any, ...]:
    """Which weights a model has, and how they are computed."""
    return tuple(model.get(key) for key in ("checkpoint", "sha256", "backend", "precision"))


def _which(model: dict[str, Any], shown: dict[str, Any]) -> str:
    """Which weights were measured, and how, in words; of other weights than those shown, that they are others."""
    other = ""
    if model.get("sha256") != shown.get("sha256"):
        step = model.get("step")
        other = f" of step {step:,}, not those shown here" if step is not None else ", not those shown here"
    return f"{model['checkpoint']} weights{other}, {model['backend']}, {model['precision']}"


def _most_confused(counts: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
    """The most frequent confusions: true class, predicted class, how many of how many images."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    top = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(k), len(counts)) for k in top if wrong.flat[k]]
    return [(i, j, int(wrong[i, j]), int(counts[i].sum())) for i, j in pairs]


def _hardest(counts: NDArray[np.int64]) -> list[tuple[int, float]]:
    """The classes of the highest error in percent."""
    totals = counts.sum(1)
    errors = 100 * (1 - np.diag(counts) / np.maximum(totals, 1)) * (totals > 0)
    return [(int(i), float(errors[i])) for i in np.argsort(-errors, kind="stable")[:HARDEST] if errors[i] > 0]


def _changes(config: Config) -> list[Any]:
    """What a run sets otherwise than its preset; the layers follow from the activation."""
    try:
        preset = presets.preset(config.preset, config.network.classes)
    except UsageError:  # a preset of another version
        return []
    rows = difference(preset, config)
    if config.network.activation != preset.network.activation:
        return [row for row in rows if row.where != "network" or row.field == "activation"]
    return rows


def _name(path: str) -> str:
    """A source's short name: the last part of its path."""
    return Path(path).name or path


def _hardware(run: Run) -> str:
    hardware = run.environment["hardware"]
    threads = f"{hardware['cpu']}, {hardware['threads']} thread{'s' if hardware['threads'] != 1 else ''}"
    gpus = hardware["gpus"]
    return f"{gpus[0]} ({threads})" if gpus and run.config.train.device != "cpu" else threads


def _length(history: History) -> str:
    """How long a run trained, in epochs, or in steps before its first epoch was over."""
    if history.epochs < 1:
        return f"{history.steps} step{'' if history.steps == 1 else 's'}"
    number = f"{history.epochs:.3g}" if history.epochs < 10 else f"{history.epochs:.0f}"
    return f"{number} epoch{'' if number == '1' else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f}\u202fs"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}\u202fh {minutes}\u202fmin" if hours else f"{minutes}\u202fmin"
