"""Post-training quantization to int8: how large the activations of each tap become on a run's training images.

Weights are rounded to 8 bits kernel by kernel by whoever computes them; activations by one range for each tap that
feeds a layer with weights, the one with the smallest squared error of rounding. A layer whose range is left out is
computed in bfloat16; the last layer is, where int8 there costs agreement with float32 on the same images. What was
found is kept in the run directory as int8.json. Shapes: `N` images, `S` side of a square.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Network
from alexnet.data.run_data import open_known_source, open_run_data
from alexnet.data.views import View, views
from alexnet.device import cpu_count
from alexnet.engine.interpreter import Interpreter
from alexnet.engine.quantization import IMAGE, Quantizer, sources
from alexnet.errors import DataError, RunError, UnreadableImage, UsageError
from alexnet.files import write_json
from alexnet.inference.network import Trained, weights_sha256
from alexnet.records import check_fields, read_json
from alexnet.run import MAX_BYTES, Run

CALIBRATION = 256  # training images, spread evenly over the split
BATCH = 32  # of them at a time
SAMPLE = 1 << 18  # activations of a tap that its range is chosen by
CLIPS = np.linspace(0.3, 1, 36, dtype=np.float32)  # of the largest activation: the ranges tried
LOSS = 0.004  # of the images may get another label by an int8 last layer than by a bfloat16 one
FIELDS = {"weights": str, "images": int, "ranges": dict[str, float], "agreement": dict[str, float]}


@dataclass(frozen=True)
class Calibration:
    """Ranges by tap, measured on so many images; `agreement` is the share of labels as in float32, by last layer."""

    weights: str  # their sha256
    images: int
    ranges: dict[str, float]
    agreement: dict[str, float]


def quantized(trained: Trained, images: int = CALIBRATION) -> Interpreter:
    """A run's network in int8, calibrated now, or as int8.json in the run directory says for these weights.

    Raises UsageError for what is not a run, RunError for a damaged int8.json, DataError where the run's training
    images are gone.
    """
    run = trained.run
    if run is None:
        name = trained.origin.get("run")
        raise UsageError(f"int8 is calibrated on the training images of a run, and {name} is not a run directory")
    sha256 = weights_sha256(trained.weights)
    found = read_calibration(run, trained.network)
    if found is None or found.weights != sha256 or found.images != images:
        found = calibrate(trained, training_squares(run, images), sha256)
        with contextlib.suppress(OSError):  # a run that cannot be written to is calibrated each time
            write_json(run.int8_file, {**vars(found), "images": images})
    return trained.interpreter("int8", found.ranges)


def read_calibration(run: Run, network: Network) -> Calibration | None:
    """What int8.json says; None where there is none. Raises RunError naming the field that is wrong."""
    path = run.int8_file
    if not path.exists():
        return None
    value = read_json(path, MAX_BYTES)
    check_fields(value, FIELDS, str(path))
    known = feeding(network)
    for name, reach in value["ranges"].items():
        if name not in known or not 0 < reach < 1e30:
            raise RunError(f"{path}: ranges.{name[:80]} {reach} is not the range of a tap; remove the file")
    if missing := [name for name in known[:-1] if name not in value["ranges"]]:
        raise RunError(f"{path}: ranges.{missing[0]} is missing; remove the file")
    return Calibration(**value)


def calibrate(trained: Trained, squares: NDArray[np.uint8], sha256: str = "") -> Calibration:
    """Measure the ranges on squares (N, S, S, 3), and choose by them how the last layer is computed."""
    view = views(1, trained.config.data.size, trained.network.image)[0]
    exact = trained.interpreter()
    ranges = measure_ranges(trained, exact, squares, view)
    last = feeding(trained.network)[-1]
    kept = {name: reach for name, reach in ranges.items() if name != last}
    truth = _labels(exact, squares, view)
    agreement = {
        name: float((_labels(trained.interpreter("int8", some), squares, view) == truth).mean())
        for name, some in (("int8", ranges), ("bfloat16", kept))
    }
    whole = agreement["int8"] >= agreement["bfloat16"] - LOSS
    return Calibration(sha256, len(squares), ranges if whole else kept, agreement)


def feeding(network: Network) -> list[str]:
    """The taps that int8 layers are fed from, the image first, the last layer's last."""
    return list(dict.fromkeys(sources(network).values()))


def measure_ranges(trained: Trained, exact: Interpreter, squares: NDArray[np.uint8], view: View) -> dict[str, float]:
    """The range of every tap that feeds a layer, with the least squared error of rounding a sample of it."""
    names = feeding(trained.network)
    mean, scale = trained.centring()
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for first in range(0, len(squares), BATCH):
        some = squares[first : first + BATCH]
        taps = exact.taps(some, view, set(names) - {IMAGE})
        taps[IMAGE] = (some - (np.float32(0) if mean is None else mean)) * (np.float32(1) if scale is None else scale)
        for name in names:
            values = taps[name].ravel()
            every = max(1, values.size * len(squares) // (len(some) * SAMPLE))
            samples[name].append(np.append(values[::every], values[np.abs(values).argmax()]))
    return {name: _best_range(np.concatenate(parts)) for name, parts in samples.items()}


def _best_range(values: NDArray[np.float32]) -> float:
    """The range with the least squared error of rounding."""
    reaches = (CLIPS * (np.abs(values).max() or 1)).tolist()
    errors = []
    for reach in reaches:
        rounds = Quantizer.of(-reach if values.min() < 0 else 0.0, reach)
        levels = rounds(values).astype(np.float32) - rounds.zero
        errors.append(float(np.square(levels / np.float32(rounds.factor) - values).sum()))
    return float(reaches[int(np.argmin(errors))])


def _labels(network: Interpreter, squares: NDArray[np.uint8], view: View) -> NDArray[np.int64]:
    return network.logits(squares, [view])[0].argmax(axis=1)


def training_squares(run: Run, images: int = CALIBRATION) -> NDArray[np.uint8]:
    """Some of a run's training images as squares (N, S, S, 3). Raises DataError where they are gone or unreadable."""
    source, place, _ = open_known_source(run)
    data = open_run_data(run.config, source, place)
    chosen = np.linspace(0, len(data.train) - 1, min(images, len(data.train))).astype(np.int64)

    def square(i: int) -> NDArray[np.uint8] | None:
        with contextlib.suppress(UnreadableImage):
            return data.train.resize_crop(i, run.config.data.size)
        return None

    with ThreadPoolExecutor(cpu_count()) as pool:
        squares = [pixels for pixels in pool.map(square, chosen.tolist()) if pixels is not None]
    if not squares:
        raise DataError(f"{run.config.data.source}: no training image can be read to calibrate int8 on")
    return np.stack(squares)
