"""The tables people read, made from the records.

    python -m experiments.table

writes the results of trainings into README.md, those on few pictures apart, the measurements of speed into
docs/speed.md and docs/speed-tables.md, what the codecs of a store cost into docs/store.md, what lets the network start
into docs/start.md, and the ledger of claims into docs/claims.md.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet.reproduce import page as ledger
from alexnet.reproduce.records import PACKAGE, read_records
from benchmarks import codecs as cost
from benchmarks import records as speed
from benchmarks.records import Result
from benchmarks.tables import BRIEF, HEAD, brief, cells, digits, markdown
from experiments import codecs, precisions, start
from experiments.own_pictures import MAKERS
from experiments.real_images import EXPERIMENTS
from experiments.records import RECORDS, TrainingRecord, load

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "benchmarks" / "records"
OWN_BEGIN, OWN_END = "<!-- own pictures: made by python -m experiments.table -->", "<!-- /own pictures -->"
BEGIN, END = "<!-- results: made by python -m experiments.table -->", "<!-- /results -->"
SPEED_BEGIN, SPEED_END = "<!-- measurements: made by python -m experiments.table -->", "<!-- /measurements -->"
CODEC_BEGIN, CODEC_END = "<!-- codecs: made by python -m experiments.table -->", "<!-- /codecs -->"
EFFECT_BEGIN = "<!-- accuracy of codecs: made by python -m experiments.table -->"
EFFECT_END = "<!-- /accuracy of codecs -->"
PRECISION_BEGIN = "<!-- precisions: made by python -m experiments.table -->"
PRECISION_END = "<!-- /precisions -->"
CLAIMS_BEGIN, CLAIMS_END = "<!-- claims: made by python -m experiments.table -->", "<!-- /claims -->"
PAPER_BEGIN, PAPER_END = "<!-- paper's tables: made by python -m experiments.table -->", "<!-- /paper's tables -->"
START_BEGIN, START_END = "<!-- {}: made by python -m experiments.table -->", "<!-- /{} -->"
NOT_YET = "Not measured yet."
COLUMNS = ("preset", "images", "views", "top-1 error", "top-5 error", "n", "training", "published")
START_COLUMNS = ("changed", "started", "loss after 600 steps", "silent units of fc7", "n")
WATCHED = (20, 100, 200, 300)  # steps of the network at full size
OWN_COLUMNS = ("pictures", "test", "most frequent class", "top-1 error", "10 views", "n", "training")
CODEC_COLUMNS = ("codec", "KB an image", "mean error", "µs a crop", "times as fast as JPEG of quality 90")
HEADLINE_BEGIN = "<!-- speed in short: made by python -m experiments.table -->"
HEADLINE_END = "<!-- /speed in short -->"
HEADLINES = (
    *(f"training step, paper, batch 128, {precision}" for precision in ("float32", "bfloat16")),
    *(f"centre view, batch {batch}, {precision}" for batch in (1, 32) for precision in ("float32", "bfloat16", "int8")),
    *(f"ten views, batch 1, {precision}" for precision in ("float32", "bfloat16", "int8")),
    "feed from a yuv420 store (256-pixel squares)",
    "alexnet predict on one image",
)
TITLES = {
    "train": "The training step",
    "parity": "The same losses",
    "lrn": "Normalization and update",
    "data": "Feeding and preparing",
    "predict": "Prediction",
}


def results_table(folder: Path = RECORDS) -> str:
    """Markdown: one row per record and number of views, in the order of `EXPERIMENTS`, and the records' notes."""
    apart = {*MAKERS, *(name for stores in codecs.NAMES.values() for name in stores.values())}
    names = [name for name in EXPERIMENTS if name not in apart]
    records = [record for name in names if (record := load(name, folder)) is not None]
    rows = [row for record in records for row in _training_rows(record)]
    notes = [f"- `{record.preset}`: {record.note}" for record in records if record.note]
    return "\n".join([markdown(COLUMNS, rows), "", *notes])


def own_table(folder: Path = RECORDS) -> str:
    """Markdown: one row per record of few pictures, its errors beside that of always answering one class."""
    return markdown(OWN_COLUMNS, [_own_row(record) for name in MAKERS if (record := load(name, folder)) is not None])


