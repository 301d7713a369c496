"""`alexnet baseline` as a user meets it: its words, its exit codes, and what it does when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.baselines.settings import KINDS, fields
from alexnet.cli import main

FLAGS = ["--size", "16", "--detail", "32", "--patches", "16", "--step", "8", "--components", "8", "--samples", "2000"]
FLAGS += ["--penalties", "1e-5,1e-3", "--epochs", "2", "--batch-size", "8", "--threads", "1"]
SPARSE = ["--members", "llc-hog,l1-colour", "--words", "16", "--atoms", "8", "--iterations", "5"]


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code, words
    return capsys.readouterr()


def test_fit_measure_and_predict(seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "sparse")
    said, noted = call(capsys, "baseline", "sparse-coding", "--data", seven, "--out", out, *FLAGS, *SPARSE)
    assert said.startswith(f"{out}: 2 models in ") and "llc-hog: validation top-1 error " in said
    assert "average: validation top-1 error " in said and said.endswith(f"`alexnet evaluate {out}`\n")
    assert "56 training images, 21 for validation, of 7 classes" in noted
    assert "l1-colour: encoding 56 images, 80 features each" in noted
    said, _ = call(capsys, "evaluate", out)
    assert said.startswith(f"{out} on {seven} test, centre view: top-1 error ") and "majority" in said
    lines = (tmp_path / "sparse" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["models"][0]["baseline"] for line in lines] == ["sparse-coding"]
    picture = next((seven / "test").glob("*/*.png"))
    said, _ = call(capsys, "predict", out, picture, "--json")
    assert len(json.loads(said)["predictions"][0]["labels"]) == 5
    _, told = call(capsys, "predict", out, picture, "--views", "10", code=2)
    assert "a baseline sees the whole square; give --views 1" in told
    _, told = call(capsys, "report", out, code=2)
    assert told == f"alexnet: {out} is a baseline, not the run of a network, which is needed here\n"
    _, told = call(capsys, "baseline", "sift-fv", "--resume", out, code=2)
    assert f"{out} is of the kind sparse-coding, not sift-fv" in told
    said, _ = call(capsys, "baseline", "sparse-coding", "--resume", out, "--json")
    result = json.loads(said)
    assert result["kind"] == "sparse-coding" and result["run"] == out
    assert result["validation"]["count"] == 21 and result["temperature"] > 0
    assert [member["name"] for member in result["members"]] == ["llc-hog", "l1-colour"]
    assert [member["trials"] for member in result["members"]] == [4, 4]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the following arguments are required: KIND"),
        (("sift",), "'sift' should be sparse-coding or sift-fv; did you mean sift-fv?"),
        (("sift-fv",), "name the images with --data SRC, or a fit to go on with by --resume DIR"),
        (("sift-fv", "--data", "absent"), "absent: there is no such folder or data set"),
        (("sift-fv", "--data", "digits", "--patches", "12x"), "--patches '12x' should be whole numbers of at least 4"),
        (("sift-fv", "--data", "digits", "--penalties", "0"), "--penalties '0' should be numbers above 0, as 0.1,0.01"),
        (("sift-fv", "--data", "digits", "--size", "4"), "--size '4' should be a whole number of at least 8"),
        (("sift-fv", "--data", "digits", "--patches", "200"), "a patch of 200 pixels does not fit into squares of 64"),
        (("sift-fv", "--data", "digits", "--words", "9"), "unknown flag --words"),
        (("sift-fv", "--resume", "absent"), "absent is not a baseline: it has no baseline.json"),
        (("sift-fv", "--resume", "x", "--out", "y"), "--resume goes on in x: leave --out out"),
    ],
)
def test_a_wrong_request_is_told_in_one_line(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said, noted = call(capsys, "baseline", *words, code=2)
    assert said == "" and noted.startswith("alexnet: ") and noted.count("\n") == 1
    assert told in noted
    assert not list(tmp_path.iterdir())


def test_a_source_with_one_class_is_refused(seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = call(capsys, "baseline", "sift-fv", "--data", seven / "train" / "ant", "--out", tmp_path / "x", code=2)
    assert told.count("\n") == 1 and not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_help_names_every_setting_with_its_default(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["baseline", kind, "--help"])
    said = capsys.readouterr().out
    for entry in fields(kind):
        assert f"--{entry.path.replace('_', '-')}" in said
    assert said.count("(default: ") + said.count("(default:\n") >= len(list(fields(kind)))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_ends_it_with_what_to_do_next(seven: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    words = [sys.executable, "-m", "alexnet", "baseline", "sparse-coding", "--data", str(seven), "--out", str(out)]
    flags = [*FLAGS, *SPARSE, "--epochs", "100000"]
    child = subprocess.Popen([*words, *flags], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "work" / "llc-hog" / "machines.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 143
    again = f"alexnet baseline sparse-coding --resume {out}"
    assert told.splitlines()[-1] == f"alexnet: stopped; what is finished is kept: go on with `{again}`"
    assert not list(out.rglob("*.part"))
