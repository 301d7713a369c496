"""`alexnet bench`: speed beside other libraries, kept and compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import alexnet
from alexnet.commands.frame import Command, Parser, Result, text
from alexnet.errors import UsageError

QUESTIONS = ("train", "parity", "predict", "data", "lrn")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The question; its own options are parsed by its module."""
    parser.add_argument(
        "question",
        metavar="QUESTION",
        choices=(*QUESTIONS, "all", "newest"),
        help=f"{', '.join(QUESTIONS)}; all: each of them; newest: what was last measured here",
    )
    parser.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        help="the question's own options; `alexnet bench QUESTION --help` lists them",
    )


def run(args: argparse.Namespace) -> Result:
    """Ask one question, all of them, or for the newest results kept. Raises UsageError outside a source tree."""
    find_benchmarks()
    from benchmarks import registry

    words = [word for word in args.options if word != "--json"]
    args.json = getattr(args, "json", False) or len(words) < len(args.options)
    own = Parser(prog=f"alexnet bench {args.question}")
    if args.question in registry.QUESTIONS:
        registry.arguments(args.question, own)
        answer = registry.run(args.question, own.parse_args(words))
        return {**answer.to_json(), "text": answer.text}
    registry.records_argument(own)
    if args.question == "all":
        own.add_argument("--images", type=Path, help="a folder of class folders of photographs, for `data`")
    options = own.parse_args(words)
    if args.question == "all":
        survey = registry.everything(options.images, options.records)
    else:
        survey = registry.newest(options.records)
    return {**survey.to_json(), "text": survey.text}


def find_benchmarks() -> None:
    """Make `benchmarks` of the source tree that this package runs from importable. Raises UsageError without a tree."""
    tree = Path(alexnet.__file__).resolve().parents[2]
    if not (tree / "benchmarks" / "registry.py").is_file():
        raise UsageError("the benchmarks are part of the source tree: clone it, `pip install -e .`, and ask again")
    if str(tree) not in sys.path:
        sys.path.insert(0, str(tree))


COMMAND = Command("bench", "speed beside other libraries, kept and compared", arguments, run, text)
