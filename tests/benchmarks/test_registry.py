"""The questions, the command that asks them from any folder, and all of them in one table."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import alexnet
from alexnet.cli import main
from alexnet.commands import bench
from alexnet.errors import AlexnetError, UsageError
from benchmarks import registry
from benchmarks.processes import python

SMALL = ("lrn", ("--batch", "1", "--turns", "1", "--only", "within"))
STEP = ("train", ("--preset", "digits", "--batch", "4", "--turns", "1", "--layers", "--side", "64"))


def test_every_question_has_a_module_and_every_measuring_module_a_question() -> None:
    modules = {
        path.stem for path in Path(registry.__file__).parent.glob("*.py") if "def measure(options" in path.read_text()
    }
    assert modules == set(registry.MODULES.values())
    for name in modules:
        assert callable(import_module(f"benchmarks.{name}").arguments)
    assert bench.QUESTIONS == registry.QUESTIONS


def test_the_suite_asks_what_can_be_asked() -> None:
    for question, words in registry.SUITE:
        parser = bench.Parser(prog="bench")
        registry.arguments(question, parser)
        parser.parse_args(list(words))
    assert {question for question, _ in registry.SUITE} | {"data"} == set(registry.QUESTIONS)


def test_the_command_works_from_any_folder(tmp_path: Path) -> None:
    command = python("alexnet.cli", "bench", SMALL[0], *SMALL[1], "--records", "kept", "--json")
    environment = {"PYTHONPATH": str(Path(alexnet.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["name"] == "lrn" and (tmp_path / answer["path"]).is_file()


def test_outside_a_source_tree_one_line_says_where_the_benchmarks_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(alexnet, "__file__", str(tmp_path / "site-packages" / "alexnet" / "__init__.py"))
    assert main(["bench", "train"]) == 2
    assert "part of the source tree" in capsys.readouterr().err


def test_the_tree_of_this_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    bench.find_benchmarks()
    assert Path(sys.path[0], "benchmarks", "registry.py").samefile(registry.__file__)


def test_all_questions_are_answered_in_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "SUITE", (STEP, SMALL))
    survey = registry.everything(folder=tmp_path)
    assert [answer["name"] for answer in survey.answers] == ["train", "lrn"]
    assert "step of digits" in survey.text and "within-map" in survey.text
    assert "these are the first results of lrn" in survey.text and "data was not measured" in survey.text
    again = registry.newest(tmp_path)
    names = {result["name"] for answer in survey.answers for result in answer["results"]}
    assert {result.name for result in again.record.results} == names


def test_a_question_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "SUITE", (("lrn", ("--turns", "0")),))
    with pytest.raises(AlexnetError, match="bench lrn --turns 0 ended with code 2"):
        registry.everything(folder=tmp_path)


def test_no_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no records of"):
        registry.newest(tmp_path)


def test_an_unknown_question_or_option_is_refused() -> None:
    with pytest.raises(UsageError, match="'speed' should be one of"):
        registry.run("speed")
    with pytest.raises(UsageError, match="'--fast' is not an option of `bench lrn`"):
        registry.run("lrn", ["--fast"])
