"""What the records say of the claims: differences, intervals and verdicts.

A claim's verdict at a scale is the weakest of its deciding comparisons'. Nothing here trains.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import DataError
from alexnet.reproduce.claims import CLAIMS, ENSEMBLE, ERROR, VIEWS, Claim, Comparison, Side
from alexnet.reproduce.ensembles import average
from alexnet.reproduce.intervals import Interval, over_images, paired, verdict, welch
from alexnet.reproduce.predictions import Predictions
from alexnet.reproduce.records import Records, RunRecord
from alexnet.reproduce.scales import SCALES

VERDICTS = ("refuted", "no difference at this scale", "same direction", "confirmed")  # the weakest first
NOT_RUN, TOO_FEW = "not run", "too few seeds"
KINDS = {ERROR: "centre", VIEWS: "views"}  # predictions that a metric is counted of


@dataclass(frozen=True)
class Outcome:
    """What a comparison came to at a scale.

    `better` and `worse` are the values by seed, in the same order where `paired`; `difference` is positive on the
    claimed side. `missing` says in words why there is no verdict.
    """

    claim: Claim
    scale: str
    comparison: Comparison
    better: tuple[float, ...]
    worse: tuple[float, ...]
    interval: Interval | None
    verdict: str
    runs: tuple[RunRecord, ...]
    missing: str = ""

    @property
    def n(self) -> int:
        """The seeds of the side that has fewer."""
        return min(len(self.better), len(self.worse))

    @property
    def seconds(self) -> float:
        """Of training all the runs that it is made from."""
        return sum(run.seconds for run in self.runs)

    @property
    def command(self) -> str:
        """What checks the claim at this scale again."""
        words = ["alexnet", "reproduce", str(self.claim.number), "--scale", self.scale, "--seeds", str(max(self.n, 2))]
        return shlex.join(words + ([] if SCALES[self.scale].source else ["--data", "SRC"]))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: claim, scale, comparison, verdict, difference, interval, n, values by seed, records."""
        found = self.interval
        return {
            "claim": self.claim.number,
            "scale": self.scale,
            "comparison": self.comparison.name,
            "decides": self.comparison.decides,
            "verdict": self.verdict,
            "paper": list(self.claim.paper),
            "ours": {"better": list(self.better), "worse": list(self.worse), "unit": self.comparison.unit},
            "difference": None if found is None else round(found.mean, 4),
            "interval": None if found is None else [round(found.low, 4), round(found.high, 4)],
            "paired": None if found is None else found.paired,
            "over": self.comparison.over,
            "n": self.n,
            "seconds": round(self.seconds, 1),
            "records": ["/".join(map(str, run.key)) for run in self.runs],
            "command": self.command,
            **({"missing": self.missing} if self.missing else {}),
        }


def outcomes(
    records: Records, claims: Iterable[Claim] = CLAIMS, scales: Iterable[str] = tuple(SCALES)
) -> list[Outcome]:
    """Every comparison of the claims at the scales, in order. Raises DataError for damaged predictions."""
    wanted = list(scales)
    return [
        outcome(records, claim, comparison, scale)
        for claim in claims
        for scale in wanted
        for comparison in claim.comparisons
        if scale in comparison.scales
    ]


def outcome(records: Records, claim: Claim, comparison: Comparison, scale: str) -> Outcome:
    """What one comparison came to."""
    sides = [_values(records, scale, side) for side in (comparison.better, comparison.worse)]
    runs = {
        run.key: run for side in (comparison.better, comparison.worse) for run in records.of(scale, side.arm).values()
    }
    better, worse = sides
    shared = [seed for seed in better if seed in worse]
    if len(shared) >= 2:  # seeds that only one side has are left out
        better, worse = ({seed: side[seed] for seed in shared} for side in sides)
    found: Interval | None = None
    missing = ""
    sign = 1 if comparison.direction == "lower" else -1
    if not better or not worse:
        missing = _missing(records, scale, comparison)
    elif comparison.over == "images":
        found = _over_images(records, scale, comparison)
    elif len(shared) >= 2:
        found = paired([sign * (worse[seed] - better[seed]) for seed in shared], _grain(comparison, runs.values()))
    elif min(len(better), len(worse)) >= 2:
        found = welch([sign * value for value in worse.values()], [sign * value for value in better.values()])
    else:
        missing = f"an interval needs at least two seeds, and there are {min(len(better), len(worse))}"
    said = verdict(found) if found is not None else (NOT_RUN if not better or not worse else TOO_FEW)
    values = tuple(better.values()), tuple(worse.values())
    return Outcome(claim, scale, comparison, *values, found, said, tuple(runs.values()), missing)


