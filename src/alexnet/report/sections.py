"""The parts of the report's page: numbers, pictures and tables as HTML.

Every text from outside is escaped here; class names come here as `class_names` makes them.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.architecture import shape_text
from alexnet.report.analysis import Example, Observations
from alexnet.report.charts import CELLS_AS_TABLE, confusion_image, confusion_table, curves, data_uri
from alexnet.report.history import Curve, History
from alexnet.report.kernels import Kernels

PIXELATED = 64  # pixels: smaller images are shown with their pixels
SPLITS = {"test": "Test", "val": "Validation"}
CONFUSIONS, HARDEST = 8, 10
UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # Unicode's categories of control and format characters
JOINERS = "\u200c\u200d"  # which Persian, Hindi and emoji need
WNID = re.compile(r"^n\d{8}[ _-]")


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


def section(name: str, title: str, body: str, lead: str = "") -> str:
    """A section of the page; `lead` is HTML that stands under its title."""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{title}</h2>{lead}{body}</section>'


def percent(value: float | None) -> str:
    """A figure in percent as people write it."""
    return "–" if value is None else f"{value:.2f}\u202f%"


def learning(history: History, dropout: bool) -> str:
    """The curves of loss and error with the drops of the rate; `dropout` says whether training has it."""
    if not history.losses:
        return section("learning", "Learning", "", "The run has logged nothing yet.")
    figures = [
        _chart("Loss", history.losses, history, "nats"),
        _chart("Error", history.errors, history, "%"),
    ]
    words = [
        "Training values are averages over the steps between two lines of the log, of images as they are drawn "
        f"for training{', with dropout' if dropout else ''}."
    ]
    if history.drops:
        words.append("Dashed lines mark where the learning rate ε drops.")
    if not history.validations:
        words.append("The run was not validated yet, so there is no validation curve.")
    return section("learning", "Learning", f'<div class="charts">{"".join(figures)}</div>', " ".join(words))


def kernels(found: Kernels | None) -> str:
    """The first layer's kernels, the columns apart (paper's figure 3)."""
    if found is None:
        return section(
            "kernels",
            "First kernels",
            "",
            "There are none to show: the network is not saved yet, or its first layer is no convolution.",
        )
    parts = []
    several = len(found.columns) > 1
    for i, column in enumerate(found.columns):
        size = column.shape[1]
        pictures = "".join(
            f'<img src="{_png(pixels.repeat(_factor(size), 0).repeat(_factor(size), 1))}" alt="">' for pixels in column
        )
        colour = "" if found.colour is None else f"{found.colour[i]:.0f}\u202f% colour"
        title = f"Column {i + 1}" if several else found.layer
        alt = f"{title}: {len(column)} kernels of {size} by {size} weights"
        parts.append(
            f"<figure><figcaption><b>{escape(title)}</b><span>{colour}</span></figcaption>"
            f'<div class="tiles" role="img" aria-label="{escape(alt)}">{pictures}</div></figure>'
        )
    side = found.columns[0].shape[1]
    lead = (
        f"The {found.count:,} kernels of {escape(found.layer)}, {side}×{side} weights each, scaled one by one with "
        "zero at mid-grey."
    )
    shown = sum(map(len, found.columns))
    if shown < found.count:
        lead += f" The first {shown} are shown."
    if found.colour is None:
        lead += " The images are grey, so each kernel is shown as its sum over red, green and blue."
    else:
        lead += (
            " The share of colour is what is left of a column’s weights when each place’s mean over red, green "
            "and blue is taken away; weights drawn by chance have 67\u202f%."
        )
    kind = "columns" if several else "column"
    return section("kernels", "First kernels", f'<div class="kernels {kind}">{"".join(parts)}</div>', lead)


def predictions(seen: Observations, classes: Sequence[str]) -> str:
    """Images with their most probable labels as bars, right and wrong told apart (paper's figure 4, left)."""
    by_lot = [example for example in seen.examples if example.by_lot]
    mistakes = [example for example in seen.examples if not example.by_lot]
    size = _size(seen)
    body = f'<div class="cards {size}">{"".join(_card(example, classes) for example in by_lot)}</div>'
    if mistakes:
        body += (
            f'<h3>The surest mistakes</h3><div class="cards {size}">'
            + "".join(_card(example, classes) for example in mistakes)
            + "</div>"
        )
    lead = (
        f"{SPLITS[seen.split]} images drawn by lot, each of another class where there are enough, with the most "
        'probable labels. The true label’s bar is <span class="key hit">green</span>, a wrong first choice '
        '<span class="key miss">red</span>.'
    )
    return section("predictions", "Predictions", body, lead)


def nearest(seen: Observations, classes: Sequence[str]) -> str:
    """Each image's nearest training images by the last hidden layer (paper's figure 4, right)."""
    rows = []
    for example in seen.examples:
        if not example.nearest:
            continue
        near = "".join(
            f'<figure class="{"" if image.label == example.truth else "strange"}">'
            f"{_photo(image.image, f'Training image of {classes[image.label]}, distance {image.distance:.1f}')}"
            f"<figcaption>{_name(classes[image.label])}</figcaption></figure>"
            for image in example.nearest
        )
        rows.append(
            f'<div class="row"><figure>{_photo(example.image, f"Image of {classes[example.truth]}")}'
            f"<figcaption>{_name(classes[example.truth])}</figcaption></figure>{near}</div>"
        )
    searched = (
        f"all {seen.train:,}"
        if seen.gallery == seen.train
        else (f"{seen.gallery:,} of the {seen.train:,}, drawn by lot and the same each time")
    )
    lead = (
        f"Left, the same images; right, the six training images whose {seen.hidden_units:,} activations of the "
        f"last hidden layer ({escape(seen.hidden_layer)}) lie nearest by Euclidean distance, searched among "
        f"{searched}. Those of another class are underlined in red."
    )
    body = f'<div class="nearest {_size(seen)}">{"".join(rows)}</div>'
    return section("nearest", "Nearest training images", body, lead)


def confusions(seen: Observations, classes: Sequence[str]) -> str:
    """The confusion matrix, the largest confusions in words and the hardest classes."""
    counts = seen.confusion
    alt = f"Confusion matrix of {len(classes)} classes, true in rows, predicted in columns"
    few = len(classes) <= CELLS_AS_TABLE
    matrix = confusion_table(counts, classes) if few else confusion_image(counts, alt)
    words = "true class in rows, predicted class in columns"
    words += "" if few else ", in the order of the labels; red is the stronger, the more often two are confused"
    body = (
        f'<div class="confusions"><figure>{matrix}<figcaption>{words}</figcaption></figure>'
        f"<div>{_largest(counts, classes)}{_hardest(counts, classes)}</div></div>"
    )
    lead = f"All {seen.count:,} {SPLITS[seen.split].lower()} images, centre view, by their most probable label."
    return section("confusions", "Confusions", body, lead)


def layers(data: dict[str, Any]) -> str:
    """The summary of the network as a table."""
    rows = [
        f'<tr><th scope="row">input</th><td>{shape_text(data["input"])}</td><td class="more"></td><td></td>'
        '<td class="more"></td></tr>'
    ]
    rows += [
        f'<tr{"" if layer["weights"] else " class=light"}><th scope="row">{escape(layer["name"])}'
        f"<small>{escape(layer['about'])}</small></th><td>{shape_text(layer['shape'])}</td>"
        f'<td class="more">{_count(layer["neurons"])}</td><td>{_count(layer["weights"] + layer["biases"])}</td>'
        f'<td class="more">{_count(layer["connections"])}</td></tr>'
        for layer in data["layers"]
    ]
    total = data["total"]
    rows.append(
        f'<tr class="total"><th scope="row">total</th><td></td><td class="more">{_count(total["neurons"])}</td>'
        f'<td>{_count(total["parameters"])}</td><td class="more">{_count(total["connections"])}</td></tr>'
    )
    head = (
        '<thead><tr><th scope="col">layer</th><th scope="col">output</th><th scope="col" class="more">neurons</th>'
        '<th scope="col">parameters</th><th scope="col" class="more">connections</th></tr></thead>'
    )
    columns = "one column" if data["columns"] == 1 else f"{data['columns']} columns"
    lead = f"{escape(data['preset'])}, {columns}: {total['parameters']:,} parameters."
    return section("network", "Network", f'<table class="layers">{head}<tbody>{"".join(rows)}</tbody></table>', lead)


def left_out(name: str, title: str, why: str) -> str:
    """A section that cannot be made yet, with the reason."""
    return section(name, title, "", escape(why))


def _chart(title: str, lines: Sequence[Curve], history: History, unit: str) -> str:
    keys = "".join(
        f'<span class="key {line.key}">{escape(line.name)} <b>{_figure(line.points[-1][1], unit)}</b></span>'
        for line in lines
    )
    alt = f"{title} over {history.epochs:.3g} epochs. At the end: " + ", ".join(
        f"{line.name} {_figure(line.points[-1][1], unit)}" for line in lines
    )
    chart = curves(lines, history.drops, history.epochs, unit, alt)
    return f"<figure><figcaption><b>{title}</b>{keys}</figcaption>{chart}</figure>"


def _figure(value: float, unit: str) -> str:
    return percent(value) if unit == "%" else f"{value:.3f}"


def _card(example: Example, classes: Sequence[str]) -> str:
    bars = []
    for label, probability in zip(example.labels, example.probabilities, strict=True):
        kind = "hit" if label == example.truth else ("miss" if label == example.labels[0] else "")
        bars.append(
            f'<li class="{kind}" style="--share:{100 * probability:.1f}%">{_name(classes[label])}'
            f"<span>{100 * probability:.0f}</span></li>"
        )
    verdict = (
        '<span class="verdict hit" title="right">✓</span>'
        if example.right
        else '<span class="verdict miss" title="wrong">✗</span>'
    )
    truth = classes[example.truth]
    said = "right" if example.right else f"taken for {classes[example.labels[0]]}"
    return (
        f'<figure class="card">{_photo(example.image, f"Image of {truth}, {said}")}'
        f"<figcaption>{_name(truth)}{verdict}</figcaption><ol>{''.join(bars)}</ol></figure>"
    )


def _size(seen: Observations) -> str:
    """`small` where the images have few pixels, which look best small, else `large`."""
    return "small" if all(len(example.image) <= PIXELATED for example in seen.examples) else "large"


def _largest(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    top = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(int(k) // len(classes), int(k) % len(classes)) for k in top if wrong.flat[k]]
    if not pairs:
        return "<p>Not one image was confused.</p>"
    rows = "".join(
        f"<li><span>{_name(classes[i])} taken for {_name(classes[j])}</span>"
        f"<b>{wrong[i, j]:,} of {counts[i].sum():,}</b></li>"
        for i, j in pairs
    )
    return f'<h3>Most often confused</h3><ul class="pairs">{rows}</ul>'


def _hardest(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    totals = counts.sum(1)
    there = np.flatnonzero(totals)
    errors = 100 * (1 - np.diag(counts)[there] / totals[there])
    ranked = sorted(zip(errors.tolist(), there.tolist(), strict=True), key=lambda pair: -pair[0])[:HARDEST]
    ranked = [(error, i) for error, i in ranked if error > 0]
    if not ranked:
        return ""
    widest = ranked[0][0]
    rows = "".join(
        f'<li style="--share:{100 * error / widest:.1f}%">{_name(classes[i])}<span>{error:.1f}\u202f%</span></li>'
        for error, i in ranked
    )
    return f'<h3>Error by class, highest first</h3><ol class="bars">{rows}</ol>'


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _name(text: str) -> str:
    """A class name, kept from spilling over."""
    return f'<bdi class="name" title="{escape(text)}">{escape(text)}</bdi>'


def _photo(pixels: NDArray[np.uint8], alt: str) -> str:
    small = len(pixels) <= PIXELATED
    source = _png(pixels) if small else _jpeg(pixels)
    kind = ' class="pixels"' if small else ""
    return f'<img{kind} src="{source}" alt="{escape(alt)}" width="{len(pixels)}" height="{len(pixels)}">'


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _factor(side: int) -> int:
    """How often a kernel's pixels are repeated, so that scaling in the page leaves them sharp and even."""
    return max(1, 88 // side)
