"""The reference net is the described one, and the questions about steps are answered whole on small networks."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from alexnet import presets
from alexnet.architecture import infer_shapes
from alexnet.cli import main
from alexnet.commands.frame import Parser
from alexnet.config import Config
from alexnet.errors import AlexnetError
from alexnet.model.zoo import build
from benchmarks import device, parity, products, registry, train_step
from benchmarks.registry import run
from benchmarks.steps import Step, reference
from benchmarks.timing import seconds_of

SIDE = ["--side", "64"]  # of the matrices whose product is the reference rate


@pytest.mark.parametrize("name", ["digits", "tiny-64", "cifar-26", "one-gpu"])
def test_the_reference_net_gives_our_logits(name: str) -> None:
    network = presets.preset(name).network
    ours, theirs = build(network, 3).eval(), reference(network).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, network.image, network.image) * 60
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


def test_a_layer_that_torch_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"torch.nn has no layer like mapnorm1 of cifar-18"):
        reference(presets.preset("cifar-18").network)


class InThisProcess:
    """A worker that spares the start of a process."""

    def __init__(self, name: str, options: Namespace) -> None:
        self.call = train_step.make_call(name, options)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self) -> float:
        return seconds_of()(self.call)

    def peak(self) -> float:
        return 100.0


def test_a_step_is_measured_beside_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "Worker", InThisProcess)
    answer = run("train", ["--preset", "digits", "--batch", "8", "--turns", "2", *SIDE], keep=False)
    results = answer.record.results
    steps = [result for result in results if result.unit == "images/s"]
    assert [result.name for result in steps] == [
        f"training step, digits, batch 8, {kind}{end}"
        for kind in ("bfloat16", "float32")
        for end in ("", ", beside itself without LRN")
    ]
    for result in steps:
        assert result.n == 2 and result.value > 0 and result.ratio and result.ratio > 0
    first, memory = steps[0], results[2]
    assert set(first.peers) == {train_step.REFERENCE, train_step.REFERENCE_LAST, train_step.REFERENCE_KEPT}
    assert memory.unit == "MiB" and memory.ratio == 1 and set(memory.peers) == set(first.peers)
    assert first.reference_rate
    assert first.fraction_of_reference == pytest.approx(first.value / first.reference_rate, rel=0.01)


def train_step_options(**changes: object) -> Namespace:
    defaults = {"preset": "digits", "batch": 8, "turns": 1, "device": "cpu", "processor_time": False, "side": 64}
    return Namespace(**{**defaults, **changes})


@pytest.mark.parametrize("name", ["ours float32", "product float32, torch"])
def test_a_worker_steps_in_a_process_of_its_own(name: str) -> None:
    with train_step.Worker(name, train_step_options()) as worker:
        assert worker.step() > 0 and worker.step() > 0
        assert worker.peak() > 0


def test_a_worker_that_ends_is_named() -> None:
    expected = pytest.raises(AlexnetError, match="'nobody' ended")
    with train_step.Worker("nobody", train_step_options()) as worker, expected:
        worker.step()


@pytest.mark.parametrize(("name", "count"), [("digits", 7), ("cifar-26", 5), ("cifar-18", 2)])
def test_the_reference_net_contends_where_torch_has_every_layer(name: str, count: int) -> None:
    names = list(train_step.contenders(presets.preset(name), "cpu"))
    assert len(names) == count
    assert (train_step.REFERENCE in names) == (name != "cifar-18")


@pytest.mark.parametrize("name", ["digits", "cifar-18"])
def test_the_layers_times_cover_the_step(name: str) -> None:
    words = ["--preset", name, "--batch", "8", "--turns", "1", "--layers", *SIDE]
    results = run("train", words, keep=False).record.results
    network = presets.preset(name).network
    names = " ".join(result.name.partition(" of ")[0] for result in results).split()
    assert all(names.count(shape.layer.name) == 2 for shape in infer_shapes(network))  # once per precision
    assert all(names.count(word) == 2 for word in ("loss", "update", "step"))


@pytest.mark.parametrize(
    ("kind", "precision", "product"),
    [
        ("avx2", "bfloat16", "float32"),
        ("avx2", "float32", "float32"),
        ("avx512", "int8", "int8"),
        ("avx512-bf16", "bfloat16", "bfloat16"),
    ],
)
def test_the_reference_is_a_product_that_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, kind: str, precision: str, product: str
) -> None:
    monkeypatch.setattr(products, "instruction_sets", lambda: ((), kind))
    assert products.multiplied_as(precision) == product
    assert products.multiplied_as(precision, "cuda") == precision
    assert products.side_of(Namespace(side=None, device="cuda")) == products.SIDE_CUDA
    assert products.side_of(Namespace(side=7, device="cpu")) == 7


def test_the_rate_is_that_of_the_faster_product() -> None:
    options = Namespace(side=1000, device="cpu")
    seconds = {"product float32, torch": [2.0, 4.0, 2.0], "product float32, NumPy": [1.0, 1.0, 9.0]}
    assert train_step._rate(options, "float32", seconds) == (2e9, "NumPy")
    assert train_step._rate(options, "float32", {**seconds, "product float32, torch": [0.5]}) == (4e9, "torch")


def test_a_steps_operations_leave_out_the_gradient_of_the_images() -> None:
    entries = infer_shapes(presets.preset("paper").network)
    total = sum(entry.connections for entry in entries)
    assert train_step.operations(entries, 1) == 2 * (3 * total - entries[0].connections)


def test_parity_compares_with_weights_moved_by_a_rounding() -> None:
    words = ["--preset", "digits", "--batch", "16", "--steps", "24", "--seeds", "1"]
    gap, *ends = run("parity", words, keep=False).record.results
    assert 0 < gap.value < 3 * gap.peers[parity.MOVED] + 1e-4
    assert [result.by for result in ends] == [parity.FLOAT32, parity.BFLOAT16]
    assert abs(ends[0].value) < 0.05


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        run("train", ["--device", "cuda"], keep=False)


def test_a_device_is_compared_with_the_cpu_before_anything_is_timed() -> None:
    results = list(device.check(torch.device("cpu"), nets=(("digits", 4),), steps=5))
    assert len(results) == 2 * (1 + 5)
    for result in results:
        precision = "bfloat16" if "bfloat16" in result.name else "float32"
        assert result.reference_basis == "allowed"
        assert result.value == 0 if precision == "float32" else 0 < result.value <= (result.reference_rate or 0)
        assert result.name.startswith(f"cpu beside the CPU's float32, {precision}: ")


@pytest.mark.parametrize("what", ["LRN", "logits", "loss", "gradients", "update", "losses"])
@pytest.mark.parametrize("change", [0.9, float("nan")])
def test_a_device_that_computes_something_else_is_not_timed(
    what: str, change: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, calls = device.numbers, []

    def wrong(name: str, batch: int, where: torch.device, precision: str, steps: int) -> device.Numbers:
        found = dict(honest(name, batch, where, precision, steps))
        calls.append(name)
        if len(calls) in (2, 5) and what in found:  # the first is the truth
            found[what] = [tensor * change for tensor in found[what]]
        return found

    monkeypatch.setattr(device, "numbers", wrong)
    monkeypatch.setattr(device, "NETS", (("digits", 4),))
    monkeypatch.setattr(train_step, "check", partial(device.check, nets=(("digits", 4),), steps=3))
    monkeypatch.setattr(train_step, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["bench", "train", "--device", "cuda", "--preset", "digits"]) == 1
    told = capsys.readouterr().err
    gap = "nan" if change != change else "0.1"
    assert f"nothing is timed: cpu differs from the CPU's float32: float32 {what}" in told
    assert f" {gap} where {device.BOUNDS['float32'][what]:.2g} is allowed" in told
    assert "images/s" not in told


def test_what_contends_on_a_gpu_is_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def contenders(config: Config, where: str) -> dict[str, Callable[[], Step]]:
        found = train_step.contenders_on_cuda(config, where)
        assert sum("compiled" in name for name in found) == 4 and sum("graph" in name for name in found) == 4
        return {name: build for name, build in found.items() if "compiled" not in name}  # which takes minutes

    monkeypatch.setattr(train_step, "Worker", InThisProcess)
    monkeypatch.setattr(train_step, "contenders", contenders)
    step, memory, *_ = run(
        "train", ["--preset", "digits", "--batch", "8", "--turns", "2", *SIDE], keep=False
    ).record.results
    assert step.by in ("ours bfloat16", "ours bfloat16, graph") and len(step.also) == 1
    assert set(step.peers) == {train_step.REFERENCE, train_step.REFERENCE_TF32}
    assert step.fraction_of_reference and memory.unit == "MiB"


def test_the_wait_for_batches_is_a_share_of_the_time() -> None:
    result = device.waiting(presets.preset("digits"), torch.device("cpu"), "float32", 8, 2)
    assert result.unit == "%" and result.n == 2 and 0 <= result.value < 100
    assert result.also["images_per_second"] > 0


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
    results = run("lrn", ["--batch", "1", "--turns", "1"], keep=False).record.results
    assert len(results) == 9 and all(result.reference_rate and result.reference_rate > 0 for result in results)
    assert "torch in float32" in results[0].peers


@pytest.mark.parametrize("name", ["turns", "batch", "side"])
def test_a_count_below_one_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} 0 should be at least 1"):
        run("train", ["--preset", "digits", f"--{name}", "0"], keep=False)


def test_the_page_about_gpus_names_the_bounds_and_a_command_that_there_is() -> None:
    page = Path(train_step.__file__).parents[1].joinpath("docs", "cuda.md").read_text()
    for precision, bounds in device.BOUNDS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {precision}"))
        assert [float(cell) for cell in row.split("|")[2:-1]] == pytest.approx(list(bounds.values()), rel=1e-3)
    commands = [line.split("bench ")[1].split() for line in page.splitlines() if "/alexnet bench" in line]
    assert commands
    for question, *words in commands:
        parser = Parser(prog="bench")
        registry.arguments(question, parser)
        assert parser.parse_args(words).device == "cuda"
