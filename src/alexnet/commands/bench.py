"""`alexnet bench`: speed beside other libraries, kept and compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet.commands.frame import Command, Parser, Result, text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        metavar="QUESTION",
        choices=("train", "parity", "predict", "data", "lrn", "all", "newest"),
        help="train, parity, predict, data, lrn; all of them; or newest, what was last measured here",
    )
    parser.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        help="the question's own options; `alexnet bench QUESTION --help` lists them",
    )


def run(args: argparse.Namespace) -> Result:
    import benchmarks

    words = [word for word in args.options if word != "--json"]
    args.json = getattr(args, "json", False) or len(words) < len(args.options)
    own = Parser(prog=f"alexnet bench {args.question}")
    if args.question in ("all", "newest"):
        if args.question == "all":
            own.add_argument("--images", type=Path, help="a folder of class folders of photographs, for `data`")
        given = own.parse_args(words)
        return benchmarks.everything(given.images) if args.question == "all" else benchmarks.newest()
    benchmarks.arguments(args.question, own)
    return benchmarks.run(args.question, own.parse_args(words))


COMMAND = Command("bench", "speed beside other libraries, kept and compared", arguments, run, text)
