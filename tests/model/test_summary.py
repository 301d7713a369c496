"""The summary agrees with the model that is built, and names the figures people quote."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import torch

from alexnet import presets
from alexnet.commands.summary import summary_text
from alexnet.config import replace
from alexnet.model.alexnet import AlexNet
from alexnet.model.summary import quoted, summary
from alexnet.model.zoo import build

SMALL = ["cifar-26", "cifar-18", "cifar-13", "cifar-11", "tiny-64", "digits"]


@pytest.mark.parametrize("name", SMALL)
def test_shapes_are_those_of_the_models_taps(name):
    network = presets.preset(name).network
    model = build(network)
    taps = model.taps(torch.zeros(1, 3, network.image, network.image))
    assert {layer.name: layer.shape for layer in summary(network).layers} == {
        tap: tuple(value.shape[1:]) for tap, value in taps.items()
    }


@pytest.mark.parametrize("name", presets.names())
def test_counts_are_those_of_the_models_parameters(name):
    network = presets.preset(name).network
    counted = {key: value.numel() for key, value in _model(network).named_parameters()}
    layers = {layer.name: layer for layer in summary(network).layers}
    for key, count in counted.items():
        name, _, kind = key.partition(".")
        assert getattr(layers[name], "weights" if kind == "weight" else "biases") == count
    assert summary(network).total.parameters == sum(counted.values())


@pytest.mark.parametrize(("name", "parameters"), [("paper", 60_965_224), ("one-weird-trick", 61_100_840)])
def test_known_totals(name, parameters):
    assert summary(presets.preset(name).network).total.parameters == parameters


def test_connections_are_the_multiplications_of_one_image():
    layers = {layer.name: layer for layer in summary(presets.preset("paper").network).layers}
    assert layers["conv1"].connections == 55 * 55 * 96 * 11 * 11 * 3
    assert layers["conv2"].connections == 27 * 27 * 256 * 5 * 5 * 48
    assert layers["fc7"].connections == 4096 * 4096


def test_quoted_figures_stand_beside_the_counted_ones():
    text = summary_text(summary(presets.preset("paper").network), "paper")
    for figure in (
        "60,000,000",
        "60,965,224",
        "650,000",
        "659,272",
        "253,440",
        "290,400",
        "630,000,000",
        "105,705,600",
        "34,944",
        "622,312",
    ):
        assert figure in text


def test_quoted_figures_are_counted_from_the_description():
    network = presets.preset("paper", classes=10).network
    by_name = {figure.what: figure for figure in quoted(network)}
    assert by_name["parameters"].counted == 60_965_224 - 990 * 4097
    assert by_name["parameters of conv1 without weight sharing"].counted == 290_400 * 364


def test_only_the_paper_has_quoted_figures():
    assert "quoted" in summary(presets.preset("paper", classes=10).network).to_json()
    assert "quoted" not in summary(presets.preset("code-145").network).to_json()
    assert not summary(replace(presets.preset("paper"), {"network.norm1": "none"}).network).quoted


def test_a_library_network_counts_every_parameter():
    data = summary(presets.preset("torchvision:vgg16", classes=10).network)
    last = data.layers[-1]
    assert (last.name, last.shape, last.weights, last.biases) == ("classifier.6", (10,), 40960, 10)
    assert data.total.parameters == 138_357_544 - 990 * 4097


def test_parameters_outside_leaf_modules_are_counted():
    data = summary(presets.preset("torchvision:vit_b_16").network)
    assert data.total.parameters == 86_567_656


def test_rendering_is_aligned():
    lines = summary_text(summary(presets.preset("digits").network), "digits").splitlines()
    rules = [line for line in lines if line.startswith("─")]
    assert len({len(line) for line in rules}) == 1
    assert max(map(len, lines)) == len(rules[0])


def test_needs_no_torch():
    code = (
        "import sys; from alexnet import presets; from alexnet.model import summary; from alexnet import comparison; "
        "summary.summary(presets.preset('paper').network).to_json(); comparison.preset_rows(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _model(network):
    """The model of a description, without initial weights where they would take seconds."""
    with torch.device("meta"), patch("alexnet.model.alexnet.initialise"):
        return AlexNet(network)
