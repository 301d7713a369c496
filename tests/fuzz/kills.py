"""Kill -9 at random moments: trainings, preparations, evaluations and reports go on to the same bits.

    python -m tests.fuzz.kills --kills 100 --seed 0 --record kills.json

Each activity is a real command in a process of its own, killed again and again until it comes to its end, then begun
anew; what it leaves is compared with what one that nobody disturbed left. The times in the lines of metrics, and the
paths, which differ between the folders, are left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from alexnet.files import write_json
from tests.fuzz.harness import where

TIMES = ("seconds", "images_per_second", "waiting")
PLACED = ("seconds", "metrics_bytes")  # of a checkpoint's state: times, and the length of lines with times
TRAIN = "--train.threads 1 --data.workers 1 --train.batch_size 8 --epochs 3 --train.log_every 2 --train.save_every 0"
Command = list[str]


@dataclass(frozen=True)
class Activity:
    """A command that is killed.

    `begin(root)` is the command for a folder that has `pictures` and `run` in it, `resume(root)` the one after a kill,
    `content(root)` what it left, and `before(root)` makes what it needs.
    """

    name: str
    begin: Callable[[Path], Command]
    content: Callable[[Path], Any]
    resume: Callable[[Path], Command] | None = None
    needs_run: bool = False

    def command(self, root: Path) -> Command:
        """The command to give now."""
        begun = self.resume and (root / "run" / "config.json").exists()
        return self.resume(root) if self.resume and begun else self.begin(root)


@dataclass
class Record:
    """What came of it: kills by activity, where they fell, how often an activity came to its end, and differences."""

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    falls: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with the total and the verdict."""
        return {**vars(self), "total": sum(self.kills.values()), "equal": not self.differences}


def training(precision: str) -> Activity:
    """A training of a few steps that saves after each."""
    return Activity(
        f"train {precision}",
        lambda root: ["train", "--data", "pictures", "--out", "run", "--precision", precision, *TRAIN.split()],
        trained,
        lambda root: ["train", "--resume", "run"],
    )


def trained(root: Path) -> Any:
    """Weights, velocities, state and metrics of a run, and its other files."""
    from alexnet.checkpoint import read_checkpoint

    run, found = root / "run", {}
    for name in ("last", "previous", "best"):
        checkpoint = read_checkpoint(run / "checkpoints" / f"{name}.safetensors")
        for kind, tensors in (("weights", checkpoint.weights), ("velocities", checkpoint.velocities)):
            for key, value in tensors.items():
                found[f"{name} {kind} {key}"] = value.tobytes()
        state = dict(checkpoint.state)
        state["train"] = {key: value for key, value in state["train"].items() if key not in PLACED}
        found[f"{name} state"] = state
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    found["statistics"] = (run / "statistics.npz").read_bytes()
    found["config"] = (run / "config.json").read_text()
    found["source"] = (run / "source.json").read_text().replace(str(root), "")
    return found


def prepared(root: Path) -> Any:
    """The files of a store, byte by byte."""
    files = [path for path in sorted((root / "store").rglob("*")) if path.is_file() and path.suffix != ".part"]
    return {str(path.relative_to(root)): path.read_bytes().replace(os.fsencode(root), b"") for path in files}


def evaluated(root: Path) -> Any:
    """The numbers kept in the run."""
    lines = (root / "run" / "evaluations.jsonl").read_text().replace(str(root), "").splitlines()
    return [json.loads(line) for line in lines]


def reported(root: Path) -> Any:
    """The page and its figures."""
    page = (root / "run" / "report.html").read_text().replace(str(root), "")
    return page, {path.name: path.read_bytes() for path in (root / "run" / "figures").glob("*.png")}


ACTIVITIES = (
    training("float32"),
    training("bfloat16"),
    Activity(
        "prepare", lambda root: ["data", "prepare", "pictures", "store", "--size", "16", "--workers", "1"], prepared
    ),
    Activity("evaluate", lambda root: ["evaluate", "run", "--views", "5"], evaluated, needs_run=True),
    Activity("report", lambda root: ["report", "run"], reported, needs_run=True),
)


