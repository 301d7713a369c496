"""`alexnet evaluate`: top-1 and top-5 error of a model, or of several averaged."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import MODEL_HELP, Command, Result, describe_errors, model_arguments
from alexnet.errors import UsageError, describe_os_error, quoted
from alexnet.setting import number


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which models to measure, on what, and how."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help=f"{MODEL_HELP}; several are averaged, an ensemble")
    parser.add_argument("--data", metavar="SRC", help="another source with the same classes (default: the run's own)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="default: test where there is one, else val")
    parser.add_argument(
        "--views",
        type=int,
        choices=(1, 5, 10),
        default=1,
        help="averaged; 1: the centre; 5: corners and centre; 10: these and their mirror images, as in the paper",
    )
    parser.add_argument(
        "--weights",
        metavar="W,W,…",
        help="of several models in their average (default: equal); search: those best on the val split",
    )
    model_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """Measure, and keep the result in the run when it is a single one."""
    from alexnet.inference.evaluate import evaluate
    from alexnet.inference.load import load
    from alexnet.progress import Terminal

    progress = Terminal()
    weights = _weights(args.weights)
    options = {name: getattr(args, name) for name in ("checkpoint", "device", "backend", "precision")}
    predictors = [load(model, **options) for model in args.models]
    runs = [predictor.run for predictor in predictors if predictor.run is not None]
    for one in runs:
        if args.views == 10 and not one.config.augment.mirror:
            progress.warn(f"{one.path} was trained without mirror images; --views 5 leaves them out")
    result = evaluate(predictors, args.data, args.split, args.views, weights=weights, progress=progress).to_json()
    if len(predictors) == len(runs) == 1:
        try:
            runs[0].record_evaluation(result)
        except OSError as error:  # a run that may only be read
            progress.warn(f"the result is not kept in the run: {describe_os_error(error)}")
    return result


def say(result: Result) -> str:
    """The result in one line."""
    who = result["runs"][0] if len(result["runs"]) == 1 else f"{len(result['runs'])} models averaged"
    if "weights" in result:
        who += f" with weights {', '.join(f'{weight:.3f}' for weight in result['weights'])}"
    lost = f" ({result['unreadable']} could not be read)" if result["unreadable"] else ""
    views = "centre view" if result["views"] == 1 else f"{result['views']} views"
    return f"{who} on {result['data']} {result['split']}, {views}: {describe_errors(result)}{lost}"


def _weights(text: str | None) -> str | list[float] | None:
    if text is None or text == "search":
        return text
    try:
        return [number(part, float) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {quoted(text)} should be numbers, one per model, as 0.6,0.4, or search") from None


COMMAND = Command("evaluate", "top-1 and top-5 error of a model, or of several averaged", arguments, run, say)
