"""`alexnet predict`: the most probable labels of pictures."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import MODEL_HELP, Command, Result, model_arguments
from alexnet.errors import AlexnetError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which model and pictures, and what to do with the predictions."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="files, folders (all pictures in them), patterns in quotes ('*.jpg'), or - for a file on standard input",
    )
    parser.add_argument("--top", type=int, default=5, help="labels to show (default: 5)")
    parser.add_argument("--views", type=int, choices=(1, 5, 10), default=1, help="views to average (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="write the predictions to a .csv or .jsonl file")
    model_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """Predict what can be read and name what cannot; exit code 1 if there was any such."""
    from alexnet.inference.load import load
    from alexnet.inference.pictures import check_table, find_pictures, predict_pictures, write_predictions

    if args.out:
        check_table(args.out)
    pictures = find_pictures(args.images)
    options = {name: getattr(args, name) for name in ("checkpoint", "device", "backend", "precision")}
    predictor = load(args.model, **options)
    answers = list(predict_pictures(predictor, pictures, args.top, args.views))
    if args.out:
        write_predictions(args.out, answers)
    result: Result = {"predictions": [answer.to_json() for answer in answers if answer.prediction]}
    unreadable = [answer for answer in answers if not answer.prediction]
    if unreadable:
        from alexnet.progress import Terminal

        progress = Terminal()
        for answer in unreadable:
            progress.warn(_line(f"{answer.image}: {answer.reason}"))
        result |= {"unreadable": [answer.to_json() for answer in unreadable], "exit_code": 1}
    if args.out:
        result["out"] = args.out
    return result


def say(result: Result) -> str:
    """Each picture with its labels, or where they were written."""
    if "out" in result:
        return f"{len(result['predictions']):,} predictions written to {result['out']}"
    lines = []
    for entry in result["predictions"]:
        lines.append(_line(entry["image"]))
        lines += [f"  {label['probability']:7.2%}  {_titled(label)}" for label in entry["labels"]]
    return "\n".join(lines)


def _line(text: str) -> str:
    """A text with a file's name in it as one printable line, as an error's is."""
    return str(AlexnetError(text))


def _titled(label: Result) -> str:
    """A label with its words, where they are known: `n02085936 Maltese dog, Maltese terrier, Maltese`."""
    return f"{label['label'].split()[0]} {label['words']}" if label.get("words") else label["label"]


COMMAND = Command("predict", "the most probable labels of pictures", arguments, run, say)