def paint(root: Path) -> None:
    """Pictures of three classes, each with a colour of its own."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name, colour in (("ant", 60), ("bee", 120), ("cat", 180)):
            place = root / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(draw.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


def work(root: str, command: Command) -> None:
    """Give a command in a folder, in this process; what it says goes nowhere."""
    os.chdir(root)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    from alexnet.cli import main

    sys.exit(main(command))


class Killer:
    """Runs activities in folders below `place`, with random moments from a seed."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random, self.record = place, Random(seed), Record(seed)
        self.processes: Any = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["tests.fuzz.warm", "alexnet.cli"])
        paint(place / "first")
        self.run(ACTIVITIES[0], place / "first")  # what evaluations and reports are of

    def folder(self, activity: Activity) -> Path:
        """A folder with all that an activity needs."""
        root = Path(tempfile.mkdtemp(prefix=activity.name.replace(" ", "-") + "-", dir=self.place))
        shutil.copytree(self.place / "first" / "pictures", root / "pictures")
        if activity.needs_run:
            shutil.copytree(self.place / "first" / "run", root / "run")
            source = root / "run" / "source.json"
            source.write_text(source.read_text().replace(str(self.place / "first"), str(root)))
        return root

    def run(self, activity: Activity, root: Path, moment: float | None = None) -> bool:
        """Give the command and, at a moment in seconds, kill it; returns whether it came to its end."""
        process = self.processes.Process(target=work, args=(str(root), activity.command(root)))
        process.start()
        process.join(moment)
        if process.is_alive():
            process.kill()
            process.join()
            return False
        process.join()
        if process.exitcode:
            self.record.differences.append(f"{activity.name}: {activity.command(root)} ended with {process.exitcode}")
        return True

    def kill(self, activity: Activity, kills: int) -> None:
        """Kill an activity so many times, and compare what is left each time that it came to its end."""
        whole = self.folder(activity)
        self.run(activity, whole)  # once to warm up what the first process of its kind makes
        shutil.rmtree(whole)
        whole, began = self.folder(activity), time.monotonic()
        self.run(activity, whole)
        seconds, expected = time.monotonic() - began, activity.content(whole)
        root, left = self.folder(activity), kills
        while left:
            moment = self.random.uniform(0, seconds)
            if self.run(activity, root, moment):
                root = self.compare(activity, root, expected)
                continue
            left -= 1
            self.record.kills[activity.name] = self.record.kills.get(activity.name, 0) + 1
            self.record.falls.append({"activity": activity.name, "seconds": round(moment, 3), "left": lying(root)})
        self.run(activity, root)
        shutil.rmtree(self.compare(activity, root, expected))
        shutil.rmtree(whole)

    def compare(self, activity: Activity, root: Path, expected: Any) -> Path:
        """Note what differs from an undisturbed activity; returns a fresh folder."""
        self.record.ends[activity.name] = self.record.ends.get(activity.name, 0) + 1
        try:
            found = activity.content(root)
            if found != expected:
                names = [
                    str(name) for name in expected if isinstance(expected, dict) and found.get(name) != expected[name]
                ]
                self.record.differences.append(f"{activity.name}: not the same: {', '.join(names[:5])}")
        except Exception as error:
            self.record.differences.append(f"{activity.name}: {error!r}")
        shutil.rmtree(root)
        return self.folder(activity)


def lying(root: Path) -> str:
    """What a kill left, in a few words: the files that were being written, and how far it had come."""
    files = [path for path in root.rglob("*") if path.is_file() and "pictures" not in path.parts]
    words = [f"{len(files)} files"]
    if (metrics := root / "run" / "metrics.jsonl").exists():
        words.append(f"{len(metrics.read_bytes().splitlines())} lines of metrics")
    words += [f"writing {path.name}" for path in files if path.suffix == ".part"]
    return ", ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, compare, write the record; 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, spread over the activities (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", metavar="FILE", help="write what came of it as JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        killer = Killer(Path(place), args.seed)
        for number, activity in enumerate(ACTIVITIES):
            share = args.kills // len(ACTIVITIES) + (number < args.kills % len(ACTIVITIES))
            if share:
                killer.kill(activity, share)
                print(f"{activity.name}: {share} kills, {killer.record.ends[activity.name]} ends", file=sys.stderr)
        record = killer.record.to_json()
    if args.record:
        command = f"python -m tests.fuzz.kills --kills {args.kills} --seed {args.seed}"
        write_json(Path(args.record), {"command": command, **where(), **record})
    print(json.dumps({name: record[name] for name in ("total", "kills", "ends", "differences", "equal")}))
    return int(not record["equal"])


if __name__ == "__main__":
    from tests.fuzz.kills import main as run  # so that its functions have a module for the forked processes

    sys.exit(run())
