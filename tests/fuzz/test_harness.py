"""The harness notices every kind of fault, planted one by one."""

from __future__ import annotations

from tests.fuzz import planted
from tests.fuzz.harness import run


def test_every_planted_fault_is_noticed_for_what_it_is():
    outcomes = {outcome.family: outcome for outcome in run("tests.fuzz.planted", range(1))}
    kinds = {name: outcome.kind for name, outcome in outcomes.items()}
    assert kinds == {family.name: planted.EXPECTED.get(family.name, family.name) for family in planted.FAMILIES}
    assert 79 < outcomes["memory"].memory < 120
    assert "invalid literal" in outcomes["traceback"].text
