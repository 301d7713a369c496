"""`alexnet reproduce`: tables from records, trainings of what is missing, and one line for what cannot be done."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.progress import duration
from alexnet.reproduce import cost
from alexnet.reproduce.claims import CLAIMS
from alexnet.reproduce.records import read_records
from alexnet.reproduce.scales import SCALES
from tests.reproduce.made import record


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SCALES["digits"].settings, "train.epochs": "1", "schedule.milestones": ""}
    settings |= {"network.fc4.units": "16", "network.conv2.kernels": "8", "network.conv3.kernels": "8"}
    monkeypatch.setitem(SCALES, "digits", dataclasses.replace(SCALES["digits"], settings=settings))
    monkeypatch.setattr(cost, "step_seconds", lambda config, **_: 0.2)


def fails(words: list[str], capsys: pytest.CaptureFixture[str], told: str, code: int = 2) -> None:
    assert main(["reproduce", *words]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("warning")]
    assert len(lines) == 1 and told in lines[0] and not out


def test_without_arguments_every_claim_has_its_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(f"{claim.number:2}  {claim.title}" in out for claim in CLAIMS)
    assert f"of {len(CLAIMS)} claims are confirmed at some scale" in out


def test_json_has_every_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for seed, (better, worse) in enumerate(((1.0, 2.0), (1.5, 2.6))):
        record("paper", seed, "cifar10", top1_error=better).save(tmp_path / "records")
        record("no-colour", seed, "cifar10", top1_error=worse).save(tmp_path / "records")
    assert main(["reproduce", "6", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["claims"]
    [one] = [
        one for one in found if one["scale"] == "cifar10" and one["decides"] and "cifar10/no-colour/0" in one["records"]
    ]
    assert one["claim"] == 6 and one["paper"] and one["ours"]["better"][:2] == [1.0, 1.5]
    assert one["difference"] == pytest.approx(1.05, abs=1e-6) or one["n"] > 2  # where the package has more seeds
    assert {"verdict", "interval", "n", "command", "seconds"} <= one.keys()


def test_what_is_missing_is_trained_and_told(capsys: pytest.CaptureFixture[str], tmp_path: Path, quick: None) -> None:
    words = ["reproduce", "4", "--scale", "digits", "--seeds", "2", "--out", str(tmp_path), "--threads", "1", "--again"]
    assert main([*words, "--cost"]) == 0
    out, err = capsys.readouterr()
    assert "4 runs to train at digits: about 4 s by a probe of this machine" in err and not out
    assert not (tmp_path / "runs").exists()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "4/4: digits/no-overlap-1" in err and "paper against no-overlap" in out and "n = 2" in out
    assert len(read_records([tmp_path / "records"]).runs) == 4
    assert main(words) == 0  # and not again
    assert "nothing to train" in capsys.readouterr().err


def test_a_report_is_written_as_html_and_markdown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for seed in (0, 1):
        record("paper", seed, "cifar10", top1_error=10.0 + seed).save(tmp_path / "records")
        record("no-colour", seed, "cifar10", top1_error=12.5 + seed).save(tmp_path / "records")
    for name, told in (("a.html", "</html>"), ("deep/b.md", "## 6. Colour noise")):
        assert main(["reproduce", "6", "--out", str(tmp_path), "--report", str(tmp_path / name)]) == 0
        assert told in (tmp_path / name).read_text()
    capsys.readouterr()
    fails(["--report", str(tmp_path / "c.pdf")], capsys, "should end in .html or .md")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["19"], "there is no claim 19; they are 1 to 18"),
        (["three"], "claim 'three' should be a number"),
        (
            ["3", "--scale", "cifar"],
            "--scale: 'cifar' should be digits, cifar10, tiny-imagenet or imagenet; did you mean cifar10?",
        ),
        (["3", "--seeds", "4"], "--seeds is of runs to train: say with --scale"),
        (["3", "--data", "x"], "--data is of runs to train"),
        (["6", "--scale", "digits"], "claim 6 (Colour noise lowers the error) is not measured at digits"),
        (["3", "--scale", "cifar10", "--seeds", "0"], "--seeds 0"),
        (["3", "--scale", "cifar10", "--again"], "needs the images of CIFAR-10: say with --data SRC where they are"),
    ],
)
def test_a_wrong_request_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda config, **_: 0.01)
    fails([*words, "--out", str(tmp_path)], capsys, told)
    assert not (tmp_path / "runs").exists()


def test_images_of_other_classes_are_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda config, **_: 0.01)
    words = ["reproduce", "2", "--scale", "tiny-imagenet", "--again", "--data", "digits", "--out", str(tmp_path)]
    assert main(words) == 2
    assert "digits has 10 classes, but Tiny ImageNet has 200" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_damaged_records_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = record("paper", 0, top1_error=1.0).save(tmp_path / "records")
    path.write_text("{")
    fails(["--out", str(tmp_path)], capsys, str(path))


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (89.6, "90 s"), (600, "10 min"), (7200, "2.0 h")])
def test_a_duration_is_in_the_unit_that_suits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_ledger_is_read_without_torch() -> None:
    code = "import sys; from alexnet.cli import main; main(['reproduce']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
