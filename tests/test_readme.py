"""The README's commands run, and its numbers, names and folders are true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import architecture as network
from alexnet import presets
from alexnet.cli import COMMANDS, main
from benchmarks import QUESTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(prefix: str) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith(prefix)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for label, colour in (("cat", (200, 60, 40)), ("dog", (40, 80, 200))):
        place = folder / "pictures" / label
        place.mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(rng.normal(colour, 40, (70, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.jpg")
    Image.fromarray(pixels).save(folder / "some.jpg")
    return folder


def test_the_commands_on_ones_own_pictures_run_as_written(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    for line in commands("alexnet "):
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "bench":
            assert words[1] in QUESTIONS  # minutes; asked on small networks elsewhere
            continue
        if words[0] == "train":
            if "paper" in words:
                continue  # minutes; the preset itself is tested elsewhere
            words += ["--epochs", "2"]
        assert main(words) == 0, line
    assert (pictures / "runs" / "first" / "report.html").is_file()


def test_an_interrupted_run_goes_on_with_the_command_written(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    assert "`alexnet train --resume runs/first`" in README
    if not (pictures / "runs" / "first").exists():
        words = ["train", "--preset", "tiny-64", "--data", "pictures/", "--out", "runs/first"]
        assert main([*words, "--epochs", "1"]) == 0
    assert main(["train", "--resume", "runs/first"]) == 0


def test_every_command_and_preset_named_exists() -> None:
    names = {command.name for command in COMMANDS}
    for used in re.findall(r"alexnet ([a-z]+)(?= |`)", README):
        assert used in names, used
    rows = re.findall(r"^\| (`[^|]*) \|[^|]*\| ([\d,· ]*) \|$", README, re.M)
    assert len(rows) >= 9
    for cell, counts in rows:
        for name, count in zip(re.findall(r"`([^`]+)`", cell), counts.split("·"), strict=False):
            if name != "torchvision:NAME":
                assert network.parameters(presets.preset(name).network) == int(count.replace(",", "")), name


def test_all_presets_are_in_the_table() -> None:
    for name in presets.names():
        assert f"`{name}`" in README


def test_the_table_of_results_is_what_the_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import table

    assert table.insert(README, table.table()) == README, "run `python -m experiments.table`"
    page = (ROOT / "docs" / "speed.md").read_text()
    made = table.insert(page, table.speed_tables(), table.SPEED_BEGIN, table.SPEED_END)
    assert made == page, "run `python -m experiments.table`"


def test_every_place_named_is_there() -> None:
    listing = README.split("## What is where")[1]
    for place in re.findall(r"^  (\w+/|\w+\.py) ", listing, re.M):
        assert (ROOT / "src" / "alexnet" / place).exists(), place
    for place in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / place).exists(), place


def test_the_python_lines_run(pictures: Path) -> None:
    import torch

    import alexnet

    assert 'alexnet.create_model("paper", num_classes=1000)' in README
    model = alexnet.create_model("paper", num_classes=1000)
    acts = model.taps(torch.zeros(1, 3, 224, 224))
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert list(acts)[:4] == ["conv1", "relu1", "norm1", "pool1"]
    assert list(acts)[-1] == "fc8"


def test_make_demo_says_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in commands("make "):
        assert f"{line.split()[1]}:" in makefile


def test_the_help_is_found_without_torch() -> None:
    code = "import sys; from alexnet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
