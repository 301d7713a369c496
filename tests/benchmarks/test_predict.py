"""The prediction benchmark on a small network: every result is whole, and what is not installed is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import predict, start
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
    monkeypatch.setattr(predict.Bench, "_peers", lambda self: {"a peer": lambda views: self.plain.model(views)})


def test_every_result_has_value_spread_peers_and_reference(tmp_path: Path) -> None:
    answer = run("predict", [*SMALL, "--records", str(tmp_path)], say=lambda line: None)
    assert answer.record.results
    for result in answer.record.results:
        assert result.spread and 0 < result.spread[0] <= result.value <= result.spread[1] and result.n == 2
        assert result.peers["a peer"] > 0 and result.ratio and result.ratio > 0
        assert result.reference_rate is None or result.reference_rate > 0
    assert answer.path and answer.path.parent.parent == tmp_path
    assert "these are the first results of predict" in answer.text


def test_ours_is_the_engine_in_each_precision_beside_torch() -> None:
    answer = run("predict", SMALL, keep=False, say=lambda line: None)
    assert {result.by for result in answer.record.results} == {
        f"ours engine {precision}" for precision in ("float32", "bfloat16", "int8")
    }
    assert all(
        "ours torch float32" in result.peers for result in answer.record.results if result.name.endswith(" float32")
    )
    assert answer.path is None


def test_a_peer_in_a_narrower_precision_is_beside_ours_in_that_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a peer", "a peer bfloat16", "a peer int8")
    monkeypatch.setattr(
        predict.Bench, "_peers", lambda self: dict.fromkeys(names, lambda views: self.plain.model(views))
    )
    answer = run("predict", SMALL, keep=False, say=lambda line: None)
    for result in answer.record.results:
        assert ("a peer bfloat16" in result.peers) == (not result.name.endswith(" float32"))
        assert ("a peer int8" in result.peers) == ("int8" in result.name) and "a peer" in result.peers


def test_a_start_has_every_stage(tmp_path: Path) -> None:
    path, _ = predict.fresh_run("digits", tmp_path)
    stages = start.one_start("engine", str(path))
    assert tuple(stages) == start.STAGES and min(stages.values()) > 0


def test_our_contenders_compute_the_same() -> None:
    from argparse import Namespace

    bench = predict.Bench(Namespace(preset="digits", no_compile=True, side=32))
    images = bench.pictures(3)
    answers = [net.probabilities(images, 5) for name, net in bench.ours.items() if name.endswith("float32")]
    assert len(answers) == 2
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


@pytest.mark.slow
def test_the_peers_compute_what_ours_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    for library in ("onnxruntime", "openvino", "nncf"):
        pytest.importorskip(library, reason=f"{library} is not installed (extra: dev)")
    monkeypatch.undo()
    monkeypatch.setattr(predict, "BACKENDS", {"engine": ("float32",)})
    bench = predict.Bench(Namespace(preset="digits", no_compile=True, side=32))
    images = bench.pictures(3)
    view = bench.plain.view(torch.from_numpy(images), 1, 1, False).contiguous()
    (expected,) = bench.plain.logits(images, [(1, 1, False)])
    for name, close in (("ONNX Runtime", 1e-4), ("OpenVINO", 1e-4), ("OpenVINO int8", 0.2)):
        answer = bench.peers[name](view)
        found = np.asarray(next(iter(answer.values())) if hasattr(answer, "values") else answer[0])
        assert np.abs(found - expected).max() <= close * np.abs(expected).max(), name
