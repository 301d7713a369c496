"""The prediction benchmark on a small network: every figure is whole, and what is not installed is left out."""

from pathlib import Path

import pytest
import torch

from alexnet.inference import backends
from benchmarks import QUESTIONS, predict, run

SMALL = ["--preset", "digits", "--turns", "2", "--batches", "1", "3", "--views", "1", "5", "--no-compile", "--no-start"]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "READ", 1 << 16)
    monkeypatch.setattr(predict, "SIDE", 64)
    monkeypatch.setattr(predict.Bench, "_peers", lambda self: {"a peer": lambda views: self.model(views)})


def test_every_figure_has_value_spread_peers_and_limit(tmp_path: Path) -> None:
    record = run("predict", SMALL, tmp_path, lambda line: None)
    assert record["figures"]
    for entry in record["figures"]:
        low, high = entry["spread"]
        assert 0 < low <= entry["value"] <= high and entry["n"] == 2
        assert entry["peers"]["a peer"] > 0 and entry["ratio"] > 0
        assert entry["limit"] is None or entry["limit"] > 0
    assert Path(record["path"]).parent.parent == tmp_path
    assert "these are the first figures of predict" in record["text"]


def test_torch_alone_answers_where_no_backend_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "fastest", lambda precision: [backends.TorchBackend][: precision != "int8"])
    record = run("predict", SMALL, None, lambda line: None)
    assert {entry["by"] for entry in record["figures"]} == {"ours torch float32", "ours torch bfloat16"}
    assert record["path"] is None


def test_a_start_has_every_stage(tmp_path: Path) -> None:
    path, _ = predict.fresh_run("digits", tmp_path)
    stages = predict.one_start("torch", str(path))
    assert tuple(stages) == predict.STAGES and min(stages.values()) > 0


def test_our_contenders_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    bench = predict.Bench(Namespace(preset="digits", no_compile=True))
    images = torch.from_numpy(bench.pictures(3))
    found = [net.probabilities(images, 5) for name, net in bench.ours.items() if name.endswith("float32")]
    assert all(torch.allclose(one, found[0], atol=1e-5) for one in found)


def test_an_unknown_question_or_option_is_refused() -> None:
    with pytest.raises(ValueError, match="'speed' should be one of"):
        run("speed")
    with pytest.raises(ValueError, match="'--fast' is no option of `bench predict`"):
        run("predict", ["--fast"])


def test_the_questions_are_those_with_a_module() -> None:
    assert "predict" in QUESTIONS
