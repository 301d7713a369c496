"""Ctrl-C, SIGTERM and SIGUSR1 sent to a process: the step in hand is saved, the exit code tells, the run goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet import cli
from alexnet.checkpoint import read_checkpoint
from alexnet.training.signals import SIGNALS, stop_on_signals

SETTINGS = ("--train.log_every", "1", "--train.threads", "1", "--train.batch_size", "8", "--epochs", "12")


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_saves_and_exits_with_its_code(number: signal.Signals, seven: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet.cli", "train", "--data", str(seven), *SETTINGS, "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == (143 if number == signal.SIGTERM else 130), err
    assert f"alexnet train --resume {out}" in err.splitlines()[-1] and "Traceback" not in err
    steps = read_checkpoint(out / "checkpoints" / "last.safetensors").state["train"]["steps"]
    assert 0 < steps < 84 and len((out / "metrics.jsonl").read_text().splitlines()) >= steps
    assert cli.main(["train", "--resume", str(out)]) == 0
    assert cli.main(["train", "--data", str(seven), *SETTINGS, "--out", str(tmp_path / "whole")]) == 0
    ours, theirs = (read_checkpoint(path / "checkpoints" / "last.safetensors") for path in (out, tmp_path / "whole"))
    assert all(np.array_equal(ours.weights[name], value) for name, value in theirs.weights.items())


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_before_the_first_step_stops_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stopped, stop_on_signals():
        signal.raise_signal(number)
    assert stopped.value.args == (143 if number == signal.SIGTERM else 130,)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_within_the_loop_a_signal_is_a_request_and_a_second_ctrl_c_stops_at_once(number: signal.Signals) -> None:
    with stop_on_signals() as stop, stop.after_step():
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert stop.interrupt().args == (143 if number == signal.SIGTERM else 130,)
        for other in SIGNALS[1:]:
            signal.raise_signal(other)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_thread_trains_without_signals(seven: Path, short: Callable[..., object], tmp_path: Path) -> None:
    from threading import Thread

    from alexnet.training.loop import train

    results: list[object] = []
    thread = Thread(target=lambda: results.append(train(short(seven, train__epochs="1"), tmp_path / "run")))  # type: ignore[arg-type]
    thread.start()
    thread.join()
    assert results
