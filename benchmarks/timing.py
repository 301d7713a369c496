"""Contenders timed in turns, and the result of one of them beside its peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.records import Result

Call = Callable[[], object]
Measure = Callable[[Any], float]


def seconds_of(clock: Callable[[], float] = time.perf_counter) -> Measure:
    """A measure for `take_turns`: calls the contender and returns the seconds it took by this clock."""

    def measure(call: Call) -> float:
        began = clock()
        call()
        return clock() - began

    return measure


def take_turns(
    contenders: Mapping[str, Any], turns: int, warm: int = 1, measure: Measure | None = None
) -> dict[str, list[float]]:
    """What `measure` returns for each contender (seconds by default), one after the other in every turn.

    The first `warm` turns are not kept.
    """
    measure = measure or seconds_of()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + warm):
        for name, contender in contenders.items():
            elapsed = measure(contender)
            if turn >= warm:
                seconds[name].append(elapsed)
    return seconds


def compare_times(
    name: str,
    seconds: Mapping[str, list[float]],
    own: str,
    peers: Sequence[str] = (),
    work: float | None = None,
    unit: str = "ms",
    reference_rate: float | None = None,
    reference_basis: str = "",
) -> Result:
    """The result of contender `own` beside its `peers`, to the first of which `ratio` refers.

    With `work` (images per call, say) values are rates in `unit` and more is better; without, milliseconds (`unit` ms)
    or seconds (s) and less is better. `reference_rate` is in the same unit.
    """

    def value(t: float) -> float:
        return work / t if work is not None else t * (1e3 if unit == "ms" else 1)

    def better(mine: float, other: float) -> float:
        return round(mine / other if work is not None else other / mine, 3)

    medians = {key: value(statistics.median(seconds[key])) for key in (own, *peers)}
    low, high = sorted(value(t) for t in (min(seconds[own]), max(seconds[own])))
    return Result(
        name=name,
        value=rounded(medians[own]),
        unit=unit,
        spread=(rounded(low), rounded(high)),
        n=len(seconds[own]),
        by=own,
        peers={peer: rounded(medians[peer]) for peer in peers},
        ratio=better(medians[own], medians[peers[0]]) if peers else None,
        reference_rate=None if reference_rate is None else rounded(reference_rate),
        fraction_of_reference=None if reference_rate is None else better(medians[own], reference_rate),
        reference_basis=reference_basis,
    )


def summarize(name: str, values: Sequence[float], unit: str, **more: Any) -> Result:
    """The median of values with their range; `more` are further fields of the result."""
    spread = (rounded(min(values)), rounded(max(values)))
    return Result(name, rounded(statistics.median(values)), unit, spread, len(values), **more)


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
