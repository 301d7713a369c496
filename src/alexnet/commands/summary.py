"""`alexnet summary`: every layer: output shape, neurons, weights, connections."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import Command, Result, text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help="a preset, or torchvision:NAME")
    parser.add_argument("--classes", type=int, help="number of classes (default: the preset's)")


def run(args: argparse.Namespace) -> Result:
    from alexnet import presets
    from alexnet.model import summary

    network = presets.preset(args.preset, args.classes).network
    return {**summary.summary(network), "text": summary.render_summary(network)}


COMMAND = Command("summary", "every layer: output shape, neurons, weights, connections", arguments, run, text)
