"""The README's commands and Python lines run, and its numbers, names and folders are true."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import architecture, presets
from alexnet.cli import COMMANDS, command_parser, main
from alexnet.commands.frame import Parser
from alexnet.reproduce.claims import claim_of
from alexnet.reproduce.scales import scale_of
from benchmarks import registry
from experiments import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What the lines are given beside what is written, so that they take seconds; `paper` on two pictures for two steps.
BRIEFLY = ["--epochs", "2"]
BRIEFLY_PAPER = ["--train.steps", "2", "--train.batch_size", "2", "--train.evaluate_every", "100"]


def blocks(language: str = "") -> list[str]:
    """The README's blocks of code in a language; those of the shell name none."""
    return [code for name, code in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M) if name == language]


def lines(prefix: str) -> list[str]:
    """The lines of the README's shell blocks that begin so."""
    return [line for block in blocks() for line in block.splitlines() if line.startswith(prefix)]


def words(line: str) -> list[str]:
    """What the shell makes of a line, less the program's name."""
    return shlex.split(line, comments=True)[1:]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the README's lines are typed in."""
    rng = np.random.default_rng(0)
    colours = {"pictures/cat": (200, 60, 40), "pictures/dog": (40, 80, 200)}
    colours |= {"others/ant": (90, 90, 90), "others/bee": (220, 200, 20), "others/cow": (250, 250, 250)}
    for place, colour in colours.items():
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(rng.normal(colour, 40, (70, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    Image.fromarray(pixels).save(tmp_path / "some.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def briefly(arguments: list[str]) -> list[str]:
    """A training that takes seconds."""
    return [*arguments, *(BRIEFLY_PAPER if "paper" in arguments else BRIEFLY)]


@pytest.mark.slow
def test_the_lines_on_ones_own_pictures_run_as_written(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in lines("alexnet "):
        arguments = words(line)
        if arguments[0] == "bench":
            continue  # minutes: parsed below, asked on small networks in tests/benchmarks
        if "--scale" in arguments:
            continue  # minutes: parsed below, done by a small network in tests/commands
        capsys.readouterr()
        target = arguments.pop() if arguments[-2:-1] == [">"] else None
        arguments = arguments[:-1] if target else arguments
        assert main(briefly(arguments) if arguments[0] == "train" else arguments) == 0, line
        said = capsys.readouterr()
        if target:
            (pictures / target).write_text(said.out)
        if arguments[0] == "evaluate":
            assert "majority 50.00 %" in said.out  # of two classes with as many pictures
        if arguments[:1] == ["train"] and "pictures/" in arguments:
            first, *others = said.err.splitlines()
            assert first.startswith("pictures/: ")
            assert "of 2 classes; " in first and "steps of 8 images per epoch" in first
            assert any(line.startswith("adapted to few images: 8 images per step instead of 128") for line in others)
    assert (pictures / "runs" / "first" / "report.html").is_file()
    assert "`alexnet train --resume runs/first`" in README
    assert main(["train", "--resume", "runs/first"]) == 0


def test_the_questions_of_speed_are_asked_as_written() -> None:
    asked = [words(line)[1:] for line in lines("alexnet bench ")]
    assert asked
    for question, *options in asked:
        parser = Parser(prog="bench")
        registry.arguments(question, parser)
        parser.parse_args(options)  # raises for an option that is not there


def test_the_claims_are_checked_as_written() -> None:
    asked = [words(line) for line in lines("alexnet reproduce") if "--scale" in line]
    assert asked
    for arguments in asked:
        args = command_parser("reproduce").parse_args(arguments)
        scale = scale_of(args.scale)
        assert all(scale.name in claim_of(int(word)).scales for word in args.claims)


def test_the_python_lines_run(pictures: Path) -> None:
    (code,) = blocks("python")
    named = [words(line) for line in lines("alexnet train") if "runs/first" in line]
    assert main(briefly(named[0])) == 0
    names = {"images": torch.zeros(1, 3, 224, 224)}  # the only name that the lines leave to the reader
    exec(compile(code, "README.md", "exec"), names)
    assert names["model"](names["images"]).shape == (1, 1000)
    assert list(names["acts"])[:4] == ["conv1", "relu1", "norm1", "pool1"] and list(names["acts"])[-1] == "fc8"
    (prediction,) = names["labels"]
    assert len(prediction.labels) == 2  # of three asked for


def made(target: str) -> Iterator[list[str]]:
    """The words of the `alexnet` commands that make would run."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--dry-run", "--always-make", *target.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make {target}: {done.stderr}"
    for line in done.stdout.splitlines():
        if re.match(r"\S*bin/alexnet ", line):
            yield words(line)


@pytest.mark.slow
def test_make_demo_does_what_the_readme_says_and_errs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network with two columns trained on digits, its errors (at most 4 %), and last the place of its report."""
    monkeypatch.chdir(tmp_path)
    commands = list(made("demo"))
    assert [arguments[0] for arguments in commands] == ["train", "evaluate", "evaluate", "report"]
    errors = []
    for arguments in commands:
        capsys.readouterr()
        assert main([*arguments, "--json"] if arguments[0] == "evaluate" else arguments) == 0
        printed = capsys.readouterr().out
        if arguments[0] == "evaluate":
            errors.append(json.loads(printed))
    assert json.loads((tmp_path / "runs/demo/config.json").read_text())["network"]["columns"] == 2
    for error in errors:
        assert error["split"] == "test" and error["count"] > 300 and error["top1_error"] <= 4
    assert "runs/demo/report.html" in printed.splitlines()[-1]
    assert not re.search(r"(src|href)=[\"\']?https?:", (tmp_path / "runs/demo/report.html").read_text())


def test_every_make_line_has_its_target() -> None:
    for line in lines("make "):
        list(made(" ".join(words(line))))
    assert list(made("bench IMAGES=photographs/")) == [["bench", "all", "--images", "photographs/"]]


def test_every_command_and_preset_named_exists() -> None:
    names = {command.name for command in COMMANDS}
    for used in re.findall(r"alexnet ([a-z]+)(?= |`)", README):
        assert used in names, used
    rows = re.findall(r"^\| (`[^|]*) \|[^|]*\| ([\d,· ]*) \|$", README, re.M)
    assert len(rows) >= 9
    for cell, counts in rows:
        for name, count in zip(re.findall(r"`([^`]+)`", cell), counts.split("·"), strict=False):
            if name != "torchvision:NAME":
                assert architecture.parameters(presets.preset(name).network) == int(count.replace(",", "")), name


def test_all_presets_are_in_the_table() -> None:
    for name in presets.names():
        assert f"`{name}`" in README


def test_the_tables_are_what_the_records_say() -> None:
    for page, text in table.pages().items():
        assert page.read_text() == text, f"{page.name}: run `python -m experiments.table`"


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)h][^)]*)\)", README)
    assert links
    for place in links:
        assert (ROOT / place).exists(), place


def test_the_help_is_printed_without_torch() -> None:
    code = "import sys; from alexnet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
