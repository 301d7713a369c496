"""A fit: what it leaves behind, that it goes on exactly where it was stopped, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.baselines import features as features_module
from alexnet.baselines.directory import BaselineRun, read_arrays
from alexnet.baselines.features import Features, FullDisk
from alexnet.baselines.fit import fit_baseline, resume_baseline
from alexnet.errors import DataError, RunError, UsageError
from alexnet.progress import Progress
from tests.baselines.conftest import KINDS, SMALL


class Stop(Exception):
    """A kill, at a place of our choosing."""


class Stopping(Progress):
    """Stops at the n-th thing that is said or counted."""

    def __init__(self, after: int) -> None:
        self.left = after

    def note(self, text: str) -> None:
        self.decoding(0, 0)

    def decoding(self, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


def learned(path: Path) -> dict[str, Any]:
    """All arrays, and what was chosen, without the seconds."""
    record = BaselineRun.open(path).record
    found: dict[str, Any] = {"temperature": record.temperature, "validation": record.validation}
    for member in record.members:
        found[member.name] = (member.penalty, member.epoch, member.trials, member.validation)
        arrays = read_arrays(BaselineRun.open(path).member_file(member.name))
        found |= {f"{member.name} {name}": value.tobytes() for name, value in arrays.items()}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_baseline_says_what_was_chosen(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue("fisher" if kind == "sift-fv" else "sparse")
    assert {entry.name for entry in path.iterdir()} == {
        "baseline.json", "environment.json", "source.json", "members", ".lock"
    }  # fmt: skip
    record = BaselineRun.open(path).record
    names = KINDS[kind].get("members", ("sift", "colour"))
    assert record.finished and record.kind == kind and tuple(member.name for member in record.members) == names
    assert record.validation is not None and record.validation.count == 21 and record.validation.loss is not None
    for member in record.members:
        assert len(member.trials) == 7  # two penalties for three epochs, then the better one
        third = {trial.penalty: trial.top1_error for trial in member.trials if trial.epoch == 3}
        (last,) = (trial for trial in member.trials if trial.epoch == 4)
        assert set(third) == {1e-5, 1e-2} and third[last.penalty] == min(third.values())
        best = min(trial.top1_error for trial in member.trials)
        assert member.validation.top1_error == best
        chosen = [t for t in member.trials if (t.penalty, t.epoch) == (member.penalty, member.epoch)]
        assert [trial.top1_error for trial in chosen] == [best]
        assert set(member.seconds) == {"vocabulary", "encoding", "svm"}
    assert record.seconds > 0


def test_colours_tell_the_classes_apart(fisher: Path) -> None:
    """Each class of the pictures has a colour of its own; chance is 86 %."""
    errors = {member.name: member.validation.top1_error for member in BaselineRun.open(fisher).record.members}
    assert errors["colour"] < 40


def test_a_fit_that_is_stopped_anywhere_ends_as_one_that_is_not(
    seven: Path, sparse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "SHARD", 16)  # several shards
    monkeypatch.setattr("alexnet.baselines.member.SHARD", 16)
    values = SMALL | KINDS["sparse-coding"] | {"members": ("llc-hog", "l1-colour")}
    whole = tmp_path / "whole"
    fit_baseline("sparse-coding", str(seven), whole, values)
    for after in (2, 5, 7, 10, 13, 17):
        out = tmp_path / f"stopped-{after}"
        with pytest.raises(Stop):
            fit_baseline("sparse-coding", str(seven), out, values, Stopping(after))
        with pytest.raises(RunError, match="exists; go on with `alexnet baseline sparse-coding --resume"):
            fit_baseline("sparse-coding", str(seven), out, values)
        for _ in range(3):
            with pytest.raises(Stop):
                resume_baseline(out, Stopping(4))
        with pytest.raises(UsageError, match="goes on with the settings of .*: leave --batch-size out"):
            resume_baseline(out, values={"batch_size": 4})
        resume_baseline(out, values={"threads": 2})
        assert learned(out) == learned(whole), after
        assert not (out / "work").exists()


def test_threads_change_nothing_and_the_seed_does(seven: Path, sparse: Path, tmp_path: Path) -> None:
    values = SMALL | KINDS["sparse-coding"]
    fit_baseline("sparse-coding", str(seven), tmp_path / "three", values | {"threads": 3})
    assert learned(tmp_path / "three") == learned(sparse)
    fit_baseline("sparse-coding", str(seven), tmp_path / "other", values | {"seed": 1})
    assert learned(tmp_path / "other") != learned(sparse)


def test_a_finished_one_is_resumed_at_once(sparse: Path) -> None:
    before = (sparse / "baseline.json").stat().st_mtime_ns
    assert resume_baseline(sparse, kind="sparse-coding").record.finished
    assert (sparse / "baseline.json").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="of the kind sparse-coding, not sift-fv"):
        resume_baseline(sparse, kind="sift-fv")


def stopped(seven: Path, out: Path, after: int = 5) -> Path:
    with pytest.raises(Stop):
        fit_baseline("sparse-coding", str(seven), out, SMALL | KINDS["sparse-coding"], Stopping(after))
    return out


def test_other_images_are_not_mixed_in(seven: Path, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    shutil.copytree(seven, source)
    out = stopped(source, tmp_path / "out")
    next((source / "train").glob("*/*.png")).unlink()
    with pytest.raises(RunError, match="is not what .* began with: 55 train images, not 56"):
        resume_baseline(out)
    assert resume_baseline(out, data=str(seven)).record.finished  # the same images elsewhere


def test_a_disk_without_room_is_told_before_anything_is_encoded(
    seven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1))
        with pytest.raises(FullDisk, match="GiB of disk while they are used, and 0.0 GiB are free: make room"):
            fit_baseline("sparse-coding", str(seven), tmp_path / "out", SMALL | KINDS["sparse-coding"])
    assert resume_baseline(tmp_path / "out").record.finished


def test_features_are_mapped_and_every_row_comes_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "GROUP", 1)  # one shard at a time
    shards = Features(tmp_path, "train", 1)
    for number in range(3):
        codes = np.full((20, 6), number, np.int8)
        codes[:, 0] = np.arange(20)
        arrays = {"codes": codes, "scales": np.ones(20, np.float32), "labels": np.arange(20)}
        features_module.save_arrays(shards.path(number), arrays)
    assert not shards.read(1).rows.codes.flags.owndata  # of the file, not a copy
    orders = []
    for epoch in (1, 2, 1):
        seen = []
        for rows, labels in shards.batches(5, seed=3, epoch=epoch):
            assert len(labels) == 5 and (rows.codes[:, 0] == labels).all()
            seen += [tuple(row) for row in rows.codes[:, :2]]
        assert sorted(seen) == sorted((i, number) for number in range(3) for i in range(20))
        orders.append(seen)
    assert orders[0] == orders[2] != orders[1]
    assert sum(len(labels) for _, labels in shards.batches(8, 3, 1)) == 48  # the last few of a group are left out


def test_grey_pictures_have_no_colour_member(tmp_path: Path) -> None:
    values = SMALL | {"members": ("colour", "hog"), "gaussians": 2, "epochs": 1, "size": 8, "mirror": False}
    run = fit_baseline("sift-fv", "digits", tmp_path / "out", values)
    assert [member.name for member in run.record.members] == ["hog"]
    assert run.record.validation is not None and run.record.validation.top1_error < 30
    with pytest.raises(DataError, match="the pictures are grey"):
        fit_baseline("sift-fv", "digits", tmp_path / "none", values | {"members": ("colour",)})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("sift", {}, "unknown kind 'sift'; did you mean sift-fv"),
        ("sift-fv", {"gausians": 3}, "sift-fv.gausians is not a setting; did you mean sift-fv.gaussians"),
        ("sift-fv", {"patches": (48,)}, "a patch of 48 pixels does not fit into squares of 32"),
        ("sift-fv", {"patches": (10,)}, "patches 10 should be a multiple of 4, the cells of colour"),
        ("sift-fv", {"members": ("surf",)}, "members 'surf' should be sift, hog, lbp or colour"),
        ("sift-fv", {"members": ("hog", "hog")}, "each once"),
        ("sift-fv", {"pyramid": ("2",)}, "pyramid '2' should be rows x columns"),
        ("sift-fv", {"gaussians": 4096, "components": 128}, "more than 1,048,576"),
        ("sparse-coding", {"members": ("vq-hog",)}, "members 'vq-hog' should be"),
        ("sparse-coding", {"words": 8, "neighbours": 9}, "neighbours 9 should be at most the 8 words"),
        ("sparse-coding", {"penalties": ()}, "penalties should name at least one"),
        ("sparse-coding", {"epochs": 0}, "epochs 0 should be a whole number of at least 1"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_made(
    kind: str, values: dict[str, Any], words: str, seven: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as told:
        fit_baseline(kind, str(seven), tmp_path / "out", SMALL | values)
    assert words in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(seven: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not a baseline"):
        fit_baseline("sparse-coding", str(seven), tmp_path, SMALL | KINDS["sparse-coding"])
    with pytest.raises(RunError, match="is a file"):
        fit_baseline("sparse-coding", str(seven), tmp_path / "letter.txt", SMALL | KINDS["sparse-coding"])
    with pytest.raises(RunError, match="is not a baseline"):
        resume_baseline(tmp_path)


def test_a_damaged_shard_is_told(seven: Path, tmp_path: Path) -> None:
    out = stopped(seven, tmp_path / "out", 6)
    shard = next((out / "work").glob("*/train-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(RunError, match="train-00000.safetensors is damaged"):
        resume_baseline(out)


def test_settings_of_a_resumed_fit_are_those_of_its_file(seven: Path, tmp_path: Path) -> None:
    out = stopped(seven, tmp_path / "out")
    document = json.loads((out / "baseline.json").read_text())
    document["settings"]["epochs"] = 0
    (out / "baseline.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="baseline.json: sparse-coding.epochs 0 should be a whole number"):
        resume_baseline(out)
