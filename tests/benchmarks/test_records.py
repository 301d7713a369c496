"""Figures, their records, and the comparison with the last record of the same machine kind."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import records
from benchmarks.records import Record, comparison, fallen, figure, latest, save, table, take_turns


def record(ratio: float, date: str = "2026-01-01T00:00:00Z", **changes: Any) -> Record:
    entry = figure("a step", {"ours": [1.0], "theirs": [ratio]}, "ours", ["theirs"], unit="s")
    facts = {
        "question": "train",
        "machine": "some-cpu-2-threads",
        "hardware": {"cpu": "Some CPU", "cores": 2, "threads": 2, "gpus": []},
        "versions": {"torch": "2.11"},
        "date": date,
        "commit": "abc",
        "command": ["alexnet", "bench"],
        "figures": [entry],
    }
    return Record(**{**facts, **changes})


def test_contenders_take_turns_and_the_first_turns_are_not_kept() -> None:
    calls: list[str] = []
    ticks = iter(range(100))
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 1, lambda: next(ticks))
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_a_time_is_better_than_its_peer_when_it_is_less() -> None:
    entry = figure("f", {"ours": [0.1, 0.2, 0.4], "theirs": [0.6]}, "ours", ["theirs"], limit=100)
    assert entry["value"] == 200 and entry["unit"] == "ms" and entry["spread"] == [100, 400] and entry["n"] == 3
    assert entry["peers"] == {"theirs": 600} and entry["ratio"] == 3 and entry["limit_fraction"] == 0.5


def test_a_rate_is_better_than_its_peer_when_it_is_more() -> None:
    entry = figure("f", {"ours": [0.5], "theirs": [2.0]}, "ours", ["theirs"], work=32, unit="images/s", limit=128)
    assert entry["value"] == 64 and entry["peers"] == {"theirs": 16} and entry["ratio"] == 4
    assert entry["limit_fraction"] == 0.5


def test_a_figure_without_peer_or_limit_has_neither_ratio_nor_fraction() -> None:
    entry = figure("f", {"ours": [0.5]}, "ours", [], unit="s")
    assert entry["ratio"] is None and entry["limit_fraction"] is None and entry["value"] == 0.5


def known(old: Record) -> dict[str, Any]:
    return {entry["name"]: (entry, old) for entry in old.figures}


@pytest.mark.parametrize(("before", "now", "named"), [(2.0, 1.79, 1), (2.0, 1.81, 0), (2.0, 3.0, 0)])
def test_a_ratio_that_fell_by_more_than_a_tenth_is_named(before: float, now: float, named: int) -> None:
    assert len(fallen(record(now), known(record(before)))) == named


def test_the_comparison_names_the_figure_with_both_ratios() -> None:
    assert "a step: ratio 2.00 on 2026-01-01 at abc → 1.00 (-50%)" in comparison(record(1.0), known(record(2.0)))
    assert comparison(record(2.0), known(record(2.0))).startswith("none of the 1 ratios")
    assert comparison(record(2.0), {}).startswith("these are the first figures of train")


def test_a_figure_that_is_new_is_not_compared() -> None:
    assert fallen(record(1.0), known(record(9.0, figures=[]))) == []


def test_the_newest_figure_of_each_name_on_this_machine_is_found(tmp_path: Path) -> None:
    for date in ("2026-01-02T10:00:00Z", "2026-01-03T10:00:00Z", "2026-01-01T10:00:00Z"):
        save(tmp_path, record(1.0, date))
    other = record(1.0).figures[0] | {"name": "another"}
    save(tmp_path, record(1.0, "2026-01-01T12:00:00Z", question="data", figures=[other]))
    save(tmp_path, record(1.0, "2026-01-05T10:00:00Z", machine="another"))
    found = latest(tmp_path, "some-cpu-2-threads")
    assert {name: of.date for name, (_, of) in found.items()} == {
        "a step": "2026-01-03T10:00:00Z",
        "another": "2026-01-01T12:00:00Z",
    }


def test_a_broken_record_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, record(1.0))
    (tmp_path / "some-cpu-2-threads" / "train-2027.json").write_text("{")
    assert latest(tmp_path, "some-cpu-2-threads")["a step"][1].date == "2026-01-01T00:00:00Z"


def test_a_record_is_kept_under_machine_question_and_date(tmp_path: Path) -> None:
    path = save(tmp_path, record(1.0))
    assert path == tmp_path / "some-cpu-2-threads" / "train-2026-01-01T000000Z.json"
    assert set(json.loads(path.read_text())) == set(Record.__dataclass_fields__)


def test_the_table_shows_figure_peer_ratio_limit_and_hardware() -> None:
    entry = figure("a step", {"ours": [0.5], "theirs": [2.0]}, "ours", ["theirs"], unit="s", limit=0.25)
    text = table(record(1.0, figures=[entry]))
    assert text.startswith("Some CPU, 2 threads, torch 2.11")
    assert all(word in text for word in ("a step", "0.5 s", "theirs", "4", "0.25", "50%"))


def test_figures_of_other_shapes_are_told_too() -> None:
    entry = {"name": "opening a store", "value": 0.2, "unit": "s", "megabytes": 12}
    assert "opening a store: 0.2 s" in records.line(entry)
    assert "opening a store" in table(record(1.0, figures=[entry]))


def test_machines_of_one_kind_share_a_name() -> None:
    kind = records.machine_kind({"cpu": "AMD EPYC 9V74 (x)", "threads": 1, "gpus": ["NVIDIA H100"]})
    assert kind == "amd-epyc-9v74-x-1-thread-nvidia-h100"