def accuracy_table(folder: Path = RECORDS) -> str:
    """Markdown: one row per preset that was trained from stores of several codecs, an error per codec."""
    rows = []
    for name, stores in codecs.NAMES.items():
        records = {codec: record for codec, other in stores.items() if (record := load(other, folder)) is not None}
        if records:
            record = next(iter(records.values()))
            run, images = record.runs[0], f"{record.data}, {record.runs[0].errors[0].split}"
            errors = [_error(records[c].named("top1_error_views_1") if c in records else None) for c in stores]
            images += f", {run.errors[0].count:,}"
            rows.append([f"`{name}`", images, str(run.epochs), *errors, str(len(record.runs))])
    head = ("preset", "images", "epochs", *(f"from {codec}" for codec in codecs.CODECS), "n")
    return markdown(head, rows) if rows else NOT_YET


def codec_tables(folder: Path = SPEED) -> str:
    """Markdown: for each kind of hardware a row per codec, as they were measured last."""
    parts = []
    for kind in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        newest = speed.latest(folder, kind)
        rows = [
            [
                name,
                f"{result.also['bytes'] / 1000:.1f}",
                f"{result.also['mean_error']:.2f}",
                digits(result.value),
                digits(result.ratio or 1),
            ]
            for name in cost.CODECS
            if (result := newest.get(cost.PREFIX + name, (None,))[0]) is not None
        ]
        if rows:
            record = newest[cost.PREFIX + rows[0][0]][1]
            parts.append(f"{record.hardware.title}, {record.date[:10]}.\n\n{markdown(CODEC_COLUMNS, rows)}")
    return "\n\n".join(parts) or NOT_YET


def precision_table(folder: Path = RECORDS) -> str:
    """Markdown: a row per run that was evaluated in every precision, its errors and what they are over float32's."""
    path = folder / f"{precisions.NAME}.json"
    if not path.is_file():
        return NOT_YET
    rows: dict[str, list[str]] = {}
    for result in speed.Record.from_json(json.loads(path.read_text())).results:
        what, _, _ = result.name.rpartition(", ")
        cost = f" ({result.also['points']:+.2f})" if result.peers else ""
        rows.setdefault(what, [what, f"{result.n:,}"]).append(f"{result.value:.2f} %{cost}")
    return markdown(("run, split", "images", "float32", "bfloat16", "int8"), rows.values())


def start_tables(folder: Path = RECORDS) -> dict[str, str]:
    """Markdown by name: what starts with one difference changed, what else was tried, what there is before step 1."""
    record = start.load(folder)
    if record is None:
        return dict.fromkeys(
            ("towards the code", "towards the paper", "tried", "full size", "signals", "conditions"), NOT_YET
        )
    small = {base: [arm for arm in start.ARMS if arm.base == base] for base in (start.LITERAL, start.CODE)}
    tried = [arm for arm in small[start.LITERAL] if arm.change in start.TRIED]
    parts = {
        "towards the code": [arm for arm in small[start.LITERAL] if arm not in tried],
        "towards the paper": small[start.CODE],
        "tried": tried,
    }
    tables = {name: markdown(START_COLUMNS, [_start_row(record, arm) for arm in arms]) for name, arms in parts.items()}
    head = ("preset", "changed", *(f"loss at step {step}" for step in WATCHED), "silent units of fc7", "n")
    rows = [row for name in (start.LITERAL, start.CODE) if (row := _first_steps(name, folder)) is not None]
    rows += [_whole_row(record.of(arm), arm) for arm in start.WHOLE if record.of(arm)]
    tables["full size"] = markdown(head, rows)
    return tables | {"signals": _signal_table(record), "conditions": _conditions(record)}


def _start_row(record: start.StartRecord, arm: start.Arm) -> list[str]:
    runs, result = record.of(arm), record.named(arm.name)
    assert result is not None and result.spread is not None
    steps = sorted(run.started for run in runs if run.started is not None and run.started <= start.STEPS)
    when = f", at step {_range(steps)}" if steps else ""
    loss = f"{result.value:.3f} ({result.spread[0]:.3f}–{result.spread[1]:.3f})"
    silent = _range([round(100 * run.silent) for run in runs])
    return [arm.change or "nothing", f"{len(steps)} of {len(runs)}{when}", loss, f"{silent} %", f"{len(runs)}"]