def verdict_at(found: Sequence[Outcome]) -> str:
    """The verdict of a claim by its outcomes at one scale: the weakest that decides; NOT_RUN where one is missing."""
    deciding = [one.verdict for one in found if one.comparison.decides]
    for word in (NOT_RUN, TOO_FEW):
        if word in deciding or not deciding:
            return word
    return min(deciding, key=VERDICTS.index)


def main_outcome(found: Sequence[Outcome]) -> Outcome:
    """The outcome that the verdict of a claim at one scale comes from."""
    said = verdict_at(found)
    return next((one for one in found if one.comparison.decides and one.verdict == said), found[0])


@dataclass(frozen=True)
class Row:
    """A claim with its outcomes by scale."""

    claim: Claim
    scales: dict[str, list[Outcome]]

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict at each scale where something was measured."""
        said = {scale: verdict_at(found) for scale, found in self.scales.items()}
        return {scale: word for scale, word in said.items() if word != NOT_RUN}

    @property
    def best(self) -> tuple[str, str]:
        """The strongest verdict and its scale, the largest of equal ones; NOT_RUN and no scale without any."""
        rank = {word: place for place, word in enumerate((NOT_RUN, TOO_FEW, *VERDICTS))}
        said = [(rank[word], place, word, scale) for place, (scale, word) in enumerate(self.verdicts.items())]
        _, _, word, scale = max(said, default=(0, 0, NOT_RUN, ""))
        return word, scale


def rows(records: Records, claims: Iterable[Claim] = CLAIMS) -> list[Row]:
    """One row per claim."""
    return [Row(claim, {scale: outcomes(records, [claim], [scale]) for scale in claim.scales}) for claim in claims]


def _grain(comparison: Comparison, runs: Iterable[RunRecord]) -> float:
    """The step in which a comparison's values are measured: of errors, that of the test images; else its own."""
    if comparison.unit != "points":
        return comparison.grain
    return max((100 / run.values["images"] for run in runs if "images" in run.values), default=0.0)


def _values(records: Records, scale: str, side: Side) -> dict[int, float]:
    """What a side measured, by seed."""
    runs = records.of(scale, side.arm)
    if side.metric == ENSEMBLE:
        members = [seed for seed, run in runs.items() if VIEWS in run.values]
        error = 100 * float(_ensemble_wrong(records, scale, side.arm).mean()) if len(members) > 1 else 0.0
        return dict.fromkeys(members, error) if len(members) > 1 else {}
    return {seed: run.values[side.metric] for seed, run in runs.items() if side.metric in run.values}


def _missing(records: Records, scale: str, comparison: Comparison) -> str:
    lacking = [side for side in (comparison.better, comparison.worse) if not _values(records, scale, side)]
    names = [side.arm if not records.of(scale, side.arm) else f"{side.metric} of {side.arm}" for side in lacking]
    return f"no record of {' and '.join(dict.fromkeys(names))}"


def _over_images(records: Records, scale: str, comparison: Comparison) -> Interval:
    """The interval of the difference over test images, each side's errors averaged over its networks."""
    wrong = [_wrong(records, scale, side) for side in (comparison.better, comparison.worse)]
    if len(wrong[0]) != len(wrong[1]):
        raise DataError(
            f"the predictions of {comparison.better.arm} and {comparison.worse.arm} at {scale} are of other images"
        )
    return over_images(100 * (wrong[1] - wrong[0]))


def _wrong(records: Records, scale: str, side: Side) -> NDArray[np.float64]:
    """The share of an arm's networks that are wrong about each test image, (N,)."""
    if side.metric == ENSEMBLE:
        return _ensemble_wrong(records, scale, side.arm)
    kind = KINDS[side.metric]
    parts = [
        Predictions.load(records.predictions_file(run.key, kind)).wrong()
        for run in records.of(scale, side.arm).values()
    ]
    return np.mean(parts, axis=0, dtype=np.float64)


def _ensemble_wrong(records: Records, scale: str, arm: str) -> NDArray[np.float64]:
    """Where the average of an arm's networks is wrong, (N,)."""
    runs = [run for run in records.of(scale, arm).values() if VIEWS in run.values]
    return _average_wrong(tuple(records.predictions_file(run.key, "views") for run in runs))


@cache
def _average_wrong(files: tuple[Path, ...]) -> NDArray[np.float64]:
    return average([Predictions.load(file) for file in files]).average.wrong().astype(np.float64)
