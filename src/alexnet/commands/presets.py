"""`alexnet presets`: the table of presets, or how two differ."""

from __future__ import annotations

import argparse
import dataclasses

from alexnet.commands.frame import Command, Result, text
from alexnet.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", metavar="PRESET", nargs="*", help="none: the table; two: how they differ")


def run(args: argparse.Namespace) -> Result:
    from alexnet import comparison, presets

    if not args.presets:
        return {"presets": comparison.presets_data(), "text": comparison.presets_table()}
    if len(args.presets) != 2:
        raise UsageError("`alexnet presets` takes no preset (the table) or two (how they differ)")
    first, second = (presets.preset(name) for name in args.presets)
    rows = [dataclasses.asdict(row) for row in comparison.difference(first, second)]
    return {
        "a": first.preset,
        "b": second.preset,
        "differences": rows,
        "text": comparison.render_difference(first, second),
    }


COMMAND = Command("presets", "the table of presets, or how two differ", arguments, run, text)