def _whole_row(runs: list[start.StartRun], arm: start.Arm) -> list[str]:
    silent = f"{_range([round(100 * run.silent) for run in runs])} %"
    losses = _losses([dict(run.loss_curve) for run in runs])
    return [f"`{arm.base}`", arm.change or "nothing", *losses, silent, f"{len(runs)}"]


def _first_steps(name: str, folder: Path) -> list[str] | None:
    """The row of a preset as it is, from the record of its own; None where there is none."""
    record = load(name, folder)
    if record is None:
        return None
    losses = _losses([dict(run.loss_curve) for run in record.runs])
    return [f"`{name}`", "nothing", *losses, "–", f"{len(record.runs)}"]


def _losses(curves: list[dict[int, float]]) -> list[str]:
    """The mean loss of several runs at each of the steps watched, a dash where they were shorter."""
    known = [[curve[step] for curve in curves if step in curve] for step in WATCHED]
    return [f"{statistics.mean(losses):.3f}" if losses else "–" for losses in known]


def _signal_table(record: start.StartRecord) -> str:
    both = f"{start.CODE}, "  # the code with the paper's σ is as the paper
    arms = [arm for arm in dict.fromkeys(signal.arm for signal in record.signals) if not arm.startswith(both)]
    shares = {(signal.arm, signal.layer): 100 * signal.differs / signal.level for signal in record.signals}
    layers = dict.fromkeys(signal.layer for signal in record.signals)
    rows = [[layer, *(f"{digits(shares[arm, layer])} %" for arm in arms)] for layer in layers]
    return markdown(("layer", *arms), rows)


def _conditions(record: start.StartRecord) -> str:
    seconds = sum(run.seconds for run in record.runs)
    about = f"{record.hardware.title}, torch {record.versions['torch']}, {record.date[:10]}"
    note = f" {record.note}" if record.note else ""
    return f"{len(record.runs)} runs, {seconds / 60:.0f} minutes of training in all; {about}.{note}"


def _range(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)}–{max(values)}"


def _own_row(record: TrainingRecord) -> list[str]:
    first = record.runs[0].errors[0]
    errors = [_error(record.named(f"top1_error_views_{views}")) for views in (1, 10)]
    training = f"at most {max(run.steps for run in record.runs):,} steps"
    return [record.data, f"{first.count}", f"{first.majority_error:.2f} %", *errors, str(len(record.runs)), training]


def _training_rows(record: TrainingRecord) -> list[list[str]]:
    first, n = record.runs[0], str(len(record.runs))
    minutes = sum(run.training_seconds for run in record.runs) / len(record.runs) / 60
    time = f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
    time += f", {first.threads} core{'s' if first.threads > 1 else ''}"
    published = record.published or "–"
    if not first.errors:
        (step, loss), (last_step, last_loss) = first.loss_curve[0], first.loss_curve[-1]
        losses = f"loss {loss:.2f} at step {step}, {last_loss:.2f} at step {last_step}"
        return [[f"`{record.preset}`", record.data, "–", losses, "–", n, f"{first.steps} steps, {time}", published]]
    rows = []
    for entry in first.errors:
        top1, top5 = (_error(record.named(f"top{k}_error_views_{entry.views}")) for k in (1, 5))
        images, spent = f"{record.data}, {entry.split}", f"{first.epochs} epochs, {time}"
        rows.append([f"`{record.preset}`", images, str(entry.views), top1, top5, n, spent, published])
    return rows


def _error(result: Result | None) -> str:
    if result is None:
        return "–"
    spread = f" ({result.spread[0]:.2f}–{result.spread[1]:.2f})" if result.spread and result.n > 1 else ""
    return f"{result.value:.2f} %{spread}"


def speed_tables(folder: Path = SPEED) -> str:
    """Markdown: for each kind of hardware and question a line per measurement, beside the best peer."""
    parts = []
    for title, known in _measured(folder):
        rows = [brief(result) for result in known if not _is_detail(result)]
        if rows:
            parts.append(f"{title}\n\n{markdown(BRIEF, rows)}")
    return "\n\n".join(parts)


