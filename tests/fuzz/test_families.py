"""A few seeds of every family of hostile inputs; the long run is `make fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz import MODULES
from tests.fuzz.harness import families, run

SEEDS = 3


@pytest.mark.parametrize("module", MODULES)
def test_no_input_of_a_family_is_a_fault(module):
    outcomes = list(run(module, range(SEEDS)))
    assert len(outcomes) == SEEDS * len(families(module))
    assert [outcome for outcome in outcomes if outcome.fault] == []
