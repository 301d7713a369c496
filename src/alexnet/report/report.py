"""`alexnet report`: one self-contained HTML page about a run, and the paper's figures as PNG files beside it."""

from __future__ import annotations

import html
import os
import shlex
import time
from importlib import resources
from pathlib import Path
from typing import Any

from alexnet import presets
from alexnet.architecture import Dropout
from alexnet.checkpoint import has_checkpoint
from alexnet.comparison import difference
from alexnet.config import Config, fields
from alexnet.errors import DataError
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor as Classifier
from alexnet.model.summary import summary
from alexnet.progress import Progress, quiet
from alexnet.report import figures, sections
from alexnet.report.analysis import GALLERY, Observations, observe
from alexnet.report.history import History, read_history, training_seconds
from alexnet.report.kernels import first_kernels
from alexnet.report.sections import SPLITS, left_out, percent, printable, section
from alexnet.run import Run

UNSAVED = "The network is not saved yet; `alexnet train --resume` goes on with the run."


def write_report(run: Run, progress: Progress = quiet, gallery: int = GALLERY) -> Path:
    """Write `report.html` and `figures/*.png` of a run and return the page's path.

    The images shown are of the test split, of validation where there is none; their nearest are looked for among at
    most `gallery` training images. What a run has not come to yet, or what needs images that are no longer there, is
    left out with a sentence. Raises RunError or CheckpointError for a run that cannot be read, OSError for a full disk.
    """
    history = read_history(run)
    classifier = load(run.path) if _saved(run) else None
    seen, trouble = _observe(classifier, progress, gallery)  # type: ignore[arg-type]
    kernels = first_kernels(classifier) if classifier else None  # type: ignore[arg-type]
    progress.note("drawing the figures")
    run.figures.mkdir(parents=True, exist_ok=True)
    if history.losses:
        figures.draw_curves(run.figures / "curves.png", history)
    if kernels:
        figures.draw_kernels(run.figures / "kernels.png", kernels)
    classes = sections.class_names(run.classes)
    looks = [("predictions", "Predictions"), ("nearest", "Nearest training images"), ("confusions", "Confusions")]
    if seen:
        figures.draw_predictions(run.figures / "predictions.png", seen.examples, classes)
        figures.draw_nearest(run.figures / "nearest.png", seen.examples, classes)
        figures.draw_confusion(run.figures / "confusion.png", seen.confusion, classes)
        looking = [
            sections.predictions(seen, classes),
            sections.nearest(seen, classes),
            sections.confusions(seen, classes),
        ]
    else:
        looking = [left_out(name, title, trouble) for name, title in looks]
    counted = summary(run.config.network).to_json()
    body = [
        _header(run, history, counted),
        _headline(run, history, seen, counted),
        _contents(looks),
        sections.learning(history, any(isinstance(layer, Dropout) for layer in run.config.network.layers)),
        sections.kernels(kernels),
        *looking,
        sections.layers(counted),
        _settings(run),
        _reproduce(run),
    ]
    return _write(run.report_file, _title(run), "\n".join(body))


def escape(text: str) -> str:
    """A text from outside as HTML: names of files and classes, settings, the environment."""
    return html.escape(printable(text))


def _saved(run: Run) -> bool:
    return any(has_checkpoint(run.checkpoints, name) for name in ("best", "last"))


def _observe(classifier: Classifier | None, progress: Progress, gallery: int) -> tuple[Observations | None, str]:
    """What the network does with its images, or a sentence why that cannot be seen."""
    if classifier is None:
        return None, UNSAVED
    try:
        return observe(classifier, progress, gallery), ""
    except DataError as error:
        progress.warn(f"the report goes without images: {error}")
        return None, printable(f"The images cannot be read: {error}.")


def _title(run: Run) -> str:
    return f"{run.config.preset} on {_data(run)}"


def _data(run: Run) -> str:
    """The source's short name: the last part of its path."""
    return Path(run.config.data.source).name or run.config.data.source


