"""What runs cost is said from the newest record on this kind of processor, or from a probe."""

from pathlib import Path

import pytest

from alexnet.config import Config
from alexnet.reproduce.cost import cost_of, step_seconds
from alexnet.reproduce.records import Records, read_records
from alexnet.reproduce.scales import ARMS, SCALES, config_of
from alexnet.reproduce.work import Job
from tests.reproduce.made import record


def test_the_cost_is_that_of_the_newest_record_on_this_kind_of_processor(tmp_path: Path) -> None:
    record("paper", 0, seconds=100.0).save(tmp_path)
    record("paper", 1, seconds=40.0).save(tmp_path)  # made later
    known = read_records([tmp_path])
    jobs = [Job(SCALES["digits"], ARMS["paper"], seed) for seed in (2, 3, 4)]

    def never(config: Config) -> float:
        raise AssertionError("a record is known")

    cost = cost_of(jobs, known, "avx2, 1 thread", never)
    assert cost.seconds == 120 and cost.basis == "the record of 2026-11-21"
    less = cost_of([Job(SCALES["digits"], ARMS["one-column"], 0)], known, "avx2, 1 thread", never)
    assert 0.4 * 40 < less.seconds < 0.7 * 40  # by its connections


def test_on_another_processor_the_cost_is_probed(tmp_path: Path) -> None:
    record("paper", 0, seconds=100.0).save(tmp_path)
    job = Job(SCALES["digits"], ARMS["paper"], 1)
    cost = cost_of([job], read_records([tmp_path]), "neon, 8 threads", lambda config: 0.01)
    assert cost.basis == "a probe of this machine"
    assert cost.seconds == pytest.approx(0.01 * 5 * config_of(job.arm, job.scale, 1).train.epochs)


def test_a_probe_is_the_time_of_a_step() -> None:
    assert 0 < step_seconds(config_of(ARMS["paper"], SCALES["digits"], 0), 1, "cpu") < 5


def test_baselines_that_were_not_timed_here_are_said_to_be_missing() -> None:
    jobs = [Job(SCALES["digits"], ARMS[arm], 0) for arm in ("paper", "sift-fv")]
    cost = cost_of(jobs, Records({}, {}), "avx2, 1 thread", lambda config: 0.01)
    assert cost.seconds == pytest.approx(5) and "without the baselines" in cost.basis
