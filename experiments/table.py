"""The tables people read, made from the records.

    python -m experiments.table

writes the results of trainings into README.md and the figures of speed into docs/speed.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import records as speed

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: made by python -m experiments.table -->", "<!-- /results -->"


def records() -> list[dict[str, Any]]:
    """All records, in the order of `real_images.EXPERIMENTS`."""
    from experiments.real_images import EXPERIMENTS, RECORDS

    return [
        json.loads((RECORDS / f"{name}.json").read_text())
        for name in EXPERIMENTS
        if (RECORDS / f"{name}.json").exists()
    ]


def table() -> str:
    """Markdown: one row a record and number of views, and under the table the records' notes."""
    lines = [
        "| preset | images | views | top-1 error | top-5 error | n | training | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
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
            lines.append(
                f"| `{record['preset']}` | {record['data']}, {runs[0][f'views_{count}']['split']} | {count} | "
                f"{top1} | {top5} | {record['n']} | {spent} | {published} |"
            )
        if not views:
            first, last = runs[0]["loss_curve"][0], runs[0]["loss_curve"][-1]
            lines.append(
                f"| `{record['preset']}` | {record['data']} | – | loss {first[1]:.2f} at step {first[0]}, "
                f"{last[1]:.2f} at step {last[0]} | – | {record['n']} | {runs[0]['steps']} steps, {time}, "
                f"{threads} core{'s' if threads > 1 else ''} | {published} |"
            )
    notes = [f"- `{record['preset']}`: {record['note']}" for record in records() if record["note"]]
    return "\n".join([*lines, "", *notes])


def _cell(value: dict[str, float] | None, n: int) -> str:
    if value is None:
        return "–"
    spread = f" ({value['min']:.2f}–{value['max']:.2f})" if n > 1 else ""
    return f"{value['mean']:.2f} %{spread}"


SPEED_BEGIN, SPEED_END = "<!-- figures: made by python -m experiments.table -->", "<!-- /figures -->"
TITLES = {
    "train": "The training step",
    "parity": "The same losses",
    "lrn": "Normalization and update",
    "data": "Feeding and preparing",
    "predict": "Prediction",
}


def speed_tables() -> str:
    """Markdown: for each kind of machine and question the newest figure of each name."""
    parts = []
    for machine in sorted(path.name for path in (ROOT / "benchmarks" / "records").iterdir() if path.is_dir()):
        newest = speed.latest(ROOT / "benchmarks" / "records", machine)
        for question, title in TITLES.items():
            found = [(entry, record) for entry, record in newest.values() if record.question == question]
            whole = [entry for entry, _ in found if not _of_a_layer(entry)]
            layers = [entry for entry, _ in found if _of_a_layer(entry)]
            if not found:
                continue
            record = max((record for _, record in found), key=lambda record: record.date)
            about = f"{_machine(record)}, torch {record.versions['torch']}, {record.date[:10]}"
            for name, entries in ((title, whole), (f"{title}, layer by layer", layers)):
                if entries:
                    lines = [_row(entry) for entry in entries]
                    parts.append("\n".join([f"### {name}", "", about + ".", "", HEAD, "|---|---|---|---|---|", *lines]))
    return "\n\n".join(parts)


HEAD = "| figure | ours | peers | ratio to the first | limit |"


def _row(entry: dict[str, Any]) -> str:
    told = speed.told
    unit = f" {entry['unit']}" if entry["unit"] else ""
    spread = f" [{' '.join(told(value) for value in entry['spread'])}], n={entry['n']}" if entry["spread"] else ""
    peers = "; ".join(f"{name} {told(value)}" for name, value in entry.get("peers", {}).items())
    fraction = f", {entry['limit_fraction']:.0%} reached" if entry.get("limit_fraction") is not None else ""
    limit = f"{told(entry['limit'])}{unit} ({entry['limited_by']}){fraction}" if entry.get("limit") else ""
    ours = f"{told(entry['value'])}{unit}{spread}"
    return f"| {entry['name']} | {ours} | {peers} | {told(entry.get('ratio'))} | {limit} |"


def _of_a_layer(entry: dict[str, Any]) -> bool:
    peers = entry.get("peers", {})
    return "step" in peers or "layers, loss and update" in peers


def _machine(record: speed.Record) -> str:
    hardware = record.hardware
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
    return ", ".join([hardware["cpu"], threads, *hardware["gpus"]])


def insert(text: str, made: str, begin: str = BEGIN, end: str = END) -> str:
    """A page with what stands between its marks replaced."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    for page, made, marks in (
        (ROOT / "README.md", table(), (BEGIN, END)),
        (ROOT / "docs" / "speed.md", speed_tables(), (SPEED_BEGIN, SPEED_END)),
    ):
        page.write_text(insert(page.read_text(), made, *marks))
