"""Records with known values, as a folder of them would hold."""

from pathlib import Path

import numpy as np

from alexnet.reproduce.predictions import Predictions
from alexnet.reproduce.records import Epoch, RunRecord, predictions_path, settings_of

HARDWARE = {"cpu": "a processor", "instruction_class": "avx2", "threads": 1, "cores": 2, "gpus": []}


def record(arm: str, seed: int, scale: str = "digits", seconds: float = 10.0, **values: float) -> RunRecord:
    """A record whose settings are the arm's own."""
    return RunRecord(
        scale,
        arm,
        seed,
        settings=settings_of(scale, arm),
        data="some pictures",
        values=values,
        curve=(Epoch(1, seconds / 2, 80.0, 2.0, 70.0), Epoch(2, seconds, 40.0, 1.0, 50.0)),
        epochs=2,
        steps=20,
        seconds=seconds,
        hardware=HARDWARE,
        versions={"torch": "2.11"},
        date=f"2026-11-2{seed}T00:00:00Z",
        commit="0123456789ab",
        command="alexnet reproduce",
    )


def predict(folder: Path, arm: str, seed: int, kind: str, wrong: np.ndarray, scale: str = "digits") -> None:
    """Keep predictions of three classes that are wrong where `wrong` says, each in a way of its own."""
    labels = np.zeros(len(wrong), np.int64)
    probabilities = np.tile([0.8, 0.1, 0.1], (len(wrong), 1))
    probabilities[wrong] = [0.3, 0.6, 0.1] if seed % 2 else [0.3, 0.1, 0.6]
    path = predictions_path(folder, (scale, arm, seed), kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    Predictions.of(probabilities, labels, full=kind != "centre").save(path)
