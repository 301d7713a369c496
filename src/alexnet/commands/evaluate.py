"""`alexnet evaluate`: top-1 and top-5 error of a run, or of several averaged."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import Command, Result, describe_errors, model_arguments
from alexnet.errors import describe_os_error


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directories; several are averaged, an ensemble")
    parser.add_argument("--data", metavar="SRC", help="another source with the same classes (default: the run's own)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="default: test where there is one, else val")
    parser.add_argument(
        "--views",
        type=int,
        choices=(1, 5, 10),
        default=1,
        help="1: the centre; 10: corners, centre and their mirror images, averaged, as in the paper",
    )
    model_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    from alexnet.inference.evaluate import evaluate
    from alexnet.progress import Terminal
    from alexnet.run import Run

    progress = Terminal()
    for path in args.runs:
        if args.views == 10 and not Run.open(path).config.augment.mirror:
            progress.warn(f"{path} was trained without mirror images; --views 5 leaves them out")
    result = evaluate(
        args.runs,
        args.data,
        args.split,
        args.views,
        args.checkpoint,
        args.device,
        progress,
        args.engine,
        args.precision,
    )
    if len(args.runs) == 1 and args.precision is None:  # the report shows what the run itself computes
        try:
            Run.open(args.runs[0]).record_evaluation(result)
        except OSError as error:  # a run that may only be read
            progress.warn(f"the result is not kept in the run: {describe_os_error(error)}")
    return result


def say(result: Result) -> str:
    who = result["runs"][0] if len(result["runs"]) == 1 else f"{len(result['runs'])} runs averaged"
    lost = f" ({result['unreadable']} could not be read)" if result["unreadable"] else ""
    views = "centre view" if result["views"] == 1 else f"{result['views']} views"
    return f"{who} on {result['data']} {result['split']}, {views}: {describe_errors(result)}{lost}"


COMMAND = Command("evaluate", "top-1 and top-5 error of a run, or of several averaged", arguments, run, say)
