"""Every flag of every command with absurd values: one line in our words, and an exit code; parsing only, no work."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet import cli, presets
from alexnet.ablations import ABLATIONS
from alexnet.cli import COMMANDS, command_parser
from alexnet.config import fields, replace
from alexnet.errors import UsageError

ABSURD = (
    "",
    "x",
    "-1",
    "0",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "１",
    "0x10",
    "1_0",
    "9" * 400,
    "9" * 5000,
    "x" * 5000,
    "caf\udce9",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    ",",
    ":",
    "*",
    "..",
    "[]",
    "{",
    "\u202etxt.exe",
)
PYTHON = re.compile(
    r"invalid literal|unpack|NoneType|operand|object has no attribute|Errno|Traceback|could not convert|embedded null|"
    r"codec can|bug:|invalid \w+ value|recursion|argument must be|out of range|is not defined"
)
# What each command needs besides, none of which is there, so that nothing is begun.
NEEDED = {
    "train": ["--data", "absent"],
    "evaluate": ["absent"],
    "predict": ["absent", "absent.png"],
    "baseline sparse-coding": ["--data", "absent"],
    "baseline sift-fv": ["--data", "absent"],
    "summary": ["absent"],
    "presets": ["absent", "paper"],
    "config": ["absent"],
    "data prepare": ["absent", "absent-too"],
    "data verify": ["absent"],
    "data info": ["absent"],
    "report": ["absent"],
    "reproduce": ["absent", "absent"],
    "export": ["absent", "--format", "onnx", "--out", "absent.onnx"],
    "bench": ["newest", "--records", "absent", "extra"],
    "doctor": ["extra"],
    "completion": ["absent"],
}


def verbs(parser: argparse.ArgumentParser, name: str = "") -> dict[str, list[argparse.Action]]:
    """The arguments of every command, `data prepare` among them, from the parser itself."""
    found: dict[str, list[argparse.Action]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                found |= verbs(sub, f"{name} {word}".strip())
    return found or {name: [action for action in parser._actions if action.nargs != 0]}


VERBS = verbs(command_parser())
FLAGS = [
    (verb, action.option_strings[-1]) for verb, actions in VERBS.items() for action in actions if action.option_strings
]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must fail with one line of ours; returns it."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        capsys.readouterr()
        code = cli.main(list(words))
        out, err = capsys.readouterr()
        assert code in (1, 2), (words, err)
        assert out == "" and err.startswith("alexnet: ") and err.count("\n") == 1, (words, out, err)
        assert err[:-1].isprintable() and len(err) < 1000, (words, err)
        assert not PYTHON.search(err), err
        assert list(tmp_path.iterdir()) == []
        return err.removeprefix("alexnet: ").rstrip("\n")

    return call


def test_every_command_is_tried() -> None:
    assert VERBS.keys() == NEEDED.keys()
    assert {command.name for command in COMMANDS} == {verb.split()[0] for verb in VERBS}


@pytest.mark.parametrize(("verb", "flag"), FLAGS, ids=lambda value: value.replace(" ", "-"))
def test_a_flag_with_an_absurd_value_is_told_in_one_line(verb: str, flag: str, refused: Callable[..., str]) -> None:
    for value in ABSURD:
        refused(*verb.split(), f"{flag}={value}", *NEEDED[verb])
        refused(*verb.split(), *NEEDED[verb], flag, value)


@pytest.mark.parametrize("verb", NEEDED)
def test_an_absurd_word_is_told_in_one_line(verb: str, refused: Callable[..., str]) -> None:
    positional = [action for action in VERBS[verb] if not action.option_strings and action.dest != "help"]
    for value in ABSURD:
        for place in range(len(positional)):
            words = list(NEEDED[verb])
            words[min(place, len(words) - 1)] = value
            refused(*verb.split(), *words)


@pytest.mark.parametrize("value", ABSURD)
def test_an_absurd_command_is_told_in_one_line(value: str, refused: Callable[..., str]) -> None:
    if not value.startswith("-"):
        refused(value)
        refused("data", value)
    refused("summary", "paper", f"--{value or 'x'}")


def test_settings_with_absurd_values_are_taken_or_told() -> None:
    config = presets.preset("digits")
    for entry in fields(config):
        for value in ABSURD:
            try:
                replace(config, {entry.path: value})
            except UsageError as error:
                assert str(error).isprintable() and not PYTHON.search(str(error)), (entry.path, value)


@pytest.mark.parametrize("value", [value for value in ABSURD if "\0" not in value])
def test_absurd_settings_on_the_command_line(value: str, refused: Callable[..., str]) -> None:
    for path in ("optimizer.lr", "train.epochs", "network.conv1.kernels", "data.center", "augment.mirror"):
        if (path, value) != ("augment.mirror", "0") and not value.startswith("--"):
            assert path in refused("summary", "digits", f"--{path}={value}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--bath-size", "3"), "unknown flag --bath-size; did you mean --train.batch_size?"),
        (("train", "--bath", "3"), "unknown flag --bath; did you mean --train.batch_size?"),
        (("train", "--bfloat16"), "unknown flag --bfloat16; did you mean --precision bfloat16?"),
        (("train", "--bf16"), "unknown flag --bf16; did you mean --precision bfloat16?"),
        (("train", "--hinge"), "unknown flag --hinge; did you mean --train.task hinge?"),
        (("evaluate", "run", "--val"), "unknown flag --val; did you mean --split val?"),
        (
            ("train", "--precision", "bf16"),
            "argument --precision: 'bf16' should be float32, bfloat16 or auto; did you mean bfloat16?; see",
        ),
        (
            ("summary", "digits", "--train.precision", "bf16"),
            "train.precision 'bf16' should be float32, bfloat16 or auto; did you mean bfloat16?",
        ),
        (("train", "--batch-size", "3"), "unknown flag --batch-size; did you mean --train.batch_size?"),
        (("train", "--foo", "3"), "unknown flag --foo; see `alexnet train --help`"),
        (("evaluate", "run", "--batch", "3"), "unknown flag --batch; see `alexnet evaluate --help`"),
        (("summary", "paper", "--zzz"), "unknown flag --zzz; see `alexnet summary --help`"),
        (("evaluate", "run", "--chekpoint", "last"), "unknown flag --chekpoint; did you mean --checkpoint?"),
        (("train", "--learning-rate", "3"), "unknown flag --learning-rate; see `alexnet train --help`"),
        (
            ("train", "--optimizer.lrr", "3"),
            "optimizer.lrr is not a setting; did you mean optimizer.lr?; `alexnet train --help` lists them",
        ),
        (("predict", "m", "a.png", "--top", "x"), "argument --top: 'x' should be a whole number; see"),
        (("predict", "m", "a.png", "--views", "3"), "argument --views: 3 should be 1, 5 or 10; see"),
        (("data", "show"), "argument ACTION: 'show' should be prepare, verify or info; see"),
        (
            ("evaluate", "m", "--weights", "1,x"),
            "--weights '1,x' should be numbers, one per model, as 0.6,0.4, or search",
        ),
        (("evaluate", "m", "--device", "cpu:7"), "device 'cpu:7' should be auto, cpu, cuda or cuda:N"),
        (("presets", "paper", "--without", "lrn,lrn"), "without names lrn twice; leave one of them out"),
        (("presets", "paper", "--without", "lrn", "--without", "lrn"), "without names lrn twice"),
        (("presets", "paper", "--without", "lrn,"), "without '' is unknown; known: lrn"),
        (("summary", "absent.toml"), "absent.toml: No such file or directory"),
        (("summary", ""), "no preset is named ''"),
    ],
)
def test_what_is_said(words: tuple[str, ...], said: str, refused: Callable[..., str]) -> None:
    assert refused(*words).startswith(said)


def test_ideas_may_be_named_with_spaces() -> None:
    (action,) = (action for action in VERBS["summary"] if action.dest == "without")
    assert action.type("lrn, dropout") == ["lrn", "dropout"]  # type: ignore[misc, operator]
    assert set(ABLATIONS) >= {"lrn", "dropout"}


def test_the_module_is_the_command() -> None:
    words: Any = [sys.executable, "-m", "alexnet"]
    assert subprocess.run([*words, "--version"], capture_output=True, text=True).stdout.startswith("alexnet ")
    done = subprocess.run([*words, "summry"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "alexnet: unknown command 'summry'; did you mean summary?\n"