def headline_table(folder: Path = SPEED) -> str:
    """Markdown: a row for each of `HEADLINES`, ours and the best peer on each kind of hardware that has them."""
    kinds = {path.name: speed.latest(folder, path.name) for path in sorted(folder.iterdir()) if path.is_dir()}
    kinds = {kind: known for kind, known in kinds.items() if any(name in known for name in HEADLINES)}
    hardware = [next(iter(known.values()))[1].hardware for known in kinds.values()]
    words = [f"{one.instruction_class}, {one.threads} threads" for one in hardware]
    head = ["measurement", *(word for kind in words for word in (kind, "best peer"))]
    rows = []
    for name in HEADLINES:
        found = [brief(known[name][0])[1:3] if name in known else ["–", "–"] for known in kinds.values()]
        rows.append([name, *(cell.partition(" (")[0] for pair in found for cell in pair)])
    return markdown(head, rows)


def all_speed_tables(folder: Path = SPEED) -> str:
    """Markdown: every measurement with all peers, layers in tables of their own."""
    parts = []
    for title, known in _measured(folder):
        head, _, about = title.partition("\n\n")
        for name, layers in ((head, False), (f"{head}, layer by layer", True)):
            rows = [cells(result) for result in known if _of_a_layer(result) == layers]
            if rows:
                parts.append(f"{name}\n\n{about}\n\n{markdown(HEAD, rows)}")
    return "\n\n".join(parts)


def _measured(folder: Path) -> Iterator[tuple[str, list[Result]]]:
    """For each kind of hardware and question its title, with what it was measured on, and the newest of each result."""
    for kind in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        newest = speed.latest(folder, kind)
        for question, title in TITLES.items():
            known = [(result, record) for result, record in newest.values() if record.name == question]
            known = [pair for pair in known if not pair[0].name.startswith(cost.PREFIX)]  # in a table of their own
            if known:
                record = max((record for _, record in known), key=lambda record: record.date)
                about = f"{record.hardware.title}, torch {record.versions['torch']}, {record.date[:10]}."
                heading = f"### {title} ({record.hardware.instruction_class})"
                yield f"{heading}\n\n{about}", [result for result, _ in known]


def _is_detail(result: Result) -> bool:
    """Whether it is left out of the short tables: layers, parts, the other memory layout, losses."""
    words = ("beside itself", "contiguous", "peak memory", "largest relative gap", "less the reference net")
    return _of_a_layer(result) or any(word in result.name for word in words)


def _of_a_layer(result: Result) -> bool:
    return "step" in result.peers or "layers, loss and update" in result.peers


def insert(text: str, content: str, begin: str = BEGIN, end: str = END) -> str:
    """A page with what stands between its marks replaced."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def pages() -> dict[Path, str]:
    """Every page with a table, as it should be."""
    records = read_records([PACKAGE])
    readme, page, store = ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "store.md"
    appendix = ROOT / "docs" / "speed-tables.md"
    first_steps = ROOT / "docs" / "start.md"
    begin = first_steps.read_text()
    for name, content in start_tables().items():
        begin = insert(begin, content, START_BEGIN.format(name), START_END.format(name))
    effects = insert(store.read_text(), accuracy_table(), EFFECT_BEGIN, EFFECT_END)
    results = insert(insert(readme.read_text(), results_table()), own_table(), OWN_BEGIN, OWN_END)
    results = insert(results, ledger.headline(records), CLAIMS_BEGIN, CLAIMS_END)
    results = insert(results, ledger.small_tables(records), PAPER_BEGIN, PAPER_END)
    short = insert(page.read_text(), speed_tables(), SPEED_BEGIN, SPEED_END)
    return {
        **{ROOT / "docs" / name: text for name, text in ledger.markdown(records).items()},
        first_steps: begin,
        store: insert(effects, codec_tables(), CODEC_BEGIN, CODEC_END),
        readme: insert(results, headline_table(), HEADLINE_BEGIN, HEADLINE_END),
        page: insert(short, precision_table(), PRECISION_BEGIN, PRECISION_END),
        appendix: insert(appendix.read_text(), all_speed_tables(), SPEED_BEGIN, SPEED_END),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
