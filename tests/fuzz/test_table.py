"""The page of hostile files is made from the records, and what it promises is what they say."""

from __future__ import annotations

import json

from tests.fuzz import MODULES, table
from tests.fuzz.__main__ import short
from tests.fuzz.harness import families


def test_the_page_is_made_from_the_records():
    assert table.PAGE.read_text() == table.page()


def test_the_record_has_every_family_enough_cases_and_no_fault():
    record = json.loads((table.RECORDS / "cases.json").read_text())["modules"]
    assert {name: set(group) for name, group in record.items()} == {short(m): set(families(m)) for m in MODULES}
    cases = {name: sum(entry["cases"] for entry in group.values()) for name, group in record.items()}
    assert cases["images"] >= 10_000 and cases["image_bombs"] >= 200
    assert cases["archives"] + cases["parquet"] + cases["ilsvrc"] >= 300
    assert cases["stores"] >= 200 and cases["runs"] + cases["models"] >= 200
    entries = [entry for group in record.values() for entry in group.values()]
    assert [entry for entry in entries if entry["faults"] or entry["mib"] > 600] == []


def test_the_kills_all_ended_with_the_same_bits():
    record = json.loads((table.RECORDS / "kills.json").read_text())
    assert record["total"] >= 100 and record["equal"] and not record["differences"]