def _header(run: Run, history: History, counted: dict[str, Any]) -> str:
    config, splits = run.config, run.source["splits"]
    columns = "A network of one column" if counted["columns"] == 1 else f"A network of {counted['columns']} columns"
    words = (
        f"{columns} and {counted['total']['parameters']:,} parameters, trained for "
        f"{_length(history)} on {splits['train']:,} images of {len(run.classes):,} classes"
    )
    seconds = training_seconds(run)
    if seconds:
        words += f" in {'about ' if seconds[1] else ''}{_duration(seconds[0])}"
    words += f", on {_hardware(run)}."
    if has_checkpoint(run.checkpoints, "best") and history.best:
        words += f" What is shown is the network after epoch {history.best['epoch']}, the best on validation."
    elif _saved(run):
        words += " What is shown is the network as it was last saved."
    name = escape(run.path.resolve().name)
    return (
        f'<header><p class="eyebrow">Training run <b>{name}</b></p><h1>{escape(config.preset)} '
        f"<span>on {escape(_data(run))}</span></h1><p>{escape(words)}</p></header>"
    )


def _headline(run: Run, history: History, seen: Observations | None, counted: dict[str, Any]) -> str:
    """The numbers people look for first."""
    tiles: list[tuple[str, str, str]] = []
    if seen:
        split = SPLITS[seen.split]
        wrong = round(seen.top1_error * seen.count / 100)
        tiles.append((f"{split} error", percent(seen.top1_error), f"{wrong:,} of {seen.count:,} wrong, centre view"))
        if seen.top5_error is not None:
            tiles.append((f"{split} error, top-5", percent(seen.top5_error), "true label not among the five likeliest"))
    for line in _recorded(run):
        split = SPLITS.get(line["split"], line["split"])
        top5 = "" if line["top5_error"] is None else f"top-5 {percent(line['top5_error'])}, "
        where = "" if line["data"] == run.config.data.source else f" of {Path(line['data']).name}"
        tiles.append(
            (
                f"{split} error, {line['views']} views",
                percent(line["top1_error"]),
                f"{top5}{line['count']:,} images{where}",
            )
        )
    best = history.best
    if best and not (seen and seen.split == "val"):
        tiles.append(
            ("Validation error", percent(best["top1_error"]), f"best, epoch {best['epoch']}, {best['count']:,} images")
        )
    if history.losses and not best:
        tiles.append(("Training loss", f"{history.losses[0].points[-1][1]:.3g}", "at the last step logged, in nats"))
    seconds = training_seconds(run)
    if seconds:
        how = "estimated from its speed" if seconds[1] else "validation included"
        tiles.append(("Training time", _duration(seconds[0], short=True), f"{_length(history)}, {how}"))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="headline">{items}</dl>'


def _recorded(run: Run) -> list[dict[str, Any]]:
    """What was measured of this run alone and the report does not measure itself: several views, other data."""
    own = run.config.data.source
    return [line for line in run.evaluations() if len(line["runs"]) == 1 and (line["views"] > 1 or line["data"] != own)]


def _contents(looks: list[tuple[str, str]]) -> str:
    names = [
        ("learning", "Learning"),
        ("kernels", "First kernels"),
        *looks,
        ("network", "Network"),
        ("settings", "Settings"),
        ("reproduce", "Reproduce"),
    ]
    return "<nav>" + "".join(f'<a href="#{name}">{title}</a>' for name, title in names) + "</nav>"


def _settings(run: Run) -> str:
    config = run.config
    changed = {f"{row.where}.{row.field}": row.a for row in _changes(config)}
    rows = []
    for setting in fields(config):
        own = setting.path in changed
        before = f"<small>preset: {escape(changed[setting.path])}</small>" if own else ""
        value = ", ".join(map(str, setting.default)) if isinstance(setting.default, tuple) else str(setting.default)
        rows.append(
            (
                own,
                f'<tr><th scope="row">{setting.path}<small>{escape(setting.about)}</small></th>'
                f"<td>{escape(value) or '–'}{before}</td></tr>",
            )
        )
    differing = "".join(row for own, row in rows if own)
    body = f'<table class="settings"><tbody>{differing}</tbody></table>' if differing else ""
    body += (
        "<details><summary>All settings</summary>"
        f'<table class="settings"><tbody>{"".join(row for _, row in rows)}</tbody></table></details>'
    )
    lead = (
        f"What this run sets otherwise than the preset {escape(config.preset)}."
        if differing
        else f"Those of the preset {escape(config.preset)}."
    )
    return section("settings", "Settings", body, lead)


