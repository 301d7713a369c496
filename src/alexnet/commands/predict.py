"""`alexnet predict`: the most probable labels of images."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import Command, Result, model_arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", type=int, default=5, help="labels to show (default: 5)")
    parser.add_argument("--views", type=int, choices=(1, 5, 10), default=1, help="views to average (default: 1)")
    model_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    from alexnet.inference import backends as engines
    from alexnet.inference import predictor as predict

    if args.engine == "torch" and args.precision is None:
        net = predict.load(args.run, args.checkpoint, args.device)
    else:
        engine = "auto" if args.precision == "int8" and args.engine == "torch" else args.engine
        net = engines.load(args.run, args.checkpoint, args.device, engine, args.precision)
    predictions = net.predict(args.images, args.top, args.views)
    return {
        "predictions": [
            {
                "image": image,
                "labels": [
                    {"label": label, "probability": round(p, 6)}
                    for label, p in zip(found.labels, found.probabilities, strict=True)
                ],
            }
            for image, found in zip(args.images, predictions, strict=True)
        ]
    }


def say(result: Result) -> str:
    lines = []
    for entry in result["predictions"]:
        lines.append(entry["image"])
        lines += [f"  {label['probability']:7.2%}  {label['label']}" for label in entry["labels"]]
    return "\n".join(lines)


COMMAND = Command("predict", "the most probable labels of images", arguments, run, say)
