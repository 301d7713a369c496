"""Trackers get what metrics.jsonl gets, and nothing they do can stop a run."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from alexnet.config import Config
from alexnet.errors import MissingLibrary, UsageError
from alexnet.run import Run
from alexnet.training import trackers
from alexnet.training.loop import resume, train
from alexnet.training.trackers import Trackers
from tests.told import Told


class Fake:
    """A tracker that remembers, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, []  # type: ignore[var-annotated]

    def _call(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name == self.fails:
            raise ConnectionError("no network")

    def open(self, path: Path, config: Mapping[str, Any], steps: int, identity: str | None) -> str | None:
        self._call("open", steps, identity)
        return "id-1"

    def log(self, values: Mapping[str, float], steps: int) -> None:
        self._call("log", dict(values), steps)

    def close(self) -> None:
        self._call("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Put a fake tracker in the place of TensorBoard's."""

    def put(fails: str = "") -> Fake:
        tracker = Fake(fails)
        monkeypatch.setitem(trackers.TRACKERS, "tensorboard", lambda: tracker)
        return tracker

    return put


def test_a_tracker_gets_every_number_of_the_metrics(
    fake: Callable[..., Fake], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    tracker = fake()
    train(short(seven, train__track="tensorboard"), tmp_path / "run")
    lines = Run.open(tmp_path / "run").metrics()
    logged = [call for call in tracker.calls if call[0] == "log"]
    assert len(logged) == len(lines)
    for (_, values, steps), line in zip(logged, lines, strict=True):
        assert steps == line["step"]
        numbers = {k: v for k, v in line.items() if k not in ("kind", "epoch", "step") and v is not None}
        assert values == {f"{line['kind']}/{name}": value for name, value in numbers.items()}
    assert tracker.calls[0] == ("open", 0, None) and tracker.calls[-1] == ("close",)


def test_a_resumed_run_goes_on_under_its_name(
    fake: Callable[..., Fake], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    fake()
    train(short(seven, train__track="tensorboard"), tmp_path / "run")
    tracker = fake()
    resume(tmp_path / "run")
    assert tracker.calls == [("open", 8, "id-1"), ("close",)]
    for damaged in ("{", "3", "[1]"):
        (tmp_path / "run" / "trackers.json").write_text(damaged)
        tracker = fake()
        resume(tmp_path / "run")
        assert tracker.calls == [("open", 8, None), ("close",)]


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(
    fails: str, fake: Callable[..., Fake], seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    tracker, told = fake(fails), Told()
    result = train(short(seven, train__track="tensorboard"), tmp_path / "run", told)
    assert result.epochs == 2 and len(Run.open(tmp_path / "run").metrics()) == 6
    (warning,) = [text for text in told.warnings if "tracker" in text]
    assert "tensorboard" in warning and "no network" in warning
    assert sum(call[0] == fails for call in tracker.calls) == 1


def test_there_is_none_by_default(trained: Path) -> None:
    assert not (trained / "trackers.json").exists() and not (trained / "tensorboard").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_told_before_the_run_begins(
    name: str, seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(MissingLibrary, match=f"pip install {name}"):
        train(short(seven, train__track=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_known_is_told_with_the_nearest(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        train(short(seven, train__track="tensorbord"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboards_events_hold_the_metrics(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    library = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(short(seven, train__track="tensorboard"), tmp_path / "run")
    events = library.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    wanted = [line["top1_error"] for line in Run.open(tmp_path / "run").metrics("validation")]
    assert [event.value for event in events.Scalars("validation/top1_error")] == pytest.approx(wanted)


def library(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def test_wandb_is_called_as_it_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(id="abc", log=calls.append, finish=lambda: calls.append("finish"))
    library(monkeypatch, "wandb", init=lambda **options: calls.append(options) or run)
    for identity in (None, "abc"):
        tracker = Trackers(["wandb"])
        tracker.open(tmp_path, {"preset": "digits"}, 0)
        assert calls[-1]["id"] == identity and calls[-1]["config"] == {"preset": "digits"}
        assert calls[-1]["resume"] == (identity and "allow")
        assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "abc"}
    tracker.log("train", {"loss": 2.5, "text": "no number"}, 7)
    tracker.close()
    assert calls[-2:] == [{"train/loss": 2.5, "steps": 7}, "finish"]


def test_mlflow_is_called_as_it_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(info=SimpleNamespace(run_id="xyz"))
    library(
        monkeypatch,
        "mlflow",
        start_run=lambda **options: calls.append(options) or run,
        log_params=calls.append,
        log_metrics=lambda values, step: calls.append((values, step)),
        end_run=lambda: calls.append("end"),
    )
    tracker = Trackers(["mlflow"])
    tracker.open(tmp_path, {"preset": "digits", "train": {"seed": 0}, "network": {"layers": []}}, 0)
    assert calls == [{"run_id": None, "run_name": tmp_path.name}, {"train.seed": 0}]
    Trackers(["mlflow"]).open(tmp_path, {"train": {"seed": 0}}, 9)
    assert calls[2:] == [{"run_id": "xyz", "run_name": None}]
    tracker.log("train", {"loss": 2.5}, 7)
    tracker.close()
    assert calls[-2:] == [({"train/loss": 2.5}, 7), "end"]
