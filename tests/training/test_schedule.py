"""When the rate drops: on plateaus of the validation error, at given epochs, and layers apart from the rest."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet import presets
from alexnet.checkpoint import read_record
from alexnet.config import Optimizer, Schedule
from alexnet.errors import UsageError
from alexnet.training.schedule import LayerLR, LRSchedule, ScheduleState


def groups() -> list[dict[str, Any]]:
    return [
        {"layer": layer, "kind": kind, "name": f"{layer}.{kind}", "lr": -1.0}
        for layer in ("conv1", "conv2", "fc8")
        for kind in ("weight", "bias")
    ]


def applied(schedule: LRSchedule, epoch: int) -> dict[str, float]:
    out = groups()
    schedule.apply(out, epoch)
    return {group["name"]: group["lr"] for group in out}


def plateau(**rest: Any) -> LRSchedule:
    settings = {"kind": "plateau", "patience": 3, "threshold": 0.5, "drops": 2, **rest}
    return LRSchedule(Schedule(**settings), Optimizer())


def run(schedule: LRSchedule, errors: list[float | None]) -> list[int]:
    """The epochs, counted from 1, after which the rate dropped."""
    return [epoch for epoch, error in enumerate(errors, 1) if schedule.after_epoch(epoch, error, 1000 * epoch)]


def test_the_rate_stays_while_the_error_improves() -> None:
    schedule = plateau()
    assert run(schedule, [60.0, 55.0, 50.0, 45.0, 40.0, 35.0, 30.0]) == []
    assert schedule.lr == 0.01


def test_the_rate_drops_tenfold_after_as_many_epochs_without_improvement_as_the_patience() -> None:
    schedule = plateau()
    assert run(schedule, [60.0, 50.0, 50.0, 50.0, 50.0]) == [5]
    assert schedule.lr == pytest.approx(0.001)


def test_patience_lasts_at_least_so_many_steps_where_epochs_are_short() -> None:
    schedule = plateau(patience=3, patience_steps=100)
    drops = [epoch for epoch in range(1, 26) if schedule.after_epoch(epoch, 50.0, 13 * epoch)]
    assert drops == [9, 17]  # 8 epochs of 13 steps are the first to make 100
    assert (schedule.state.decays, schedule.state.since, schedule.finished) == (2, 25 * 13, True)


def test_an_improvement_begins_the_patience_anew_in_steps_too() -> None:
    schedule = plateau(patience=1, patience_steps=30)
    assert [schedule.after_epoch(*line) for line in ((1, 60.0, 10), (2, 60.0, 20), (3, 50.0, 30))] == [False] * 3
    assert [schedule.after_epoch(*line) for line in ((4, 50.0, 40), (5, 50.0, 50), (6, 50.0, 60))] == [
        False,
        False,
        True,
    ]


def test_an_improvement_below_the_threshold_counts_as_none() -> None:
    assert run(plateau(), [50.0, 49.7, 49.6, 49.55]) == [4]


def test_small_improvements_that_add_up_to_the_threshold_count() -> None:
    assert run(plateau(), [50.0, 49.75, 49.5, 49.25, 49.0, 48.75, 48.5]) == []


def test_an_improvement_starts_the_patience_again() -> None:
    assert run(plateau(), [50.0, 50.0, 50.0, 40.0, 40.0, 40.0, 40.0]) == [7]


def test_a_drop_starts_the_patience_again() -> None:
    assert run(plateau(), [50.0] * 7) == [4, 7]


def test_a_worse_error_is_no_improvement_and_the_best_is_remembered() -> None:
    assert run(plateau(), [50.0, 70.0, 60.0, 50.0]) == [4]


def test_the_plateau_after_the_last_drop_ends_the_run() -> None:
    schedule = plateau()
    errors: list[float | None] = [50.0] * 9
    assert run(schedule, errors) == [4, 7]
    assert not schedule.finished
    assert not schedule.after_epoch(10, 50.0, 1000 * 10)
    assert schedule.finished
    assert schedule.lr == pytest.approx(0.0001)


def test_without_drops_the_first_plateau_ends_the_run() -> None:
    schedule = plateau(drops=0)
    assert run(schedule, [50.0] * 4) == []
    assert schedule.finished
    assert schedule.lr == 0.01


def test_the_paper_divides_three_times_in_all() -> None:
    schedule = LRSchedule(presets.preset("paper").schedule, presets.preset("paper").optimizer)
    drops = run(schedule, [50.0] * 60)
    assert len(drops) == 3
    assert schedule.lr == pytest.approx(1e-5)
    assert schedule.finished


def test_epochs_without_an_evaluation_do_not_count() -> None:
    assert run(plateau(), [50.0, None, None, None, None, 50.0, 50.0, None, 50.0]) == [9]


def test_an_error_that_is_not_a_number_is_no_improvement() -> None:
    schedule = plateau()
    assert run(schedule, [50.0, float("nan"), float("nan"), float("nan")]) == [4]
    assert schedule.state.best == 50.0


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 5), st.integers(0, 4))
def test_the_rate_only_falls_and_at_most_as_often_as_said(errors: list[float], patience: int, drops: int) -> None:
    schedule = plateau(patience=patience, drops=drops)
    rates = [schedule.lr]
    for epoch, error in enumerate(errors, 1):
        dropped = schedule.after_epoch(epoch, error, 1000 * epoch)
        rates.append(schedule.lr)
        assert dropped == (rates[-1] < rates[-2])
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.01 / 10 ** (len(set(rates)) - 1))
    assert len(set(rates)) <= drops + 1


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(0, 39))
def test_a_schedule_continued_from_its_state_does_the_same(errors: list[float], at: int) -> None:
    whole, first = plateau(), plateau()
    run(whole, list(errors))
    run(first, list(errors[:at]))
    second = plateau()
    second.state = read_record(ScheduleState, json.loads(json.dumps(asdict(first.state))), "schedule")
    for epoch, error in enumerate(errors[at:], at + 1):
        second.after_epoch(epoch, error, 1000 * epoch)
    assert (second.state, second.lr) == (whole.state, whole.lr)


def milestones(*epochs: int, **rest: Any) -> LRSchedule:
    return LRSchedule(Schedule(kind="epochs", milestones=epochs, **rest), Optimizer())


def test_the_rate_drops_after_each_milestone_whatever_the_error() -> None:
    schedule = milestones(2, 4)
    rates = []
    for epoch in range(1, 7):
        rates.append(applied(schedule, epoch)["fc8.weight"])
        schedule.after_epoch(epoch, 50.0 - epoch, 1000 * epoch)
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert not schedule.finished


def test_a_drop_at_a_milestone_is_told_once() -> None:
    assert run(milestones(2, 4), [None] * 6) == [2, 4]


def test_the_factor_of_the_division_is_a_setting() -> None:
    schedule = milestones(1, factor=4.0)
    schedule.after_epoch(1, None, 1000 * 1)
    assert schedule.lr == pytest.approx(0.0025)


@pytest.fixture
def code_145() -> LRSchedule:
    config = presets.preset("code-145")
    schedule = replace(config.schedule, layers=("conv1@68=1e-5", "conv1@72=0"))
    return LRSchedule(schedule, config.optimizer)


def rates_at(schedule: LRSchedule, epochs: int = 93) -> dict[int, dict[str, float]]:
    """The rates during each epoch of a run."""
    out = {}
    for epoch in range(1, epochs + 1):
        out[epoch] = applied(schedule, epoch)
        schedule.after_epoch(epoch, 50.0, 1000 * epoch)
    return out


def test_the_2012_source_drops_at_23_51_and_78(code_145: LRSchedule) -> None:
    rates = {epoch: rate["fc8.weight"] for epoch, rate in rates_at(code_145).items()}
    changes = [epoch for epoch in range(2, 94) if rates[epoch] != rates[epoch - 1]]
    assert changes == [24, 52, 79]  # the first epochs at the lower rates
    assert [rates[epoch] for epoch in (1, 24, 52, 79)] == pytest.approx([0.01, 0.001, 1e-4, 1e-5])


def test_the_2012_source_never_lowers_the_biases_rate(code_145: LRSchedule) -> None:
    rates = rates_at(code_145)
    assert {rate["conv2.bias"] for rate in rates.values()} == {0.02}
    assert {rate["fc8.bias"] for rate in rates.values()} == {0.02}


def test_the_2012_source_slows_conv1_after_68_and_freezes_it_after_72(code_145: LRSchedule) -> None:
    rates = {epoch: rate["conv1.weight"] for epoch, rate in rates_at(code_145).items()}
    assert rates[68] == pytest.approx(1e-4)
    assert [rates[epoch] for epoch in range(69, 73)] == pytest.approx([1e-5] * 4)
    assert [rates[epoch] for epoch in range(73, 94)] == [0.0] * 21


def test_a_frozen_conv1_keeps_its_biases_too(code_145: LRSchedule) -> None:
    rates = rates_at(code_145)
    assert {rates[epoch]["conv1.bias"] for epoch in range(73, 94)} == {0.0}


def test_only_conv1_is_slowed_and_frozen(code_145: LRSchedule) -> None:
    rates = rates_at(code_145)
    for epoch in range(69, 79):
        assert rates[epoch]["conv2.weight"] == pytest.approx(1e-4)


def test_where_the_recipe_says_so_the_biases_rate_falls_with_the_weights() -> None:
    optimizer = Optimizer(bias_lr=2.0)
    schedule = LRSchedule(Schedule(kind="epochs", milestones=(1,)), optimizer)
    schedule.after_epoch(1, None, 1000 * 1)
    assert applied(schedule, 2) == pytest.approx(
        {
            "conv1.weight": 0.001,
            "conv1.bias": 0.002,
            "conv2.weight": 0.001,
            "conv2.bias": 0.002,
            "fc8.weight": 0.001,
            "fc8.bias": 0.002,
        }
    )


def layered(*entries: str, **rest: Any) -> LRSchedule:
    return LRSchedule(Schedule(kind="epochs", milestones=(2,), layers=entries), Optimizer(**rest))


def test_without_entries_all_layers_learn_alike() -> None:
    assert len(set(applied(layered(), 90).values())) == 1


def test_a_multiple_follows_the_schedule_and_a_rate_does_not() -> None:
    schedule = layered("fc8=x10", "conv1=0.003")
    schedule.after_epoch(1, None, 1000 * 1)
    assert applied(schedule, 2) == pytest.approx(rates(conv1=0.003, conv2=0.01, fc8=0.1))
    schedule.after_epoch(2, None, 1000 * 2)
    assert applied(schedule, 3) == pytest.approx(rates(conv1=0.003, conv2=0.001, fc8=0.01))


def rates(**layers: float) -> dict[str, float]:
    return {f"{layer}.{kind}": lr for layer, lr in layers.items() for kind in ("weight", "bias")}


def test_an_entry_begins_after_its_epoch_and_a_later_entry_wins() -> None:
    schedule = layered("conv*@1=x0.5", "conv1@3=0", "conv1@5=0.02")
    schedule.state.decays = 1
    for epoch, conv1, conv2 in ((1, 1, 1), (2, 0.5, 0.5), (3, 0.5, 0.5), (4, 0, 0.5), (5, 0, 0.5), (6, 20, 0.5)):
        assert applied(schedule, epoch) == pytest.approx(rates(conv1=conv1 / 1e3, conv2=conv2 / 1e3, fc8=1e-3))


def test_a_later_entry_wins_also_where_it_begins_earlier() -> None:
    assert applied(layered("conv1@5=0.02", "conv?=x2"), 9) == pytest.approx(rates(conv1=0.02, conv2=0.02, fc8=0.01))


def test_biases_keep_their_multiple_in_a_layer_with_its_own_rate() -> None:
    found = applied(layered("conv1=1e-4", "fc8=x10", bias_lr=2.0), 1)
    assert (found["conv1.bias"], found["fc8.bias"], found["conv2.bias"]) == pytest.approx((2e-4, 0.2, 0.02))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "conv1",
        "conv1=",
        "=1",
        "conv1=fast",
        "conv1=-1",
        "conv1=x-1",
        "conv1=inf",
        "conv1@=1",
        "conv1@-2=1",
        "conv1@1.5=1",
        "conv1@2",
        "conv1=x",
        "conv1=nan",
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entry: str) -> None:
    with pytest.raises(UsageError, match="schedule.layers") as error:
        layered("fc8=x10", entry)
    assert repr(entry) in str(error.value)


def test_an_entry_that_fits_no_layer_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'cnov1@3=0' fits no layer .*did you mean conv1"):
        layered("fc8=x10", "cnov1@3=0").check_layers(["conv1", "conv2", "fc8"])
    with pytest.raises(UsageError, match=r"'body=1' fits no layer .*conv1, conv2"):
        layered("body=1").check_layers(["conv1", "conv2"])
    layered("fc8=x10", "conv*=0").check_layers(["conv1", "conv2", "fc8"])


def test_an_entry_is_read_into_its_parts() -> None:
    assert LayerLR.parse("conv1@68=1e-5") == LayerLR("conv1@68=1e-5", "conv1", 68, 1e-5)
    assert LayerLR.parse("fc8=x10") == LayerLR("fc8=x10", "fc8", 0, None, 10.0)
