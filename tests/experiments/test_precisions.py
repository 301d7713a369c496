"""A trained run's error in each precision, as a record and as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import alexnet
from alexnet.engine import library
from benchmarks.records import Record, Result, make_record
from experiments import precisions, table


@pytest.mark.skipif(library.library() is None, reason="no compiled library here, or switched off")
def test_a_run_is_evaluated_in_each_precision(tmp_path: Path) -> None:
    alexnet.train("digits", tmp_path / "run", epochs=1)
    record = precisions.main([str(tmp_path / "run"), "--records", str(tmp_path)])
    assert Record.from_json(json.loads((tmp_path / "precisions.json").read_text())) == record
    assert [result.name for result in record.results] == [f"run, test, {p}" for p in ("float32", "bfloat16", "int8")]
    exact, *others = record.results
    assert exact.also["points"] == 0 and exact.n == 355
    assert all(abs(result.also["points"] - (result.value - exact.value)) < 1e-3 for result in others)
    assert table.precision_table(tmp_path).count("| run, test | 355 |") == 1


def test_the_table_has_what_each_costs(tmp_path: Path) -> None:
    assert table.precision_table(tmp_path) == "Not measured yet."
    results = [
        Result(f"net, val, {name}", 60 + at, "%", n=10_000, peers={"float32": 60.0} if at else {}, also={"points": at})
        for name, at in (("float32", 0), ("bfloat16", 0.01), ("int8", -0.25))
    ]
    (tmp_path / "precisions.json").write_text(json.dumps(make_record("precisions", results).to_json()))
    assert table.precision_table(tmp_path).splitlines()[2] == (
        "| net, val | 10,000 | 60.00 % | 60.01 % (+0.01) | 59.75 % (-0.25) |"
    )
