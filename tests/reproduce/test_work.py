"""Runs that claims need: which, in what order, at what cost; trained once, measured, and gone on with after a stop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet.errors import DataError, RunBusy, RunError, UsageError
from alexnet.progress import Progress, quiet
from alexnet.reproduce.claims import claim_of
from alexnet.reproduce.predictions import Predictions
from alexnet.reproduce.records import Records, predictions_path, read_records
from alexnet.reproduce.scales import ARMS, SCALES, Scale
from alexnet.reproduce.work import (
    Job,
    Workplace,
    check_classes,
    jobs_of,
    perform,
    source_of,
    trained,
)
from alexnet.run import Run
from tests.reproduce.made import record

NONE = Records({}, {})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """The digits' scale with two epochs of a smaller network."""
    settings = {**SCALES["digits"].settings, "train.epochs": "2", "schedule.milestones": "1"}
    settings |= {"network.fc4.units": "32", "network.conv2.kernels": "16", "network.conv3.kernels": "16"}
    scale = dataclasses.replace(SCALES["digits"], settings=settings)
    monkeypatch.setitem(SCALES, "digits", scale)
    return scale


def place(folder: Path) -> Workplace:
    return Workplace(folder, {"digits": "digits"}, 1, "cpu")


def names(jobs: list[Job]) -> list[str]:
    return [job.name for job in jobs]


def test_every_arm_of_a_claim_is_trained_seed_by_seed_and_once() -> None:
    jobs = jobs_of([claim_of(2), claim_of(3)], SCALES["cifar10"], 2, NONE)
    arms = ["paper", "one-column", "no-lrn", "lrn-across", "order-2012"]
    assert names(jobs) == [f"cifar10/{arm}-{seed}" for seed in (0, 1) for arm in arms]


def test_what_has_a_record_is_not_trained_again(tmp_path: Path) -> None:
    record("paper", 1).save(tmp_path)
    jobs = jobs_of([claim_of(4)], SCALES["digits"], 2, read_records([tmp_path]))
    assert names(jobs) == ["digits/paper-0", "digits/no-overlap-0", "digits/no-overlap-1"]


def test_what_others_begin_from_comes_first() -> None:
    jobs = names(jobs_of([claim_of(12)], SCALES["cifar10"], 1, NONE))
    assert jobs.index("cifar10/larger-set-0") < jobs.index("cifar10/fine-tuned-0")
    assert Job(SCALES["cifar10"], ARMS["larger-set"], 0).images == "tiny-imagenet"


def test_a_claim_that_is_not_measured_at_a_scale_is_refused() -> None:
    with pytest.raises(UsageError, match=r"claim 6 \(.*\) is not measured at digits, but at cifar10"):
        jobs_of([claim_of(6)], SCALES["digits"], 2, NONE)
    with pytest.raises(UsageError, match="but at no scale"):
        jobs_of([claim_of(17)], SCALES["digits"], 2, NONE)


def test_a_run_is_trained_measured_and_recorded(tmp_path: Path, quick: Scale) -> None:
    job = Job(quick, ARMS["paper"], 0)
    made = perform(job, place(tmp_path), quiet, "the command")
    found = read_records([tmp_path / "records"])
    assert found.runs == {job.key: made}
    values = made.values
    assert (made.epochs, len(made.curve), made.steps) == (2, 2, 10) and made.command == "the command"
    assert values["generalization_gap"] == pytest.approx(values["top1_error"] - values["train_error"], abs=1e-3)
    for kind, metric, count in (
        ("centre", "top1_error", 355),
        ("views", "top1_error_views", 355),
        ("val", "top1_error_val", 1299),
    ):
        kept = Predictions.load(predictions_path(tmp_path / "records", job.key, kind))
        assert len(kept) == count and kept.error(1) == pytest.approx(values[metric], abs=1e-3)
        assert (kept.top is None) == (kind == "centre")
    from alexnet import evaluate

    run = tmp_path / "runs" / "digits" / "paper-0"
    evaluated = evaluate(run, checkpoint="last", views=5)
    assert evaluated.top1_error == pytest.approx(values["top1_error_views"], abs=1e-3)
    assert evaluate(run, checkpoint="last").top5_error == pytest.approx(values["top5_error"], abs=1e-3)
    assert 0 <= values["neighbours_by_pixels"] <= 100 and "colour_separation" not in values  # the digits are grey


def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path: Path, quick: Scale) -> None:
    job = Job(quick, ARMS["no-dropout"], 0)
    whole = perform(job, place(tmp_path / "whole"), quiet, "")
    stopped = place(tmp_path / "stopped")

    class Stopping(Progress):
        def validated(self, epoch: int, result: dict[str, Any], lr: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(job, stopped, Stopping(), "")
    assert not (stopped.records / "digits" / "no-dropout-0.json").exists()
    again = perform(job, stopped, quiet, "")
    assert again.values["top1_error"] == whole.values["top1_error"]
    assert [epoch.train_loss for epoch in again.curve] == [epoch.train_loss for epoch in whole.curve]


def test_a_run_that_another_process_trains_is_busy(tmp_path: Path, quick: Scale) -> None:
    job = Job(quick, ARMS["no-lrn"], 0)
    perform(job, place(tmp_path), quiet, "")
    with Run.open(place(tmp_path).run(job.key)).held(), pytest.raises(RunBusy, match="another process"):
        perform(job, place(tmp_path), quiet, "")


def test_a_run_of_other_settings_is_not_mixed_in(tmp_path: Path, quick: Scale) -> None:
    job = Job(quick, ARMS["no-lrn"], 0)
    path = place(tmp_path).run(job.key)
    trained(job, place(tmp_path), path, "digits", quiet)
    config = json.loads((path / "config.json").read_text())
    config["optimizer"]["lr"] = 0.5
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="other settings than digits/no-lrn-0 has now; remove it"):
        perform(job, place(tmp_path), quiet, "")


def test_images_that_are_absent_or_of_other_classes_are_told(tmp_path: Path) -> None:
    job = Job(SCALES["tiny-imagenet"], ARMS["paper"], 0)
    with pytest.raises(UsageError, match="needs the images of Tiny ImageNet: say with --data SRC where"):
        source_of(job, place(tmp_path))
    other = Job(SCALES["cifar10"], ARMS["larger-set"], 0)
    with pytest.raises(UsageError, match="--data tiny-imagenet=SRC"):
        source_of(other, Workplace(tmp_path, {"cifar10": "x"}))
    with pytest.raises(DataError, match="digits has 10 classes, but Tiny ImageNet has 200"):
        perform(job, Workplace(tmp_path, {"tiny-imagenet": "digits"}, 1, "cpu"), quiet, "")


def test_as_many_classes_of_other_names_are_other_images(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for number in range(10):
        (folder / f"kind {number}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"kind {number}" / "a.png")
    job = Job(SCALES["cifar10"], ARMS["paper"], 0)
    with pytest.raises(DataError, match="classes 'kind 0', .* and 7 more, which are not those of CIFAR-10"):
        check_classes(job, str(folder))
    for number, name in enumerate(SCALES["cifar10"].names):
        (folder / f"kind {number}").rename(folder / name)
    check_classes(job, str(folder))
