"""The textbook's network is the described one, and the questions about steps are answered whole on small networks."""

import dataclasses
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from alexnet import presets
from alexnet.architecture import infer_shapes
from alexnet.model.zoo import build
from benchmarks import parity, run, train_step
from benchmarks import registry as questions
from benchmarks.steps import textbook


@pytest.mark.parametrize("name", ["digits", "tiny-64", "cifar-26", "one-gpu"])
def test_the_textbook_network_gives_our_logits(name: str) -> None:
    network = presets.preset(name).network
    ours, theirs = build(network, 3).eval(), textbook(network).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, network.image, network.image) * 60
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


def test_a_layer_that_torch_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"torch.nn has no layer like mapnorm1 of cifar-18"):
        textbook(presets.preset("cifar-18").network)


def test_a_step_is_measured_beside_its_peers() -> None:
    answer = run("train", ["--preset", "digits", "--batch", "8", "--turns", "2"], keep=None)
    steps = [entry for entry in answer["figures"] if entry["unit"] == "images/s"]
    assert [entry["name"] for entry in steps] == [
        f"training step, digits, batch 8, {kind}{end}"
        for kind in ("bfloat16", "float32")
        for end in ("", ", beside itself without LRN")
    ]
    for entry in steps:
        assert entry["n"] == 2 and entry["value"] > 0 and entry["ratio"] > 0
    first, memory = steps[0], answer["figures"][2]
    assert set(first["peers"]) == {train_step.BOOK, train_step.BOOK_LAST, train_step.BOOK_KEPT}
    assert memory["unit"] == "MiB" and memory["value"] > 0 and set(memory["peers"]) == set(first["peers"])
    assert first["limit_fraction"] == pytest.approx(first["value"] / first["limit"], rel=0.01)


def train_step_options(**changes: object) -> Namespace:
    given = {"preset": "digits", "batch": 8, "turns": 1, "device": "cpu", "processor_time": False}
    return Namespace(**{**given, **changes})


def test_a_worker_that_ends_is_named() -> None:
    expected = pytest.raises(RuntimeError, match="'nobody' ended")
    with train_step.Worker("nobody", train_step_options()) as worker, expected:
        worker.step()


def test_a_network_without_a_textbook_form_is_measured_alone() -> None:
    answer = run("train", ["--preset", "cifar-18", "--batch", "4", "--turns", "1"], keep=None)
    assert all(entry["peers"] == {} for entry in answer["figures"])


@pytest.mark.parametrize("name", ["digits", "cifar-18"])
def test_the_layers_times_cover_the_step(name: str) -> None:
    answer = run("train", ["--preset", name, "--batch", "8", "--turns", "1", "--layers"], keep=None)
    network = presets.preset(name).network
    told = " ".join(entry["name"].partition(" of ")[0] for entry in answer["figures"])
    assert all(told.split().count(entry.layer.name) == 2 for entry in infer_shapes(network))  # once for each precision
    assert all(told.split().count(word) == 2 for word in ("loss", "update", "step"))


def test_a_steps_operations_leave_out_the_gradient_of_the_images() -> None:
    entries = infer_shapes(presets.preset("paper").network)
    total = sum(entry.connections for entry in entries)
    assert train_step.operations(entries, 1) == 2 * (3 * total - entries[0].connections)


def test_parity_compares_with_weights_moved_by_a_rounding() -> None:
    words = ["--preset", "digits", "--batch", "16", "--steps", "24", "--seeds", "1"]
    gap, *ends = run("parity", words, keep=None)["figures"]
    assert 0 < gap["value"] < 3 * gap["peers"][parity.MOVED] + 1e-4
    assert [entry["by"] for entry in ends] == [parity.FLOAT, parity.HALF]
    assert abs(ends[0]["value"]) < 0.05


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        run("train", ["--device", "cuda"], keep=None)


def test_moving_weights_changes_them_by_a_rounding() -> None:
    model = build(dataclasses.replace(presets.preset("digits").network), 0)
    before = [p.clone() for p in model.parameters()]
    parity.move(model, 1)
    changes = torch.cat(
        [((a - b) / b.abs().clamp_min(1e-12)).flatten() for a, b in zip(before, model.parameters(), strict=True)]
    )
    assert 0 < changes.abs().max() < 1e-6


def test_the_normalizations_and_the_update_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import lrn

    monkeypatch.setattr(lrn, "WEIGHTS", 10_000)
    figures = run("lrn", ["--batch", "1", "--turns", "1"], keep=None)["figures"]
    assert len(figures) == 9 and all(entry["limit"] > 0 for entry in figures)
    assert "torch in float32" in figures[0]["peers"]


def test_feeding_and_preparing_are_measured(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for i in range(6):
        path = tmp_path / "images" / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (280, 300, 3), dtype=np.uint8)).save(path)
    words = [str(tmp_path / "images"), "--turns", "1", "--workers", "1", "--copies", "4"]
    only = [word for kind in ("feed", "statistics", "waiting") for word in ("--only", kind)]
    # In a process of its own: worker processes forked beside other libraries' threads may crash.
    done = subprocess.run(
        [sys.executable, "-m", "alexnet.cli", "bench", "data", *words, *only, "--json"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    assert (tmp_path / answer["path"]).is_file()
    figures = answer["figures"]
    assert [entry["by"] for entry in figures[:2]] == ["JPEG store", "raw store"]
    assert figures[0]["peers"]["torchvision"] > 0 and figures[0]["limit"] > 0
    assert [entry["unit"] for entry in figures[2:]] == ["%", "%", "%"]
    assert all(0 <= entry["value"] <= 100 for entry in figures[3:])


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="should be a folder of class folders"):
        run("data", [str(tmp_path)], keep=None)


def test_all_questions_are_told_in_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    step = ("train", ("--preset", "digits", "--batch", "4", "--turns", "1"))
    within = ("lrn", ("--batch", "1", "--turns", "1", "--only", "within"))
    monkeypatch.setattr(questions, "TOUR", (step, within))
    monkeypatch.chdir(tmp_path)
    answer = questions.everything()
    assert len(answer["records"]) == 2
    assert "training step, digits" in answer["text"] and "within-map" in answer["text"]
    assert "these are the first figures of lrn" in answer["text"] and "data was not measured" in answer["text"]
    again = questions.newest()
    assert {entry["name"] for entry in again["figures"]} == {
        entry["name"] for record in answer["records"] for entry in record["figures"]
    }


def test_no_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no records of"):
        questions.newest(tmp_path)


@pytest.mark.parametrize("name", ["turns", "batch"])
def test_a_count_below_one_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} 0 should be at least 1"):
        run("train", ["--preset", "digits", f"--{name}", "0"], keep=None)
