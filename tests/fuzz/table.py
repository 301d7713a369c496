"""The table of docs/robustness.md, made from the records of the long runs.

python -m tests.fuzz.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

RECORDS = Path(__file__).with_name("records")
PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"
BEGIN, END = "<!-- cases: made by python -m tests.fuzz.table -->", "<!-- /cases -->"
COLUMNS = ("input", "kind", "cases", "read", "refused", "faults", "longest", "most memory")


def page() -> str:
    """The page with its table made anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


def table() -> str:
    """Markdown: where and when, a row per family, their sum, and the kills."""
    cases = json.loads((RECORDS / "cases.json").read_text())
    rows = []
    for module, families in cases["modules"].items():
        rows += [[module, name, *_cells(entry)] for name, entry in families.items()]
    entries = [entry for families in cases["modules"].values() for entry in families.values()]
    rows.append(["**all**", "", *_cells(_sum(entries))])
    return "\n".join([_where(cases), "", markdown(COLUMNS, rows), "", *_kills()])


def _where(record: dict[str, Any]) -> str:
    hardware, versions = record["hardware"], record["versions"]
    return (
        f"`{record['command']}`, {record['date']}: {hardware['cpu']} ({hardware['instruction_class']}), "
        f"{hardware['cores']} cores, Python {versions['python']}, Pillow {versions['pillow']}, "
        f"torch {versions['torch']}."
    )


def _cells(entry: dict[str, Any]) -> list[str]:
    faults = ", ".join(f"{number} {kind}" for kind, number in entry["faults"].items()) or "0"
    numbers = [f"{entry[name]:,}" for name in ("cases", "read", "refused")]
    return [*numbers, faults, f"{entry['seconds']:.2f} s", f"{max(entry['mib'], 0):.0f} MiB"]


def _sum(entries: list[dict[str, Any]]) -> dict[str, Any]:
    faults: dict[str, int] = {}
    for entry in entries:
        for kind, number in entry["faults"].items():
            faults[kind] = faults.get(kind, 0) + number
    total = {name: sum(entry[name] for entry in entries) for name in ("cases", "read", "refused")}
    worst = {name: max(entry[name] for entry in entries) for name in ("seconds", "mib")}
    return {**total, **worst, "faults": faults}


def _kills() -> list[str]:
    record = json.loads((RECORDS / "kills.json").read_text())
    counts = ", ".join(f"{number} in {name}" for name, number in record["kills"].items())
    middle = sum("writing" in fall["left"] for fall in record["falls"])
    result = "all to the same bits" if record["equal"] else f"with {len(record['differences'])} differences"
    return [
        f"{_where(record)} {record['total']} kills at random moments ({counts}), {middle} of them in the middle of "
        f"writing a file; the same commands then went on and ended {sum(record['ends'].values())} times, {result}."
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
