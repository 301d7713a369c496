"""Results, their records, and the comparison with the last record of the same kind of hardware."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.environment import instruction_sets
from alexnet.errors import DataError
from benchmarks import registry, tables
from benchmarks.records import Hardware, Known, Record, Result, comparison, latest, regressions, save
from benchmarks.timing import compare_times, summarize, take_turns

HARDWARE = Hardware("Some CPU", 2, 2, (), "avx2", ("avx", "avx2", "fma"))


def record(ratio: float, date: str = "2026-01-01T00:00:00Z", **changes: Any) -> Record:
    result = compare_times("a step", {"ours": [1.0], "theirs": [ratio]}, "ours", ["theirs"], unit="s")
    facts = {
        "name": "train",
        "results": (result,),
        "command": "alexnet bench train",
        "hardware": HARDWARE,
        "versions": {"torch": "2.11"},
        "date": date,
        "commit": "abc",
    }
    return Record(**{**facts, **changes})


def test_contenders_take_turns_and_the_first_turns_are_not_kept() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return len(calls)

    seconds = take_turns({"a": "a", "b": "b"}, 2, 1, measure)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [3, 5], "b": [4, 6]}


def test_a_contender_is_called_once_per_turn() -> None:
    calls: list[int] = []
    seconds = take_turns({"a": lambda: calls.append(1)}, turns=3, warm=2)
    assert len(calls) == 5 and len(seconds["a"]) == 3 and min(seconds["a"]) >= 0


def test_a_time_is_better_than_its_peer_when_it_is_less() -> None:
    times = {"ours": [0.1, 0.2, 0.4], "theirs": [0.6]}
    result = compare_times("f", times, "ours", ["theirs"], reference_rate=100)
    assert result.value == 200 and result.unit == "ms" and result.spread == (100, 400) and result.n == 3
    assert result.peers == {"theirs": 600} and result.ratio == 3 and result.fraction_of_reference == 0.5


def test_a_rate_is_better_than_its_peer_when_it_is_more() -> None:
    times = {"ours": [0.5], "theirs": [2.0]}
    result = compare_times("f", times, "ours", ["theirs"], work=32, unit="images/s", reference_rate=128)
    assert result.value == 64 and result.peers == {"theirs": 16} and result.ratio == 4
    assert result.fraction_of_reference == 0.5


def test_a_result_without_peer_or_reference_has_neither_ratio_nor_fraction() -> None:
    result = compare_times("f", {"ours": [0.5]}, "ours", unit="s")
    assert result.ratio is None and result.fraction_of_reference is None and result.value == 0.5


def test_a_summary_is_the_median_with_the_range() -> None:
    result = summarize("f", [3.0, 1.0, 2.00001], "%", reference_rate=5.0)
    assert (result.value, result.spread, result.n, result.reference_rate) == (2.0, (1.0, 3.0), 3, 5.0)


def known(old: Record) -> Known:
    return {result.name: (result, old) for result in old.results}


@pytest.mark.parametrize(("before", "now", "named"), [(2.0, 1.79, 1), (2.0, 1.81, 0), (2.0, 3.0, 0)])
def test_a_ratio_that_fell_by_more_than_a_tenth_is_named(before: float, now: float, named: int) -> None:
    assert len(regressions(record(now), known(record(before)))) == named


def test_the_comparison_names_the_result_with_both_ratios() -> None:
    assert "a step: ratio 2.00 on 2026-01-01 at abc → 1.00 (-50%)" in comparison(record(1.0), known(record(2.0)))
    assert comparison(record(2.0), known(record(2.0))).startswith("none of the 1 ratios")
    assert comparison(record(2.0), {}) == "these are the first results of train on avx2-2-threads"


def test_a_result_that_is_new_is_not_compared() -> None:
    assert regressions(record(1.0), known(record(9.0, results=()))) == []


def test_the_newest_result_of_each_name_on_this_kind_of_hardware_is_found(tmp_path: Path) -> None:
    for date in ("2026-01-02T10:00:00Z", "2026-01-03T10:00:00Z", "2026-01-01T10:00:00Z"):
        save(tmp_path, record(1.0, date))
    other = dataclasses.replace(record(1.0).results[0], name="another")
    save(tmp_path, record(1.0, "2026-01-01T12:00:00Z", name="data", results=(other,)))
    wider = dataclasses.replace(HARDWARE, instruction_class="avx512-bf16")
    save(tmp_path, record(1.0, "2026-01-05T10:00:00Z", hardware=wider))
    assert {name: of.date for name, (_, of) in latest(tmp_path, "avx2-2-threads").items()} == {
        "a step": "2026-01-03T10:00:00Z",
        "another": "2026-01-01T12:00:00Z",
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "train"}', '{"figures": []}'])
def test_a_broken_record_is_passed_over(tmp_path: Path, content: str) -> None:
    save(tmp_path, record(1.0))
    (tmp_path / "avx2-2-threads" / "train-2027.json").write_text(content)
    assert latest(tmp_path, "avx2-2-threads")["a step"][1].date == "2026-01-01T00:00:00Z"


def test_a_record_is_kept_by_hardware_name_and_date_and_read_back(tmp_path: Path) -> None:
    result = Result("waiting", 0.69, "%", (0.01, 1.44), 3, "store", {"theirs": 2.0}, (1.0, 3.0), also={"MB": 12.0})
    written = record(1.0, results=(result,))
    path = save(tmp_path, written)
    assert path == tmp_path / "avx2-2-threads" / "train-2026-01-01T000000Z.json"
    assert Record.from_json(json.loads(path.read_text())) == written


@pytest.mark.parametrize(
    ("change", "named"),
    [({"figures": []}, "figures"), ({"results": [{"name": "a"}]}, "value"), ({"hardware": None}, "items")],
)
def test_a_record_of_another_form_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=f"not a Record: .*{named}"):
        Record.from_json({**record(1.0).to_json(), **change})


def test_a_text_table_shows_result_peer_ratio_reference_and_hardware() -> None:
    times = {"ours": [0.5], "theirs": [2.0], "others": [3.0]}
    result = compare_times("a step", times, "ours", ["theirs", "others"], unit="s", reference_rate=0.25)
    text = tables.text_table(record(1.0, results=(result,)))
    assert text.startswith("Some CPU (avx2), 2 threads, torch 2.11")
    assert all(word in text for word in ("a step", "0.5 s [0.5 0.5], n=1", "theirs 2", "4", "0.25 s, 50% of it"))
    assert "others" not in text
    assert "theirs 2; others 3" in tables.markdown(tables.HEAD, [tables.cells(result)])


def test_a_line_has_what_is_known_and_no_more() -> None:
    assert tables.line(Result("opening a store", 0.2, "s")) == "opening a store: 0.2 s"
    known_more = Result("f", 1234.5, "ms", by="ours", peers={"theirs": 2.5}, reference_rate=1.0, reference_basis="aim")
    assert tables.line(known_more) == "f by ours: 1,234 ms; theirs 2.5; reference 1 ms (aim)"


def test_hardware_is_one_kind_by_instructions_threads_and_gpus_whatever_its_name() -> None:
    epyc = Hardware("AMD EPYC 9V74 (x)", 4, 1, ("NVIDIA H100",), "avx512-bf16", ("avx512f",))
    xeon = Hardware("Intel Xeon", 64, 1, ("NVIDIA H100",), "avx512-bf16")
    assert epyc.kind == xeon.kind == "avx512-bf16-1-thread-nvidia-h100"
    assert dataclasses.replace(xeon, instruction_class="avx512").kind != xeon.kind
    assert dataclasses.replace(xeon, threads=2).kind != xeon.kind


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"sse4_2", "avx", "avx2", "fma"}, "avx2"),
        ({"avx2", "fma", "avx512f", "avx512vl"}, "avx512"),
        ({"avx2", "fma", "avx512f", "avx512_bf16"}, "avx512-bf16"),
        ({"avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}, "amx-bf16"),
        ({"asimd", "bf16", "fp"}, "neon-bf16"),
    ],
)
def test_a_processor_is_of_the_widest_class_whose_instructions_it_has(flags: set[str], name: str) -> None:
    vector, kind = instruction_sets(flags)
    assert kind == name
    assert set(vector) <= flags and list(vector) == sorted(vector)


def test_records_in_the_tree_are_of_the_hardware_they_lie_under() -> None:
    paths = list(registry.RECORDS.glob("*/*.json"))
    assert paths
    for path in paths:
        record = Record.from_json(json.loads(path.read_text()))
        assert path.parent.name == record.hardware.kind, path
        assert path.name.startswith(record.name), path
