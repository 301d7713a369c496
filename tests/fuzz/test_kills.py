"""A training and a preparation that are killed once each end as if they had not been; the long run is `make fuzz`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fuzz.kills import ACTIVITIES, Killer


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_what_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    killer = Killer(tmp_path, seed=0)
    for activity in (ACTIVITIES[0], ACTIVITIES[2]):
        killer.kill(activity, 1)
    record = killer.record.to_json()
    assert record["total"] == 2 and record["differences"] == []
