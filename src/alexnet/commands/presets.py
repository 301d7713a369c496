"""`alexnet presets`: the table of presets, or how two configurations or more differ."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alexnet.commands.frame import PRESET_HELP, Command, Result, named_config, settings_arguments, with_settings
from alexnet.commands.summary import refuse_a_recipe, summary_text
from alexnet.commands.text_table import table
from alexnet.errors import UsageError

if TYPE_CHECKING:
    from alexnet.comparison import Difference, PresetRow

FIELD_WORDS = {
    "std": "σ of the initial weights",
    "bias": "initial biases",
    "decay": "weight decay",
    "ceil": "sized by ceil",
    "sees": "kernels see columns",
    "within": "sum over columns",
    "divide": "α divided by the size",
    "image": "side of the input, pixels",
}
HEAD = ("preset", "input", "columns", "kernels", "fully connected", "normalization", "pooling", "parameters", "source")


def arguments(parser: argparse.ArgumentParser) -> None:
    """No preset, one with changes, or several."""
    parser.add_argument(
        "presets",
        metavar="PRESET",
        nargs="*",
        help=f"none: the table of all; one: its layers; several: how they differ; each {PRESET_HELP}",
    )
    settings_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """All presets, the layers of one, or the differences of several, or of one and the same with other settings."""
    from alexnet import comparison
    from alexnet.model import summary

    changes = ["without " + ", ".join(args.without)] if args.without else []
    changes += [f"--{path} {text}" for path, text in args.settings.items()]
    names = list(args.presets)
    if not names and not changes:
        rows = comparison.preset_rows()
        return {"presets": [row.to_json() for row in rows], "text": presets_text(rows)}
    configs = [named_config(name) for name in names]
    if changes and len(names) != 1:
        raise UsageError(
            "`alexnet presets` takes --without and settings with one preset (what that changes); without them no "
            "preset (the table of all), one (its layers), or two or more (how they differ)"
        )
    if len(names) == 1 and not changes:
        refuse_a_recipe(names[0])
        counts, beside = summary.summary(configs[0].network), "code-145" if names == ["paper"] else "paper"
        more = f"alexnet presets {names[0]} {beside}: how they differ; alexnet config {names[0]}: every setting"
        return {**counts.to_json(), "text": f"{summary_text(counts, names[0])}\n\n{more}"}
    if changes:
        names.append(" ".join([*names, *changes]))
        configs.append(with_settings(configs[0], args))
    differences = comparison.difference(*configs)
    return {
        "compared": names,
        "differences": [row.to_json() for row in differences],
        "text": difference_text(differences, names),
    }


def presets_text(rows: list[PresetRow]) -> str:
    """All presets as a text table."""
    cells = [
        [
            row.preset,
            f"{row.input}×{row.input}",
            str(row.columns),
            "-".join(map(str, row.kernels)),
            "-".join(map(str, row.full)),
            row.normalization,
            row.pooling,
            f"{row.parameters:,}",
            row.source,
        ]
        for row in rows
    ]
    return table(HEAD, cells, right=(1, 2, 7))


def difference_text(rows: list[Difference], names: Sequence[str]) -> str:
    """How configurations differ, as a text table under their names."""
    if not rows:
        return f"{', '.join(names[:-1])} and {names[-1]} do not differ."
    cells, before = [], ""
    for row in rows:
        where = row.where if row.where != before else ""
        cells.append([where, FIELD_WORDS.get(row.field, row.field), *row.texts])
        before = row.where
    return table(["where", "what", *names], cells)


COMMAND = Command("presets", "the table of presets, or how several differ", arguments, run, settings=True)
