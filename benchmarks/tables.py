"""Results as people read them: a line, a text table, a Markdown table, all from the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alexnet.commands.text_table import table
from benchmarks.records import Record, Result

BRIEF = ("measurement", "ours", "best peer", "times the peer", "of what can be")
LESS = ("ms", "s", "µs", "%", "MiB")  # units of which less is better
HEAD = ("measurement", "ours", "peers", "ratio to the first", "at the reference rate")


def cells(result: Result, peers: int | None = None) -> list[str]:
    """A row of `HEAD`, with the first `peers` peers (all by default)."""
    unit = f" {result.unit}" if result.unit else ""
    spread = f" [{' '.join(digits(value) for value in result.spread)}], n={result.n}" if result.spread else ""
    others = [f"{name} {digits(value)}" for name, value in list(result.peers.items())[:peers]]
    reference = ""
    if result.reference_rate:
        reference = f"{digits(result.reference_rate)}{unit}"
        if result.reference_basis:
            reference += f" ({result.reference_basis})"
        if result.fraction_of_reference is not None:
            reference += f", {result.fraction_of_reference:.0%} of it"
    return [result.name, f"{digits(result.value)}{unit}{spread}", "; ".join(others), digits(result.ratio), reference]


def brief(result: Result) -> list[str]:
    """A row of `BRIEF`: beside the best of the others' contenders, and the share of the reference rate."""
    unit = f" {result.unit}" if result.unit else ""
    spread = f" ({'–'.join(digits(value) for value in result.spread)})" if result.spread else ""
    others = {name: value for name, value in result.peers.items() if not name.startswith("ours ")}
    peer, times = "", ""
    if others:
        less = result.unit in LESS
        name = (min if less else max)(others, key=lambda key: others[key])
        peer = f"{name} {digits(others[name])}"
        times = digits(others[name] / result.value if less else result.value / others[name])
    share = "" if result.fraction_of_reference is None else f"{result.fraction_of_reference:.0%}"
    return [result.name, f"{digits(result.value)}{unit}{spread}", peer, times, share]


def text_table(record: Record) -> str:
    """The results beside their first peers, with the hardware above."""
    title = f"{record.hardware.title}, torch {record.versions.get('torch')}"
    return f"{title}\n{table(list(HEAD), [cells(result, 1) for result in record.results], right=(3,))}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def line(result: Result) -> str:
    """One result as a line, for those who wait."""
    name, ours, peers, _, reference = cells(result)
    by = f" by {result.by}" if result.by else ""
    return "; ".join(part for part in (f"{name}{by}: {ours}", peers, reference and f"reference {reference}") if part)


def digits(value: float | None) -> str:
    """A value to three digits, whole from a hundred on; nothing for None."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