def _changes(config: Config) -> list[Any]:
    try:
        preset = presets.preset(config.preset, config.network.classes)
    except ValueError:  # a preset of another version
        return []
    rows = difference(preset, config)
    if config.network.activation != preset.network.activation:
        return [row for row in rows if row.where != "network" or row.field == "activation"]
    return rows


def command(run: Run) -> list[list[str]]:
    """The command that repeats the run, made from its settings: the words that belong together, together."""
    config = run.config
    words = [["alexnet", "train"], ["--preset", config.preset], ["--data", config.data.source]]
    values = {setting.path: setting.default for setting in fields(config)}
    for row in _changes(config):
        value = values.get(f"{row.where}.{row.field}")
        if value is not None:
            words.append([f"--{row.where}.{row.field}", _argument(value)])
    return [*words, ["--out", f"runs/{run.path.resolve().name}"]]


def _argument(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reproduce(run: Run) -> str:
    environment = run.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    facts = [
        ("Hardware", _hardware(run)),
        ("Versions", versions),
        ("Platform", environment.get("platform") or "–"),
        ("Commit", environment.get("commit") or "installed package"),
        ("Command then", shlex.join(map(str, environment.get("command") or []))),
        ("Images", _images(run)),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    lead = (
        "On the same machine and versions, with the same number of threads, the same command gives the same "
        "weights on a CPU."
    )
    words = " ".join(f'<span class="word">{escape(shlex.join(part))}</span>' for part in command(run))
    return section(
        "reproduce", "How to reproduce", f'<pre><code>{words}</code></pre><dl class="facts">{items}</dl>', lead
    )


def _images(run: Run) -> str:
    splits = ", ".join(f"{count:,} {name}" for name, count in run.source["splits"].items())
    return f"{run.config.data.source}: {splits}; validation {run.source.get('validation', 'of its own')}"


def _hardware(run: Run) -> str:
    hardware = run.environment["hardware"]
    threads = f"{hardware['cpu']}, {hardware['threads']} thread{'s' if hardware['threads'] != 1 else ''}"
    gpus = hardware.get("gpus") or []
    uses_gpu = gpus and run.config.train.device != "cpu"
    return f"{gpus[0]} ({threads})" if uses_gpu else threads


def _length(history: History) -> str:
    """How long a run trained, in epochs, or in steps before its first epoch was over."""
    if history.epochs < 1:
        return f"{history.steps} step{'' if history.steps == 1 else 's'}"
    number = f"{history.epochs:.3g}" if history.epochs < 10 else f"{history.epochs:.0f}"
    return f"{number} epoch{'' if number == '1' else 's'}"


def _duration(seconds: float, short: bool = False) -> str:
    if seconds < 100:
        return f"{seconds:.0f}\u202fs" if short else f"{seconds:.0f} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    if short:
        return f"{hours}\u202fh {minutes}\u202fmin" if hours else f"{minutes}\u202fmin"
    return f"{hours} h {minutes} min" if hours else f"{minutes} minutes"


def _write(path: Path, title: str, body: str) -> Path:
    """One file with its style in it; the policy in its head forbids scripts and anything from elsewhere."""
    style = (resources.files("alexnet.report") / "report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<footer>Written by alexnet report on {time.strftime("%Y-%m-%d")}.</footer>
</main>
</body>
</html>
"""
    beside = path.with_name(path.name + ".new")
    beside.write_text(page, encoding="utf-8", errors="replace")
    os.replace(beside, path)
    return path
