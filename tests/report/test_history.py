"""A run's history is what its metrics say, at any moment of the run."""

import json

import pytest

from alexnet.report.history import in_training, read_history
from alexnet.run import Run


@pytest.fixture
def copy(trained, tmp_path):
    """Makes a run of the same settings, changed, with some of the metrics."""

    def make(lines=None, **changes):
        config = json.loads((trained.path / "config.json").read_text())
        for path, value in changes.items():
            section, _, name = path.partition("_")
            config[section][name] = value
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "source.json").write_bytes((trained.path / "source.json").read_bytes())
        lines = trained.metrics() if lines is None else lines
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Run.open(tmp_path)

    return make


def test_it_has_the_runs_drops_and_curves(trained):
    history = read_history(trained)
    assert history.drops == ((1.0, 0.0005), (2.0, 0.00005))
    assert [curve.key for curve in history.errors] == ["train", "top1"]
    assert [epoch for epoch, _ in history.errors[1].points] == [1.0, 2.0, 3.0]
    assert history.epochs == 3
    assert history.best["top1_error"] == min(line["top1_error"] for line in trained.metrics("validation"))


def test_a_run_cut_short_is_a_part_of_an_epoch(unvalidated):
    history = read_history(unvalidated)
    assert history.epochs == pytest.approx(1 / 3)
    assert history.best is None


@pytest.mark.parametrize(("lines", "kept"), [(8, 8), (9, 5), (100, 8)])
def test_a_curve_of_many_lines_is_thinned_evenly_up_to_its_newest(trained, copy, monkeypatch, lines, kept):
    monkeypatch.setattr("alexnet.report.history.POINTS", 8)
    line = trained.metrics("train")[0]
    history = read_history(copy([{**line, "step": step + 1, "loss": step} for step in range(lines)]))
    losses = [loss for _, loss in history.losses[0].points]
    assert len(losses) == kept and (losses[0], losses[-1], history.steps) == (0, lines - 1, lines)
    steps = {after - before for before, after in zip(losses[:-1], losses[1:-1], strict=False)}
    assert len(steps) == 1


def test_seconds_are_those_the_epochs_record(trained):
    history = read_history(trained)
    assert not history.estimated
    assert history.seconds == pytest.approx(sum(line["seconds"] for line in trained.metrics("epoch")))


def test_seconds_are_estimated_before_the_first_epoch_is_over(trained, copy):
    history = read_history(copy(trained.metrics("train")))
    assert history.estimated and history.seconds > 0


def test_a_run_that_came_to_its_end_is_finished(trained, copy):
    assert read_history(trained).unfinished == ""
    assert read_history(copy(train_epochs=90, train_steps=9)).unfinished == ""


def test_a_run_that_stopped_before_says_where(trained, copy):
    assert read_history(copy(train_epochs=30)).unfinished == "stopped after epoch 3 of 30"
    lines = [line for line in trained.metrics() if line["step"] <= 4]
    assert read_history(copy(lines, train_epochs=30)).unfinished == "stopped in epoch 2 of 30"
    assert read_history(copy([])).unfinished == "stopped in epoch 1 of 3"


def test_a_run_that_a_process_holds_is_still_training(copy):
    run = copy(train_epochs=30)
    with run.held():
        assert in_training(run)
        assert read_history(run).unfinished == "epoch 4 of 30, still training"
    assert not in_training(run)


def test_the_plateau_after_the_last_drop_ends_a_run(trained, copy):
    flat = [{**line, "top1_error": 50.0} if line["kind"] == "validation" else line for line in trained.metrics()]
    plateau = {"schedule_kind": "plateau", "schedule_patience": 1, "schedule_patience_steps": 0, "train_epochs": 30}
    assert read_history(copy(flat, schedule_drops=1, **plateau)).unfinished == ""
    assert read_history(copy(flat, schedule_drops=2, **plateau)).unfinished == "stopped after epoch 3 of 30"
