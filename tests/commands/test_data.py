"""`alexnet data` as a user meets it: its words, its exit codes, and what it does when it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.config import Config
from alexnet.inference.load import load
from alexnet.training.loop import train


def sources(root: Path, pictures: Callable[..., Path]) -> list[str]:
    """One of every kind that a folder can hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = pictures(root / "folder", {"train": 3, "test": 2}, ("ant", "bee"))
    paths = sorted((folder / "train").rglob("*.png"))
    (root / "parquet").mkdir()
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "label": [int(path.parent.name == "bee") for path in paths],
    }
    pq.write_table(pa.table(rows), root / "parquet" / "train-00000-of-00001.parquet")
    assert main(["data", "prepare", str(folder), str(root / "store"), "--size", "8", "--codec", "jpeg"]) == 0
    (root / "tars").mkdir()
    shutil.copy(root / "store" / "train" / "00000.tar", root / "tars" / "train-0.tar")
    return [str(root / name) for name in ("folder", "parquet", "store", "tars")] + ["digits"]


def test_every_kind_of_source_is_described_in_prose(
    tmp_path: Path, pictures: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for source in sources(tmp_path, pictures):
        capsys.readouterr()
        assert main(["data", "info", source]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{source}: a {'store' if source.endswith('store') else 'source'} of ")
        assert "train: " in said and "the largest class is" in said and "pixels wide" in said
        assert not set("{}[]'") & set(said.replace(source, ""))
        assert main(["data", "info", source, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["splits"]["train"]["largest"]["count"] > 0


def test_prepare_says_what_it_left_out(
    tmp_path: Path, pictures: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(tmp_path / "folder", {"train": 9}, ("ant", "bee"))
    for k in range(7):
        (folder / "train" / "ant" / f"bad{k}\x1b[31m.png").write_bytes(b"no")
    command = ["data", "prepare", str(folder), str(tmp_path / "store"), "--size", "8"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "7 of 25 pictures cannot be read and were left out:"
    assert lines[2].startswith("  train/ant/bad0\\x1b[31m.png: it is not an image")
    assert len(lines) == 8 and lines[-1].endswith("report.csv")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unreadable"][0]["reason"].startswith("it is not an image")
    for k in range(20):
        (folder / "train" / "bee" / f"bad{k}.png").write_bytes(b"no")
    assert main(["data", "prepare", str(folder), str(tmp_path / "other"), "--size", "8"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "27 of 45 pictures cannot be read" in said and "unreadable.csv" in said
    assert main(["data", "verify", str(folder)]) == 1
    said = capsys.readouterr().out
    assert said.count("unreadable: ") == 20 and said.endswith("… and 7 more files are unreadable; --json lists all\n")


def test_verify_ends_with_1_where_there_are_errors_only(
    tmp_path: Path, pictures: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(tmp_path / "folder", {"train": 3}, ("ant", "bee"))
    shutil.copy(folder / "train" / "ant" / "00.png", folder / "train" / "ant" / "again.png")
    assert main(["data", "verify", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("warning: train: 1 file is there twice")
    shutil.copy(folder / "train" / "ant" / "00.png", folder / "train" / "bee" / "again.png")
    assert main(["data", "verify", str(folder), "--json"]) == 1
    issues = json.loads(capsys.readouterr().out)["issues"]
    assert [issue["level"] for issue in issues] == ["error", "warning"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 130)])
def test_a_stopped_preparation_says_so_and_the_same_command_finishes_it(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "pictures" / "ant").mkdir(parents=True)
    (tmp_path / "pictures" / "bee").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    for k in range(80):
        os.link(tmp_path / "one.png", tmp_path / "pictures" / ("ant" if k % 2 else "bee") / f"{k}.png")
    command = [sys.executable, "-m", "alexnet.cli", "data", "prepare", str(tmp_path / "pictures")]
    command += [str(tmp_path / "store"), "--size", "32", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "store" / "train").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert out == "" and said.count("\n") == 2 and "give the same command to go on" in said.splitlines()[1]
    assert not list((tmp_path / "store").rglob("*.part"))
    if number == signal.SIGTERM:
        other = str(tmp_path / "whole")
        assert main(command[3:]) == main([word if word != command[6] else other for word in command[3:]]) == 0
        for path in (tmp_path / "whole").rglob("*.*"):
            assert (tmp_path / "store" / path.relative_to(other)).read_bytes() == path.read_bytes()


def test_a_run_on_a_turned_store_turns_what_it_predicts(
    tmp_path: Path, pictures: Callable[..., Path], short: Callable[..., Config]
) -> None:
    folder = pictures(tmp_path / "folder", {"train": 4, "val": 2}, ("ant", "bee"))
    pixels = np.asarray(Image.open(folder / "train" / "ant" / "00.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # what is shown is the file's pixels turned by a quarter, clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(folder / "train" / "ant" / "00.png", exif=exif)
    assert main(["data", "prepare", str(folder), str(tmp_path / "store"), "--size", "16", "--exif-rotate"]) == 0
    train(short(tmp_path / "store", train__epochs="1"), tmp_path / "run")
    net = load(tmp_path / "run")
    assert net.exif_rotate is True
    (upright,) = net.predict(pixels)
    (turned,) = net.predict(folder / "train" / "ant" / "00.png")
    assert turned == upright
