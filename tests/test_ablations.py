"""The network without X: every ablation of every preset is built or refused in one line, and takes out just that."""

from __future__ import annotations

import itertools

import pytest
import torch

from alexnet import presets
from alexnet.ablations import ABLATIONS, without
from alexnet.architecture import LRN, Conv, Dropout, Full, Local, MapNorm, Pool, check_network, infer_shapes
from alexnet.comparison import difference
from alexnet.config import Config
from alexnet.errors import UsageError
from alexnet.model.zoo import build

PRESETS = presets.names()


def paper(*names: str) -> Config:
    return without(presets.preset("paper"), names)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {entry.name: entry.shape for entry in infer_shapes(config.network)}


def changed(config: Config, base: str = "paper") -> set[tuple[str, str]]:
    return {(row.where, row.field) for row in difference(presets.preset(base), config)}


def has(preset: str, name: str) -> bool:
    """Whether a preset has what an ablation takes out, by looking at its description."""
    config = presets.preset(preset)
    layers = config.network.layers
    weighted = [layer for layer in layers if isinstance(layer, Conv | Local | Full)]
    return {
        "lrn": any(isinstance(layer, LRN) for layer in layers),
        "map-norm": any(isinstance(layer, MapNorm) for layer in layers),
        "overlap": any(isinstance(layer, Pool) and layer.size > layer.stride for layer in layers),
        "columns": config.network.columns > 1,
        "second-column": config.network.columns > 1,
        "printed-order": first_rectifier_before_normalization(config),
        **{name: any(layer.name == name for layer in layers) for name in ("conv3", "conv4", "conv5")},
        "relu": config.network.activation == "relu",
        "dropout": any(isinstance(layer, Dropout) for layer in layers),
        "mirror": config.augment.mirror,
        "crops": config.augment.crop,
        "colour": config.augment.colour > 0,
        "decay": config.optimizer.weight_decay > 0,
        "mean": config.data.center == "mean-image",
        "biases": any(layer.bias for layer in weighted),
    }[name]


def first_rectifier_before_normalization(config: Config) -> bool:
    """Whether a ReLU comes before a normalization that comes before the first pooling."""
    kinds = [type(layer).__name__ for layer in config.network.layers]
    before = kinds[: kinds.index("Pool")] if "Pool" in kinds else []
    return "Activation" in before and "LRN" in before[before.index("Activation") :]


# Pairs of which the first leaves nothing for the second to take out.
EXCLUSIVE = {frozenset(("columns", "second-column")), frozenset(("lrn", "printed-order"))}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_of_every_preset_is_built_or_refused(name: str, preset: str) -> None:
    config = presets.preset(preset)
    if has(preset, name):
        result = without(config, [name])
        check_network(result.network)
        assert result != config and (result.preset, result.network.name) == (preset, config.network.name)
        with pytest.raises(UsageError, match="does not apply"):  # nothing of it is left
            without(result, [name])
    else:
        with pytest.raises(UsageError) as error:
            without(config, [name])
        assert str(error.value).startswith(f"without {name} does not apply to {preset}: it has no ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_pair_and_all_together_can_be_built(preset: str) -> None:
    names = [name for name in ABLATIONS if has(preset, name)]
    for pair in itertools.combinations(names, 2):
        if frozenset(pair) not in EXCLUSIVE:
            check_network(without(presets.preset(preset), pair).network)
    together = [name for name in names if name not in ("second-column", "printed-order")]
    check_network(without(presets.preset(preset), together).network)


def test_the_order_of_names_does_not_matter() -> None:
    names = ["lrn", "overlap", "columns", "conv4", "dropout", "decay", "biases"]
    assert without(presets.preset("code-145"), names) == without(presets.preset("code-145"), names[::-1])


@pytest.mark.parametrize("name", [name for name in ABLATIONS if has("digits", name)])
def test_an_ablated_network_runs_backwards(name: str) -> None:
    model = build(without(presets.preset("digits"), [name]).network)
    logits = model(torch.randn(2, 3, 14, 14))
    logits.sum().backward()
    assert logits.shape == (2, 10)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_lrn_only_the_normalizations_are_gone() -> None:
    assert changed(paper("lrn")) == {("conv1", "order"), ("conv2", "order"), ("norm1", "LRN"), ("norm2", "LRN")}


def test_pooling_without_overlap_keeps_the_size_of_every_output() -> None:
    for preset in PRESETS:
        config = without(presets.preset(preset), ["overlap"])
        assert shapes(config) == shapes(presets.preset(preset))
        pools = [layer for layer in config.network.layers if isinstance(layer, Pool)]
        assert all((pool.size, pool.stride) == (2, 2) for pool in pools)


def test_with_one_column_every_kernel_sees_all_maps() -> None:
    layers = {entry.name: entry for entry in infer_shapes(paper("columns").network)}
    assert layers["conv2"].weights == 5 * 5 * 96 * 256
    assert changed(paper("columns")) == {("network", "columns")}


def test_without_the_second_column_the_paper_is_its_one_gpu_net() -> None:
    assert paper("second-column").network.layers == presets.preset("one-gpu").network.layers
    assert paper("second-column").network.columns == 1


def test_without_the_printed_order_the_first_layer_is_that_of_the_2012_source() -> None:
    names = [layer.name for layer in paper("printed-order").network.layers]
    assert names[:4] == ["conv1", "norm1", "pool1", "relu1"]
    assert names[:4] == [layer.name for layer in presets.preset("code-145").network.layers][:4]
    assert names[4:] == [layer.name for layer in presets.preset("paper").network.layers][4:]


@pytest.mark.parametrize("name", ["conv3", "conv4", "conv5"])
def test_without_a_convolution_its_relu_goes_and_its_pooling_stays(name: str) -> None:
    names = [layer.name for layer in paper(name).network.layers]
    whole = [layer.name for layer in presets.preset("paper").network.layers]
    assert names == [layer for layer in whole if layer not in (name, name.replace("conv", "relu"))]
    assert shapes(paper(name))["pool5"][1:] == (6, 6)


def test_without_conv5_the_2012_source_has_no_relu5_after_its_pooling() -> None:
    names = [layer.name for layer in without(presets.preset("code-145"), ["conv5"]).network.layers]
    assert "pool5" in names and "relu5" not in names and "conv5" not in names


def test_without_relu_the_network_is_tanh() -> None:
    assert changed(paper("relu")) == {("network", "activation")}
    assert "tanh_conv6" in shapes(without(presets.preset("conv6"), ["relu"]))


def test_without_decay_no_layer_decays() -> None:
    config = without(presets.preset("cifar-18"), ["decay"])
    assert config.optimizer.weight_decay == 0
    assert all(getattr(layer, "decay", None) is None for layer in config.network.layers)


@pytest.mark.parametrize(
    ("name", "difference_"),
    [
        ("mirror", ("augment", "mirror")),
        ("crops", ("augment", "crop")),
        ("colour", ("augment", "colour")),
        ("decay", ("optimizer", "weight_decay")),
        ("mean", ("data", "center")),
    ],
)
def test_what_is_left_out_of_the_recipe_is_the_only_difference(name: str, difference_: tuple[str, str]) -> None:
    assert changed(paper(name)) == {difference_}


def test_without_biases_all_begin_at_zero() -> None:
    assert changed(paper("biases")) == {(name, "bias") for name in ("conv2", "conv4", "conv5", "fc6", "fc7")}


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="without 'drop' is unknown; did you mean dropout"):
        paper("drop")
    with pytest.raises(UsageError, match="lrn, map-norm, overlap"):
        paper("zzz")
