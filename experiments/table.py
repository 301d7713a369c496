"""The README's table of results, made from the records: `python -m experiments.table` writes it into README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: made by python -m experiments.table -->", "<!-- /results -->"


def records() -> list[dict[str, Any]]:
    """All records, in the order of `real_images.EXPERIMENTS`."""
    from experiments.real_images import EXPERIMENTS, RECORDS

    return [json.loads((RECORDS / f"{name}.json").read_text()) for name in EXPERIMENTS
            if (RECORDS / f"{name}.json").exists()]


def table() -> str:
    """Markdown: one row a record and number of views, and under the table the records' notes."""
    lines = ["| preset | images | views | top-1 error | top-5 error | n | training | published |",
             "|---|---|---|---|---|---|---|---|"]
    for record in records():
        runs = record["runs"]
        threads = runs[0]["threads"]
        minutes = sum(run["training_seconds"] for run in runs) / len(runs) / 60
        time = f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        spent = f"{runs[0]['epochs']} epochs, {time}, {threads} core{'s' if threads > 1 else ''}"
        published = record["published"] or "–"
        views = sorted({int(key.rpartition("_")[2]) for key in record["summary"]})
        for count in views:
            top1 = _cell(record["summary"].get(f"top1_error_views_{count}"), record["n"])
            top5 = _cell(record["summary"].get(f"top5_error_views_{count}"), record["n"])
            lines.append(f"| `{record['preset']}` | {record['data']}, {runs[0][f'views_{count}']['split']} | {count} | "
                         f"{top1} | {top5} | {record['n']} | {spent} | {published} |")
        if not views:
            first, last = runs[0]["loss_curve"][0], runs[0]["loss_curve"][-1]
            lines.append(f"| `{record['preset']}` | {record['data']} | – | loss {first[1]:.2f} at step {first[0]}, "
                         f"{last[1]:.2f} at step {last[0]} | – | {record['n']} | {runs[0]['steps']} steps, {time}, "
                         f"{threads} core{'s' if threads > 1 else ''} | {published} |")
    notes = [f"- `{record['preset']}`: {record['note']}" for record in records() if record["note"]]
    return "\n".join([*lines, "", *notes])


def _cell(value: dict[str, float] | None, n: int) -> str:
    if value is None:
        return "–"
    spread = f" ({value['min']:.2f}–{value['max']:.2f})" if n > 1 else ""
    return f"{value['mean']:.2f} %{spread}"


def insert(text: str) -> str:
    """The README with its table replaced by what the records say now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(insert(readme.read_text()))
