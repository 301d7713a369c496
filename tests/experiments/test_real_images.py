"""An experiment on digits: trained by the command, measured, kept as a record, and told in the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexnet.environment import instruction_sets
from alexnet.errors import DataError
from alexnet.inference.evaluate import evaluate
from experiments import precisions, real_images, records, start, table
from experiments.real_images import EXPERIMENTS
from experiments.records import Errors, TrainingRun, summarize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of one epoch: `runs/` and `records/`."""
    folder = tmp_path_factory.mktemp("experiment")
    options = ["--runs", str(folder / "runs"), "--records", str(folder / "records"), "--note", "short"]
    real_images.main(["digits", "--seeds", "3", *options, "--epochs", "1"])
    return folder


def test_a_record_has_what_the_runs_measured(folder: Path) -> None:
    record = records.load("digits", folder / "records")
    assert record is not None
    assert record.note == "short" and record.commit == record.runs[-1].commit
    assert record.command == "alexnet train --preset digits --out runs/digits --seed 3 --epochs 1"
    assert record.hardware.instruction_class == instruction_sets()[1] and record.versions["torch"]
    (run,) = record.runs
    assert run.seed == 3 and run.epochs == 1 and run.steps > 0
    assert run.training_seconds > 0 and run.images_per_second > 0
    assert [entry.views for entry in run.errors] == [1, 5] and len(run.validation) == 1
    result = evaluate(str(folder / "runs" / "experiment-digits-3")).to_json()
    assert run.errors[0].top1_error == result["top1_error"] and run.errors[0].split == "test"


def test_finished_runs_are_measured_without_training(folder: Path, tmp_path: Path) -> None:
    run = folder / "runs" / "experiment-digits-3"
    record = real_images.main(["digits", "--run", str(run), "--records", str(tmp_path)])
    assert [one.seed for one in record.runs] == [3]
    assert records.load("digits", tmp_path) == record


def test_the_table_has_a_row_per_number_of_views(folder: Path) -> None:
    text = table.results_table(folder / "records")
    rows = [line for line in text.splitlines() if line.startswith("| `digits`")]
    assert [row.split(" | ")[2] for row in rows] == ["1", "5"]
    record = records.load("digits", folder / "records")
    assert record is not None
    error = record.named("top1_error_views_5")
    assert error is not None and f"| {error.value:.2f} % |" in rows[1]
    assert text.endswith("- `digits`: short")


def test_a_summary_is_the_mean_with_the_range_and_leaves_out_what_is_not_there() -> None:
    runs = [
        TrainingRun(0, 1, 10, 1.0, False, 1, 100.0, None, (Errors(1, "test", 10, value, None, 0.5),))
        for value in (1.0, 2.0, 6.0)
    ]
    (result,) = summarize(runs, (1, 5))
    assert (result.name, result.value, result.spread, result.n) == ("top1_error_views_1", 3.0, (1.0, 6.0), 3)


def test_every_record_in_the_tree_is_read_and_of_a_known_experiment() -> None:
    paths = sorted(path for path in records.RECORDS.glob("*.json") if path.stem not in (precisions.NAME, start.NAME))
    assert paths
    for path in paths:
        record = records.load(path.stem)
        assert record is not None and record.name == path.stem and record.preset == EXPERIMENTS[path.stem].preset
        assert summarize(record.runs, [entry.views for entry in record.runs[0].errors]) == record.results


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text(json.dumps({"name": "digits"}))
    with pytest.raises(DataError, match="not a TrainingRecord"):
        records.load("digits", tmp_path)
