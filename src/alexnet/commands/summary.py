"""`alexnet summary`: every layer: output shape, neurons, weights, connections."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from alexnet.commands.frame import PRESET_HELP, Command, Result, named_config, settings_arguments, with_settings
from alexnet.commands.text_table import paragraph, table
from alexnet.errors import UsageError

if TYPE_CHECKING:
    from alexnet.model.summary import LayerSummary, Summary, Total


def arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and what to change in it."""
    parser.add_argument("preset", metavar="PRESET", help=PRESET_HELP)
    parser.add_argument("--classes", metavar="N", type=int, help="number of classes (default: the preset's)")
    settings_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """The counts of a preset's or a run's network."""
    from alexnet.model import summary

    refuse_a_recipe(args.preset)
    counts = summary.summary(with_settings(named_config(args.preset, args.classes), args).network)
    return {"name": args.preset, **counts.to_json(), "text": summary_text(counts, args.preset)}


def refuse_a_recipe(name: str) -> None:
    """Raise UsageError for the preset that has no network of its own."""
    if name == "fine-tune":
        raise UsageError(
            "fine-tune is a recipe for the network of the model it begins from (`alexnet train --preset fine-tune "
            "--init MODEL`) and has no layers of its own; `alexnet config fine-tune` prints its settings"
        )


def summary_text(counts: Summary, name: str) -> str:
    """The summary of what was asked for by name as a text table, with the quoted numbers below it, if there are any."""
    from alexnet.architecture import shape_text

    columns = "1 column" if counts.columns == 1 else f"{counts.columns} columns"
    preset = "" if name == counts.preset else f"{counts.preset}, "
    title = f"{name}: {preset}{shape_text(counts.input)} in, {columns}, {counts.classes:,} classes"
    if counts.about:
        title += f" ({counts.about})"
    rows = [["input", "", shape_text(counts.input), "", "", "", ""]]
    rows += [[layer.name, layer.about, shape_text(layer.shape), *_cells(layer)] for layer in counts.layers]
    total = counts.total
    rows.append(["total", "", "", *_cells(total)])
    head = ["layer", "", "output", "neurons", "weights", "biases", "connections"]
    parts = [
        title,
        table(head, rows, right=(2, 3, 4, 5, 6), foot=True),
        f"{total.parameters:,} parameters: {total.weights:,} weights and {total.biases:,} biases",
    ]
    if counts.quoted:
        parts.append("Numbers people quote")
        rows = [[entry.what, f"{entry.quoted:,}", f"{entry.counted:,}"] for entry in counts.quoted]
        parts.append(table(["", "quoted", "counted here"], rows, right=(1, 2)))
        parts.append("\n".join(paragraph(f"· {entry.what}: {entry.why}.", "  ") for entry in counts.quoted))
    return "\n\n".join(parts)


def _cells(entry: LayerSummary | Total) -> list[str]:
    counts = dataclasses.asdict(entry)
    return [f"{counts[key]:,}" if counts[key] else "" for key in ("neurons", "weights", "biases", "connections")]


COMMAND = Command("summary", "every layer: output shape, neurons, weights, connections", arguments, run, settings=True)
