"""`alexnet export`: a model as one file for other libraries, with what is needed to use it."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import CHECKPOINT_HELP, MODEL_HELP, Command, Result


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, to which file."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--format",
        choices=("onnx", "safetensors"),
        required=True,
        help="onnx: a graph that takes raw pixels; safetensors: weights and mean image, which every command reads back",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--checkpoint", metavar="NAME", help=CHECKPOINT_HELP)


def run(args: argparse.Namespace) -> Result:
    """Write the file."""
    from alexnet.formats.export import export
    from alexnet.inference.load import open_model

    trained = open_model(args.model, args.checkpoint)
    path = export(trained.network, trained.weights, args.format, args.out, trained.facts())
    return {"run": args.model, "format": args.format, "out": str(path), "bytes": path.stat().st_size}


def say(result: Result) -> str:
    """The file in one line."""
    return f"{result['run']} written to {result['out']} as {result['format']}, {result['bytes'] / 1e6:,.1f} MB"


COMMAND = Command("export", "a model as an ONNX graph or a file of weights", arguments, run, say)
