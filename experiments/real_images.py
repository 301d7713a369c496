"""Train the presets on real images and keep a record of each: errors, spread, seconds, command, hardware.

    python -m experiments.real_images digits --seeds 0 1 2 3 4
    python -m experiments.real_images cifar-26 --data ../shared/data/cifar10
    python -m experiments.real_images tiny-64 --data ../shared/data/tiny-imagenet --run runs/tiny-64

With `--run` finished runs are measured instead of new ones trained. Every choice (when the learning rate decays,
`best`) is made on validation images; the test split is looked at once, at the end. Other options go to `alexnet train`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet import evaluate
from alexnet.report.history import read_history
from alexnet.run import Run
from benchmarks.processes import child_environment, python
from benchmarks.records import Hardware, now
from experiments.records import RECORDS, Errors, TrainingRecord, TrainingRun, save, summarize


@dataclass(frozen=True)
class Experiment:
    """What is trained and measured: settings beside the preset's, views, and the results published for it."""

    preset: str
    data: str  # as people call it
    settings: tuple[str, ...] = ()
    views: tuple[int, ...] = (1,)
    published: str = ""
    measured: bool = True  # otherwise only the loss curve counts


FIRST_STEPS = ("--precision", "bfloat16", "--train.steps", "200", "--train.log_every", "10")
CODECS = ("raw", "yuv420", "jpeg")  # of the stores that `experiments.codecs` trains from
EXPERIMENTS = {
    "digits": Experiment("digits", "scikit-learn's digits", views=(1, 5)),
    "cifar-26": Experiment("cifar-26", "CIFAR-10 (JPEG)", published="26 % in 80 s on a GTX 580, raw pixels"),
    "cifar-18": Experiment("cifar-18", "CIFAR-10 (JPEG)", published="18 % in 20 min on a GTX 580, raw pixels"),
    "tiny-64": Experiment("tiny-64", "Tiny ImageNet, 200 classes", views=(1, 10)),
    "own-tiny": Experiment("tiny-64", "500 pictures of 8 classes of Tiny ImageNet", views=(1, 10)),
    "own-photographs": Experiment("tiny-64", "183 photographs of 6 kinds", views=(1, 10)),
    "own-photographs-tuned": Experiment(
        "fine-tune", "the same 183 photographs, from weights of Tiny ImageNet", views=(1, 10)
    ),
    "paper": Experiment("paper", "Tiny ImageNet enlarged to 256", FIRST_STEPS, measured=False),
    "code-145": Experiment("code-145", "Tiny ImageNet enlarged to 256", FIRST_STEPS, measured=False),
    **{f"cifar-26-{codec}": Experiment("cifar-26", "CIFAR-10 (JPEG)") for codec in CODECS},
    **{f"tiny-64-{codec}": Experiment("tiny-64", "Tiny ImageNet", ("--epochs", "3")) for codec in CODECS},
}


def command(name: str, data: str | None, out: str, seed: int, extra: Sequence[str] = ()) -> list[str]:
    """The training command of an experiment."""
    experiment = EXPERIMENTS[name]
    source = ["--data", data] if data else []
    words = ["alexnet", "train", "--preset", experiment.preset, *source, "--out", out, "--seed", str(seed)]
    return [*words, *experiment.settings, *extra]


def measure(name: str, run: Run, data: str | None) -> TrainingRun:
    """What a finished run shows: errors on test (val where there is none) by views, and the loss curve."""
    experiment = EXPERIMENTS[name]
    lines = run.metrics("train")
    history = read_history(run)
    views = experiment.views if experiment.measured else ()
    validation = run.metrics("validation") if experiment.measured else []
    return TrainingRun(
        seed=run.config.train.seed,
        epochs=len(run.metrics("epoch")),
        steps=lines[-1]["step"],
        training_seconds=round(history.seconds or 0.0, 1),
        seconds_estimated_from_speed=history.estimated,
        threads=run.environment["hardware"]["threads"],
        images_per_second=statistics.median(line["images_per_second"] for line in lines),
        commit=run.environment["commit"],
        errors=tuple(measure_errors(run, data, count) for count in views),
        validation=tuple((line["epoch"], line["top1_error"], line["top5_error"]) for line in validation),
        loss_curve=tuple((line["step"], line["loss"]) for line in lines[:: max(1, len(lines) // 60)]),
    )


def measure_errors(run: Run, data: str | None, views: int) -> Errors:
    """Errors of the best checkpoint on the test split."""
    result = evaluate(str(run.path), data, views=views).to_json()
    keys = ("split", "count", "top1_error", "top5_error", "loss", "chance_error", "majority_error")
    return Errors(views=views, **{key: result[key] for key in keys})


def train_or_open(args: argparse.Namespace, extra: list[str]) -> list[Run]:
    """The runs named by `--run`, or new ones trained by the command itself, one per seed; one that is there goes on."""
    if args.run:
        return [Run.open(path) for path in args.run]
    runs = []
    for seed in args.seeds:
        out = args.runs / f"experiment-{args.name}-{seed}"
        words = command(args.name, args.data, str(out), seed, extra)
        if (out / "config.json").exists():
            words = ["alexnet", "train", "--resume", str(out)]
        subprocess.run(python("alexnet.cli", *words[1:]), env=child_environment(), check=True)
        runs.append(Run.open(out))
    return runs


def main(argv: Sequence[str] | None = None) -> TrainingRecord:
    """Train or measure, write the record, print its summary and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", help="where the images are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--run", nargs="+", default=[], help="finished runs to measure instead of training")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of new runs")
    parser.add_argument("--note", default="", help="what a reader of the record should know")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records")
    args, extra = parser.parse_known_args(argv)
    experiment = EXPERIMENTS[args.name]
    runs = train_or_open(args, extra)
    measured = tuple(measure(args.name, run, args.data) for run in runs)
    environment = runs[-1].environment
    record = TrainingRecord(
        name=args.name,
        results=summarize(measured, experiment.views),
        command=shlex.join(command(args.name, args.data, f"runs/{args.name}", measured[0].seed, extra)),
        hardware=Hardware.of(environment["hardware"]),
        versions=environment["versions"],
        date=now(),
        commit=environment["commit"],
        preset=experiment.preset,
        data=experiment.data,
        published=experiment.published,
        note=args.note,
        runs=measured,
    )
    save(record, args.records)
    print(json.dumps([result.to_json() for result in record.results]))
    return record


if __name__ == "__main__":
    main(sys.argv[1:])
