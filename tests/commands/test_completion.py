"""Completion files: shells accept them, and complete commands, flags, settings and values from the same tables."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from alexnet import cli, presets
from alexnet.ablations import ABLATIONS
from alexnet.commands.completion import SHELLS, command_verbs
from alexnet.config import fields


def needs(shell: str) -> str:
    """The shell's program; skips where it is not installed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    return program


@pytest.fixture
def file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Write a shell's completion file: `file("bash")`."""

    def write(shell: str) -> Path:
        assert cli.main(["completion", shell]) == 0
        path = tmp_path / f"_alexnet.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


def bash(path: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    code = (
        f"source {path}; COMP_LINE='{line}'; read -ra COMP_WORDS <<< \"$COMP_LINE\"\n"
        'case "$COMP_LINE" in *" ") COMP_WORDS+=("");; esac\n'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _alexnet; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_accepts_its_file(shell: str, file) -> None:
    done = subprocess.run([needs(shell), "-n", file(shell)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alexnet tr", ["train"]),
        ("alexnet data pre", ["prepare"]),
        ("alexnet data prepare --co", ["--codec"]),
        ("alexnet data prepare --codec ", ["yuv420", "raw", "jpeg"]),
        ("alexnet train --preset ", presets.names()),
        ("alexnet train --without ", list(ABLATIONS)),
        ("alexnet --json summary cod", ["code-145"]),
        ("alexnet presets paper one-g", ["one-gpu"]),
        ("alexnet train --optimizer.lr", ["--optimizer.lr"]),
        ("alexnet train --data.center ", ["mean-image", "imagenet", "none"]),
        ("alexnet train --augment.mirror ", ["true", "false"]),
        ("alexnet train --network.norm1.w", ["--network.norm1.within"]),
        ("alexnet train --network.norm1 ", ["none"]),
        ("alexnet evaluate run --views ", ["1", "5", "10"]),
        ("alexnet evaluate run --optimizer", []),
        ("alexnet completion f", ["fish"]),
        ("alexnet train --out ", []),  # the shell then completes names of files
        ("alexnet predict some", []),
    ],
)
def test_bash_completes(line: str, expected: list[str], file) -> None:
    needs("bash")
    assert bash(file("bash"), line) == expected


def test_zsh_knows_the_same_words(file) -> None:
    code = f"compdef() {{ }}; source {file('zsh')}; _alexnet_words \"$(_alexnet_verb train)\" --preset ''"
    done = subprocess.run([needs("zsh"), "-f", "-c", code], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (presets.names(), "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alexnet tr", "train"),
        ("alexnet data pre", "prepare"),
        ("alexnet train --preset ca", "caffe"),
        ("alexnet train --optimizer.l", "--optimizer.lr"),
    ],
)
def test_fish_completes(line: str, expected: str, file) -> None:
    code = f"source {file('fish')}; complete -C '{line}'"
    done = subprocess.run([needs("fish"), "--no-config", "-c", code], capture_output=True, text=True)
    assert expected in [row.partition("\t")[0] for row in done.stdout.splitlines()], done.stderr


def test_the_file_is_in_the_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash", "--json"]) == 0
    assert "complete -o" in json.loads(capsys.readouterr().out)["script"]


def test_every_command_and_setting_is_in_the_tables() -> None:
    verbs = {verb.name: verb for verb in command_verbs(cli.command_parser(), {"train"})}
    assert set(verbs[""].words) == {command.name for command in cli.COMMANDS} <= set(verbs)
    flags = {flag.name for flag in verbs["train"].flags}
    for name in presets.names():
        assert {f"--{entry.path}" for entry in fields(presets.preset(name))} <= flags
