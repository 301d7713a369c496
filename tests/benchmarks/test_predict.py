"""The prediction benchmark on a small network: every result is whole, and what is not installed is left out."""

from pathlib import Path

import pytest
import torch

from alexnet.inference import backends
from benchmarks import predict
from benchmarks.registry import run

SMALL = [
    "--preset",
    "digits",
    "--turns",
    "2",
    "--batches",
    "1",
    "3",
    "--views",
    "1",
    "5",
    "--no-compile",
    "--no-start",
    "--side",
    "32",
]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "READ", 1 << 16)
    monkeypatch.setattr(predict.Bench, "_peers", lambda self: {"a peer": lambda views: self.model(views)})


def test_every_result_has_value_spread_peers_and_reference(tmp_path: Path) -> None:
    answer = run("predict", [*SMALL, "--records", str(tmp_path)], say=lambda line: None)
    assert answer.record.results
    for result in answer.record.results:
        assert result.spread and 0 < result.spread[0] <= result.value <= result.spread[1] and result.n == 2
        assert result.peers["a peer"] > 0 and result.ratio and result.ratio > 0
        assert result.reference_rate is None or result.reference_rate > 0
    assert answer.path and answer.path.parent.parent == tmp_path
    assert "these are the first results of predict" in answer.text


def test_torch_alone_answers_where_no_backend_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in backends.BACKENDS.values():
        monkeypatch.setattr(kind, "installed", lambda name=kind.name: name == "torch")
    answer = run("predict", SMALL, keep=False, say=lambda line: None)
    assert {result.by for result in answer.record.results} == {"ours torch float32", "ours torch bfloat16"}
    assert answer.path is None


def test_a_start_has_every_stage(tmp_path: Path) -> None:
    path, _ = predict.fresh_run("digits", tmp_path)
    stages = predict.one_start("torch", str(path))
    assert tuple(stages) == predict.STAGES and min(stages.values()) > 0


def test_our_contenders_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    bench = predict.Bench(Namespace(preset="digits", no_compile=True, side=32))
    images = torch.from_numpy(bench.pictures(3))
    answers = [net.probabilities(images, 5) for name, net in bench.ours.items() if name.endswith("float32")]
    assert all(torch.allclose(answer, answers[0], atol=1e-5) for answer in answers)
