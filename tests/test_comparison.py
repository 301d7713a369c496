"""The table of presets and the differences of two, against what the paper and its source of 2012 say."""

import dataclasses

import pytest

from alexnet import presets
from alexnet.architecture import Local
from alexnet.comparison import difference, preset_rows
from alexnet.config import replace


@pytest.fixture(scope="module")
def rows():
    found = difference(presets.preset("paper"), presets.preset("code-145"))
    return {(row.where, row.field): (row.a, row.b) for row in found}


def test_conv1_of_the_source_has_its_relu_after_pooling(rows):
    assert rows["conv1", "order"] == ("conv1 → relu1 → norm1 → pool1", "conv1 → norm1 → pool1 → relu1")


def test_conv2_of_the_source_is_normalized_within_maps_too(rows):
    assert rows["conv2", "order"][1] == "conv2 → relu2 → norm2 → mapnorm2 → pool2"
    assert rows["mapnorm2", "MapNorm"] == ("–", "size 5, alpha 0.001, beta 0.75, k 1, divide yes")


def test_conv5_of_the_source_has_its_relu_after_pooling(rows):
    assert rows["conv5", "order"] == ("conv5 → relu5 → pool5", "conv5 → pool5 → relu5")


@pytest.mark.parametrize("norm", ["norm1", "norm2"])
def test_the_sources_lrn_divides_alpha(rows, norm):
    assert rows[norm, "divide"] == ("no", "yes")
    assert (norm, "k") not in rows


@pytest.mark.parametrize("layer", ["conv3", "conv4", "conv5"])
def test_the_source_starts_the_later_convolutions_wider(rows, layer):
    assert rows[layer, "std"] == ("0.01", "0.03")


@pytest.mark.parametrize(
    ("where", "field", "values"),
    [
        ("optimizer", "bias_lr", ("1", "2")),
        ("optimizer", "bias_decay", ("1", "0")),
        ("optimizer", "bias_lr_drops", ("yes", "no")),
        ("augment", "shared", ("1", "32")),
        ("augment", "colour_divisor", ("1", "1.1")),
        ("augment", "colour_until", ("0", "68")),
        ("schedule", "milestones", ("none", "23, 51, 78")),
        ("schedule", "layers", ("none", "conv1@68=1e-5, conv1@72=0")),
        ("train", "epochs", ("90", "93")),
    ],
)
def test_the_sources_recipe_differs(rows, where, field, values):
    assert rows[where, field] == values


def test_initial_biases_do_not_differ(rows):
    assert not [key for key in rows if key[1] == "bias"]


def test_a_preset_does_not_differ_from_itself():
    paper = presets.preset("paper")
    assert difference(paper, paper) == []


def test_a_changed_setting_is_the_only_difference():
    paper = presets.preset("paper")
    changed = replace(paper, {"optimizer.lr": "0.02"})
    assert [(row.where, row.field, row.a, row.b) for row in difference(paper, changed)] == [
        ("optimizer", "lr", "0.01", "0.02")
    ]


def test_a_layer_of_another_kind_is_named():
    found = difference(presets.preset("cifar-13"), presets.preset("cifar-18"))
    assert ("local3", "Local") in {(row.where, row.field) for row in found}


def test_the_two_figures_of_claim_3_differ_by_lrn_alone():
    found = difference(presets.preset("cifar-13"), presets.preset("cifar-11"))
    assert {row.where for row in found} == {"conv1", "conv2", "norm1", "norm2"}


def test_every_preset_has_its_row():
    assert [row.preset for row in preset_rows()] == presets.names()


def test_the_numbers_of_the_table_are_exact():
    rows = {row.preset: row for row in preset_rows()}
    assert rows["paper"].parameters == 60_965_224
    assert rows["one-weird-trick"].parameters == 61_100_840
    assert rows["paper"].kernels == (96, 256, 384, 384, 256)
    assert rows["paper"].to_json()["full"] == (4096, 4096, 1000)


def test_a_removed_layer_is_the_only_difference_of_its_kind():
    paper = presets.preset("paper")
    found = difference(paper, replace(paper, {"network.norm2": "none"}))
    assert [(row.where, row.field) for row in found] == [("conv2", "order"), ("norm2", "LRN")]
    assert found[1].to_json()["values"][1] is None and found[1].b == "–"


def test_three_presets_have_a_value_each_and_share_what_is_not_listed():
    configs = [presets.preset(name) for name in ("paper", "caffe", "cifar-18")]
    rows = {(row.where, row.field): row.texts for row in difference(*configs)}
    assert rows["network", "image"] == ("224", "227", "32")
    assert "k 2" in rows["norm1", "LRN"][0] and "k 1" in rows["norm1", "LRN"][1] and rows["norm1", "LRN"][2] == "–"
    assert rows["relu6", "Activation"] == ("yes", "yes", "–")
    assert rows["fc6", "Full"][2] == "–" and rows["fc6", "Full"][0].startswith("units 4096")
    assert all(len(values) == 3 and len(set(values)) > 1 for values in rows.values())
    assert ("optimizer", "momentum") not in rows  # 0.9 in all
    for row in difference(*configs[:2]):  # what two of them differ in is there, or told with the whole layer
        assert (row.where, row.field) in rows or row.where in {where for where, _ in rows}


def test_one_config_alone_differs_from_nothing():
    assert difference(presets.preset("paper")) == []


def test_a_layer_of_two_kinds_is_named_and_one_that_is_missing_told_whole():
    configs = [presets.preset(name) for name in ("cifar-13", "cifar-18", "digits")]
    found = {(row.where, row.field): row.texts for row in difference(*configs)}
    assert found["fc5", "Full"] == ("std 0.01, bias 0", "–", "std 0.06, bias 0")
    network = configs[0].network
    renamed = [
        dataclasses.replace(layer, name="local3") if layer.name == "conv2" else layer for layer in network.layers
    ]
    other = dataclasses.replace(
        configs[0],
        network=dataclasses.replace(network, layers=tuple(layer for layer in renamed if not isinstance(layer, Local))),
    )
    found = {(row.where, row.field): row.texts for row in difference(configs[0], other, configs[1])}
    assert found["local3", "Local or Conv"][2] == "–"
    assert {(row.where, row.field): row.texts for row in difference(configs[0], other)}["local3", "kind"] == (
        "Local",
        "Conv",
    )
