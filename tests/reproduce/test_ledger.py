"""Verdicts from records with known values: paired, apart, over images, and what is missing."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import DataError
from alexnet.reproduce.claims import CLAIMS, Claim, Comparison, Side, claim_of
from alexnet.reproduce.ledger import NOT_RUN, TOO_FEW, main_outcome, outcome, outcomes, rows, verdict_at
from alexnet.reproduce.records import read_records
from tests.reproduce.made import predict, record

COMPARISON = Comparison("a", Side("paper"), Side("no-lrn"), ("digits",))
CLAIM = Claim(3, "§3.3", "A title", "A statement.", ("−1.4",), (COMPARISON,))


def save(folder: Path, arm: str, values: dict[int, float], metric: str = "top1_error") -> None:
    for seed, value in values.items():
        record(arm, seed, **{metric: value}).save(folder)


def test_differences_are_paired_by_seed_and_positive_on_the_claimed_side(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0, 1: 20.0, 2: 30.0})
    save(tmp_path, "no-lrn", {0: 11.0, 1: 21.5, 2: 30.5})
    one = outcome(read_records([tmp_path]), CLAIM, COMPARISON, "digits")
    assert one.interval is not None and one.interval.paired and one.n == 3
    assert one.interval.mean == pytest.approx(1.0)
    half = 4.302653 * 0.5 / 3**0.5  # t(0.975, 2) · s / √n
    assert (one.interval.low, one.interval.high) == (
        pytest.approx(1 - half, abs=1e-5),
        pytest.approx(1 + half, abs=1e-5),
    )
    assert one.verdict == "same direction"
    assert one.seconds == 60 and len(one.runs) == 6


def test_where_the_higher_value_is_claimed_the_sign_is_the_other(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0, 1: 20.0})
    save(tmp_path, "no-lrn", {0: 5.0, 1: 15.01})
    higher = Comparison("a", Side("paper"), Side("no-lrn"), ("digits",), direction="higher")
    found = read_records([tmp_path])
    assert outcome(found, CLAIM, higher, "digits").verdict == "confirmed"
    assert outcome(found, CLAIM, COMPARISON, "digits").verdict == "refuted"


def test_seeds_that_only_one_arm_has_are_left_out(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0, 1: 20.0, 4: 99.0})
    save(tmp_path, "no-lrn", {0: 12.0, 1: 22.0, 3: 0.0})
    one = outcome(read_records([tmp_path]), CLAIM, COMPARISON, "digits")
    assert one.better == (10.0, 20.0) and one.worse == (12.0, 22.0) and one.verdict == "confirmed"


def test_arms_without_seeds_in_common_are_compared_apart(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0, 1: 11.0})
    save(tmp_path, "no-lrn", {2: 30.0, 3: 31.0})
    one = outcome(read_records([tmp_path]), CLAIM, COMPARISON, "digits")
    assert one.interval is not None and not one.interval.paired
    assert one.interval.mean == pytest.approx(20) and one.verdict == "confirmed"


def test_too_few_seeds_and_missing_arms_have_no_verdict(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0})
    found = read_records([tmp_path])
    one = outcome(found, CLAIM, COMPARISON, "digits")
    assert (one.verdict, one.missing) == (NOT_RUN, "no record of no-lrn")
    save(tmp_path, "no-lrn", {0: 12.0})
    one = outcome(read_records([tmp_path]), CLAIM, COMPARISON, "digits")
    assert one.verdict == TOO_FEW and "at least two seeds" in one.missing and one.interval is None


def test_five_nets_are_compared_over_images(tmp_path: Path) -> None:
    """Two networks that are never wrong together: their average is right wherever one is sure."""
    wrong = np.zeros((2, 200), bool)
    wrong[0, :40], wrong[1, 40:80] = True, True
    for seed in (0, 1):
        record("paper", seed, top1_error_views=20.0).save(tmp_path)
        predict(tmp_path, "paper", seed, "views", wrong[seed])
    claim = claim_of(11)
    one = outcome(read_records([tmp_path]), claim, claim.comparisons[0], "digits")
    assert one.interval is not None and one.interval.n == 200
    assert one.interval.mean == pytest.approx(20)  # each errs on a fifth, the average on none
    assert one.better == (0.0, 0.0) and one.verdict == "confirmed"


def test_rivals_are_compared_over_the_same_images(tmp_path: Path) -> None:
    claim = claim_of(13)
    for seed, arm, kind, count in (
        (0, "paper", "views", 10),
        (0, "sift-fv", "centre", 90),
        (0, "sparse-coding", "centre", 95),
    ):
        record(arm, seed, top1_error=count / 4, top1_error_views=count / 4).save(tmp_path)
        predict(tmp_path, arm, seed, kind, np.arange(400) < count)
    found = outcomes(read_records([tmp_path]), [claim], ["digits"])
    assert [one.interval and round(one.interval.mean, 6) for one in found] == [21.25, 20.0]
    assert verdict_at(found) == "confirmed"
    predict(tmp_path, "sift-fv", 0, "centre", np.arange(300) < 30)
    with pytest.raises(DataError, match="other images"):
        outcomes(read_records([tmp_path]), [claim], ["digits"])


def test_a_claims_verdict_is_the_weakest_that_decides(tmp_path: Path) -> None:
    save(tmp_path, "paper", {0: 10.0, 1: 10.0}, "top1_error")
    save(tmp_path, "no-conv3", {0: 12.0, 1: 12.0})
    found = outcomes(read_records([tmp_path]), [claim_of(9)], ["digits"])
    assert verdict_at(found) == "confirmed" and main_outcome(found).comparison.worse.arm == "no-conv3"
    assert verdict_at(outcomes(read_records([tmp_path]), [claim_of(9)], ["cifar10"])) == NOT_RUN


def test_there_is_a_row_for_every_claim_and_its_best_scale(tmp_path: Path) -> None:
    for scale, worse in (("digits", 9.0), ("cifar10", 12.0)):
        for seed in (0, 1):
            record("paper", seed, scale, top1_error=10.0).save(tmp_path)
            record("no-lrn", seed, scale, top1_error=worse + seed / 10).save(tmp_path)
    table = rows(read_records([tmp_path]))
    assert [row.claim for row in table] == list(CLAIMS)
    assert table[2].verdicts == {"digits": "refuted", "cifar10": "confirmed"}
    assert table[2].best == ("confirmed", "cifar10") and table[16].best == (NOT_RUN, "")
    assert table[2].scales["cifar10"][0].to_json()["interval"] is not None
