"""Train the presets on real images and keep a record of each: errors, spread, seconds, command, hardware.

    python -m experiments.real_images digits --seeds 0 1 2 3 4
    python -m experiments.real_images cifar-26 --data ../shared/data/cifar10
    python -m experiments.real_images tiny-64 --data ../shared/data/tiny-imagenet --run runs/tiny-64

With `--run` finished runs are measured instead of new ones trained. Every choice (the rate's drops, `best`) is made on
validation images; the test split is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from alexnet import evaluate
from alexnet.files import write_json
from alexnet.report.history import training_seconds
from alexnet.run import Run

RECORDS = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Experiment:
    """What is trained and measured: settings beside the preset's, views, and the figures published for it."""

    preset: str
    data: str  # as people call it
    settings: tuple[str, ...] = ()
    views: tuple[int, ...] = (1,)
    published: str = ""
    measured: bool = True  # otherwise only the loss curve counts


FIRST_STEPS = ("--precision", "bfloat16", "--train.steps", "200", "--train.log_every", "10")
EXPERIMENTS = {
    "digits": Experiment("digits", "scikit-learn's digits", views=(1, 5)),
    "cifar-26": Experiment("cifar-26", "CIFAR-10 (JPEG)", published="26 % in 80 s on a GTX 580, raw pixels"),
    "cifar-18": Experiment("cifar-18", "CIFAR-10 (JPEG)", published="18 % in 20 min on a GTX 580, raw pixels"),
    "tiny-64": Experiment("tiny-64", "Tiny ImageNet, 200 classes", views=(1, 10)),
    "paper": Experiment("paper", "Tiny ImageNet enlarged to 256", FIRST_STEPS, measured=False),
    "code-145": Experiment("code-145", "Tiny ImageNet enlarged to 256", FIRST_STEPS, measured=False),
}


def command(name: str, data: str | None, out: str, seed: int, extra: list[str]) -> list[str]:
    """The training command of an experiment."""
    experiment = EXPERIMENTS[name]
    source = ["--data", data] if data else []
    return [
        "alexnet",
        "train",
        "--preset",
        experiment.preset,
        *source,
        "--out",
        out,
        "--seed",
        str(seed),
        *experiment.settings,
        *extra,
    ]


def measure(name: str, run: Run, data: str | None) -> dict[str, Any]:
    """What a finished run shows: errors on test (val where there is none) by view, and the loss curve."""
    experiment = EXPERIMENTS[name]
    lines = run.metrics("train")
    spent, estimated = training_seconds(run) or (0.0, True)
    out: dict[str, Any] = {
        "seed": run.config.train.seed,
        "epochs": len(run.metrics("epoch")),
        "steps": lines[-1]["step"],
        "training_seconds": round(spent, 1),
        "seconds_estimated_from_speed": estimated,
        "threads": run.environment["hardware"]["threads"],
        "images_per_second": statistics.median(line["images_per_second"] for line in lines),
        "commit": run.environment["commit"],
    }
    if experiment.measured:
        for views in experiment.views:
            result = evaluate(str(run.path), data, views=views)
            out[f"views_{views}"] = {key: result[key] for key in ("top1_error", "top5_error", "loss", "count", "split")}
        out["validation"] = [
            [line["epoch"], line["top1_error"], line["top5_error"]] for line in run.metrics("validation")
        ]
    out["loss_curve"] = [[line["step"], line["loss"]] for line in lines[:: max(1, len(lines) // 60)]]
    return out


def summarize(runs: list[dict[str, Any]], views: tuple[int, ...]) -> dict[str, Any]:
    """Mean, lowest and highest of each error over the runs, in percent."""
    out = {}
    for count in views:
        for error in ("top1_error", "top5_error"):
            values = [run[f"views_{count}"][error] for run in runs if f"views_{count}" in run]
            if values and None not in values:
                out[f"{error}_views_{count}"] = {
                    "mean": round(statistics.mean(values), 3),
                    "min": min(values),
                    "max": max(values),
                }
    return out


def main() -> None:
    """Train or measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", help="where the images are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--run", nargs="+", default=[], help="finished runs to measure instead of training")
    parser.add_argument("--note", default="", help="what a reader of the record should know")
    args, extra = parser.parse_known_args()
    experiment = EXPERIMENTS[args.name]
    paths = [Path(path) for path in args.run]
    if not paths:
        for seed in args.seeds:
            paths.append(Path("runs") / f"experiment-{args.name}-{seed}")
            words = command(args.name, args.data, str(paths[-1]), seed, extra)
            subprocess.run([sys.executable, "-m", "alexnet.cli", *words[1:]], check=True)
    runs = [Run.open(path) for path in paths]
    measured = [measure(args.name, run, args.data) for run in runs]
    environment = runs[-1].environment
    record = {
        "experiment": args.name,
        "preset": experiment.preset,
        "data": experiment.data,
        "published": experiment.published,
        "n": len(runs),
        "summary": summarize(measured, experiment.views),
        "command": shlex.join(command(args.name, args.data, f"runs/{args.name}", measured[0]["seed"], extra)),
        "hardware": environment["hardware"],
        "versions": environment["versions"],
        "date": date.today().isoformat(),
        "note": args.note,
        "runs": measured,
    }
    RECORDS.mkdir(exist_ok=True)
    write_json(RECORDS / f"{args.name}.json", record)
    print(json.dumps(record["summary"]))


if __name__ == "__main__":
    main()
