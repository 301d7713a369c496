"""The paper's two tables of results in small, from the records: the rivals, and one network against several."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.reproduce.claims import ERROR, VIEWS
from alexnet.reproduce.ensembles import average, searched
from alexnet.reproduce.predictions import Predictions
from alexnet.reproduce.records import Records
from alexnet.reproduce.scales import BASE

TUNED = "fine-tuned"
LONGEST = {"cifar10": "full-schedule"}  # the arm that is compared with the rivals, where it is another


@dataclass(frozen=True)
class Line:
    """A line of a table: the paper's errors as printed, and ours in percent, each with the number of trainings.

    `searched` is the top-1 error with weights searched on validation images, where several are averaged.
    """

    model: str
    paper: str
    top1: float | None
    top5: float | None
    n: int
    searched: float | None = None


def table_1(records: Records, scale: str) -> list[Line]:
    """The network against its rivals (paper's table 1); errors are means over seeds, of test images."""
    rows = (
        ("Sparse coding", "47.1 % / 28.2 %", "sparse-coding", ERROR),
        ("SIFT + FVs", "45.7 % / 25.7 %", "sift-fv", ERROR),
        ("CNN", "37.5 % / 17.0 %", LONGEST.get(scale, BASE), VIEWS),
    )
    return [_mean(records, scale, model, paper, arm, metric) for model, paper, arm, metric in rows]


def table_2(records: Records, scale: str) -> list[Line]:
    """One network against several averaged, with an asterisk those that were pre-trained (paper's table 2)."""
    return [
        _mean(records, scale, "1 CNN", "40.7 % / 18.2 %", BASE, VIEWS),
        _averaged(records, scale, "5 CNNs", "38.1 % / 16.4 %", {BASE: 5}),
        _mean(records, scale, "1 CNN*", "39.0 % / 16.6 %", TUNED, VIEWS),
        _averaged(records, scale, "7 CNNs*", "36.7 % / 15.4 %", {BASE: 5, TUNED: 2}),
    ]


def _mean(records: Records, scale: str, model: str, paper: str, arm: str, metric: str) -> Line:
    runs = [run for run in records.of(scale, arm).values() if metric in run.values]
    top5 = [run.values[name] for run in runs if (name := metric.replace("top1", "top5")) in run.values]
    return Line(model, paper, _or_none([run.values[metric] for run in runs]), _or_none(top5), len(runs))


def _averaged(records: Records, scale: str, model: str, paper: str, arms: dict[str, int]) -> Line:
    """The first networks of some arms averaged; without errors where one is missing."""
    keys = []
    for arm, count in arms.items():
        found = [run.key for run in records.of(scale, arm).values() if VIEWS in run.values][:count]
        if len(found) < count:
            return Line(model, paper, None, None, 0)
        keys += found
    test, validation = (
        [Predictions.load(records.predictions_file(key, kind)) for key in keys] for kind in ("views", "val")
    )
    plain = average(test)
    top5 = plain.error(5) if test[0].classes > 5 else None
    return Line(model, paper, plain.error(1), top5, len(keys), searched(test, validation).error(1))


def _or_none(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None
