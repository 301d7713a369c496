"""Sizes and counts of described networks, against counting windows one by one and against the published figures."""

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet import presets
from alexnet.architecture import (
    LRN,
    Activation,
    Conv,
    Dropout,
    Full,
    LayerShape,
    Local,
    MapNorm,
    Network,
    Pool,
    check_network,
    hidden_layer,
    infer_shapes,
    output_side,
    parameters,
    pooled_side,
    shape_text,
)
from alexnet.errors import UsageError, quoted

PRESETS = presets.names()

# The table of the paper's layers: output shape and, where there are weights, (weights, biases).
PAPER = {
    "conv1": ((96, 55, 55), (11 * 11 * 3 * 96, 96)),
    "norm1": ((96, 55, 55), None),
    "pool1": ((96, 27, 27), None),
    "conv2": ((256, 27, 27), (5 * 5 * 48 * 256, 256)),
    "norm2": ((256, 27, 27), None),
    "pool2": ((256, 13, 13), None),
    "conv3": ((384, 13, 13), (3 * 3 * 256 * 384, 384)),
    "conv4": ((384, 13, 13), (3 * 3 * 192 * 384, 384)),
    "conv5": ((256, 13, 13), (3 * 3 * 192 * 256, 256)),
    "pool5": ((256, 6, 6), None),
    "fc6": ((4096,), (6 * 6 * 256 * 4096, 4096)),
    "fc7": ((4096,), (4096 * 4096, 4096)),
    "fc8": ((1000,), (4096 * 1000, 1000)),
}


def layers_of(name: str) -> dict[str, LayerShape]:
    return {m.name: m for m in infer_shapes(presets.preset(name).network)}


def windows_until_covered(side: int, size: int, stride: int, pad: int) -> int:
    """Lay windows a stride apart until one reaches the end of the padded rows."""
    count, end = 1, size
    while end < side + 2 * pad:
        count, end = count + 1, end + stride
    return count


def windows_inside(side: int, size: int, stride: int, pad: int) -> int:
    """Count the windows a stride apart that lie wholly inside the padded rows."""
    return sum(1 for start in range(0, side + 2 * pad, stride) if start + size <= side + 2 * pad)


@st.composite
def geometry(draw: st.DrawFn) -> tuple[int, int, int, int]:
    size = draw(st.integers(1, 11))
    side = draw(st.integers(size, 64))
    return side, size, draw(st.integers(1, size)), draw(st.integers(0, size // 2))


@given(geometry())
def test_a_convolution_sized_by_ceil_covers_every_row(g: tuple[int, int, int, int]) -> None:
    side, size, stride, pad = g
    if stride <= size - pad:  # no window starts past the image
        assert output_side(side, size, stride, pad) == windows_until_covered(side, size, stride, pad)


@given(geometry())
def test_a_floored_size_counts_only_windows_that_fit(g: tuple[int, int, int, int]) -> None:
    assert output_side(*g, ceil=False) == windows_inside(*g)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_a_pooling_window_never_starts_past_the_edge(side: int, size: int, stride: int) -> None:
    if size <= side:
        count = pooled_side(side, size, stride)
        assert (count - 1) * stride < side
        assert count <= windows_until_covered(side, size, stride, 0)


@pytest.mark.parametrize(
    ("side", "size", "stride", "pad", "expected"),
    [
        (224, 11, 4, 0, 55),
        (55, 3, 2, 0, 27),
        (27, 5, 1, 2, 27),
        (27, 3, 2, 0, 13),
        (13, 3, 1, 1, 13),
        (13, 3, 2, 0, 6),
        (32, 3, 2, 0, 16),
        (16, 3, 2, 0, 8),
        (8, 3, 2, 0, 4),
        (24, 3, 2, 0, 12),
        (12, 3, 2, 0, 6),
    ],
)
def test_the_sizes_of_2012(side: int, size: int, stride: int, pad: int, expected: int) -> None:
    assert output_side(side, size, stride, pad) == expected


def test_flooring_turns_224_into_54_and_227_into_55() -> None:
    assert output_side(224, 11, 4, ceil=False) == 54
    assert output_side(227, 11, 4, ceil=False) == 55


def test_a_kernel_larger_than_its_input_is_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match="11.*7|7.*11") as error:
        output_side(7, 11, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PAPER)
def test_each_layer_of_the_paper_has_its_published_shape(name: str) -> None:
    assert layers_of("paper")[name].shape == PAPER[name][0]


@pytest.mark.parametrize("name", [name for name, (_, counts) in PAPER.items() if counts])
def test_each_layer_of_the_paper_has_its_weights_and_biases(name: str) -> None:
    layer = layers_of("paper")[name]
    assert (layer.weights, layer.biases) == PAPER[name][1]


def test_the_first_layer_has_290400_neurons_and_34944_parameters() -> None:
    conv1 = layers_of("paper")["conv1"]
    assert conv1.neurons == 290_400
    assert conv1.parameters == 34_944


def test_without_sharing_the_first_layer_would_have_105705600_parameters() -> None:
    conv1 = layers_of("paper")["conv1"]
    assert conv1.neurons * (conv1.parameters // 96) == 105_705_600
    assert conv1.connections == 290_400 * 363


@pytest.mark.parametrize(
    ("name", "count"),
    [("paper", 60_965_224), ("code-145", 60_965_224), ("caffe", 60_965_224), ("one-weird-trick", 61_100_840)],
)
def test_published_parameter_counts_with_1000_classes(name: str, count: int) -> None:
    assert parameters(presets.preset(name, classes=1000).network) == count


def test_layers_without_weights_count_no_neurons_and_no_connections() -> None:
    for name in ("relu1", "norm1", "pool1", "drop6"):
        layer = layers_of("paper")[name]
        assert (layer.neurons, layer.parameters, layer.connections) == (0, 0, 0)


def test_neurons_of_the_paper_are_the_sum_over_its_weighted_layers() -> None:
    total = sum(m.neurons for m in infer_shapes(presets.preset("paper").network))
    assert total == 290_400 + 186_624 + 64_896 + 64_896 + 43_264 + 4096 + 4096 + 1000


def test_the_one_gpu_net_has_about_as_many_parameters_as_the_two_column_net() -> None:
    one, two = (parameters(presets.preset(name).network) for name in ("one-gpu", "paper"))
    assert abs(one - two) / two < 0.02


def test_the_one_gpu_net_halves_every_convolution_but_the_last() -> None:
    one, two = layers_of("one-gpu"), layers_of("paper")
    for name in ("conv1", "conv2", "conv3", "conv4"):
        assert 2 * one[name].shape[0] == two[name].shape[0]
    for name in ("conv5", "fc6", "fc7", "fc8"):
        assert one[name].shape == two[name].shape


def test_the_sixth_convolution_stands_over_the_last_pooling_layer_and_sees_both_columns() -> None:
    names = list(layers_of("conv6"))
    conv6 = layers_of("conv6")["conv6"]
    assert names.index("conv6") == names.index("pool5") + 1
    assert (conv6.shape, conv6.weights) == ((256, 6, 6), 3 * 3 * 256 * 256)


def test_locally_connected_layers_have_kernels_of_their_own_at_every_position() -> None:
    network = Network("n", image=6, classes=2, columns=1, layers=(Local("l", 4, 3, pad=1),))
    (local,) = infer_shapes(network)
    assert local.shape == (4, 6, 6)
    assert (local.weights, local.biases) == (6 * 6 * 4 * 27, 6 * 6 * 4)
    assert local.connections == local.weights


def test_connections_use_each_shared_weight_once_a_position() -> None:
    network = Network("n", image=9, classes=2, columns=1, layers=(Conv("c", 5, 3, stride=2), Full("f")))
    conv, full = infer_shapes(network)
    assert conv.connections == 4 * 4 * 5 * 27
    assert full.connections == full.weights == 80 * 2


@pytest.mark.parametrize("name", PRESETS)
def test_a_network_is_read_back_from_its_json(name: str) -> None:
    network = presets.preset(name).network
    assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network


def test_every_kind_of_layer_is_read_back() -> None:
    layers = (
        Conv("a", 4, 3),
        Local("b", 4, 3, pad=1),
        Activation("c"),
        LRN("d", within="all"),
        MapNorm("e"),
        Pool("f", kind="avg"),
        Full("g"),
        Dropout("h", 0.3),
    )
    network = Network("n", image=8, classes=3, columns=2, layers=layers)
    assert Network.from_dict(network.to_dict()) == network


def test_an_unknown_kind_of_layer_is_named() -> None:
    data = presets.preset("digits").network.to_dict()
    first = data["layers"][0]
    first[next(key for key, value in first.items() if value == "Conv")] = "Convolution"
    with pytest.raises(UsageError, match="Convolution"):
        Network.from_dict(data)


def test_an_unknown_field_of_a_layer_is_named() -> None:
    data = presets.preset("digits").network.to_dict()
    data["layers"][0]["dilation"] = 2
    with pytest.raises(UsageError, match="dilation"):
        Network.from_dict(data)


def test_an_unknown_field_of_a_network_is_named() -> None:
    data = {**presets.preset("digits").network.to_dict(), "depth": 8}
    with pytest.raises(UsageError, match="depth"):
        Network.from_dict(data)


def test_a_layer_that_does_not_fit_is_named() -> None:
    network = dataclasses.replace(presets.preset("paper").network, image=20)
    with pytest.raises(UsageError, match="pool|conv") as error:
        infer_shapes(network)
    assert "\n" not in str(error.value)


def test_maps_that_do_not_divide_into_columns_are_refused() -> None:
    network = Network("n", image=9, columns=2, layers=(Conv("c", 5, 3, sees="own"),))
    with pytest.raises(UsageError, match="layer c.*columns"):
        infer_shapes(network)


def test_a_convolution_after_a_fully_connected_layer_is_refused() -> None:
    network = Network("n", image=9, columns=1, layers=(Full("f", 8), Conv("c", 5, 3)))
    with pytest.raises(UsageError, match="layer c"):
        infer_shapes(network)


def test_the_last_hidden_layer_of_the_paper_has_4096_values() -> None:
    network = presets.preset("paper").network
    name = hidden_layer(network)
    assert layers_of("paper")[name].shape == (4096,)
    assert name == "relu7"


def test_a_tanh_net_names_its_activations_so() -> None:
    names = [m.name for m in infer_shapes(presets.preset("cifar-26", activation="tanh").network)]
    assert "tanh1" in names
    assert not any("relu" in name for name in names)


@pytest.mark.parametrize(
    ("name", "field", "value", "wanted"),
    [
        ("conv1", "kernels", "many", "a whole number of at least 1"),
        ("conv1", "kernels", 0, "a whole number of at least 1"),
        ("conv1", "std", "small", "a number of at least 0, or none"),
        ("conv1", "bias", float("nan"), "a number"),
        ("conv2", "sees", "both", "own or all"),
        ("norm1", "divide", 1, "true or false"),
        ("norm1", "k", 0, "a number above 0"),
        ("conv1", "kernels", None, "a whole number of at least 1"),
        ("conv1", "size", 1.5, "a whole number of at least 1"),
        ("drop6", "rate", 1, "a number of at least 0 and below 1"),
    ],
)
def test_a_field_of_another_type_is_named(name: str, field: str, value: object, wanted: str) -> None:
    data = presets.preset("paper").network.to_dict()
    next(layer for layer in data["layers"] if layer["name"] == name)[field] = value
    with pytest.raises(UsageError, match=f"^network.{name}.{field} {re.escape(quoted(value))} should be {wanted}$"):
        Network.from_dict(data)


def test_a_normalization_inside_columns_needs_maps_that_divide() -> None:
    network = Network("n", image=9, columns=2, layers=(Conv("c", 5, 3), LRN("l")))
    with pytest.raises(UsageError, match="layer l: 5 maps do not divide into 2 columns"):
        infer_shapes(network)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str) -> None:
    check_network(presets.preset(name).network)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((), "has no layers"),
        ((Conv("c", 4, 3),), "not with c"),
        ((Full("f", 8), Full("f")), "network.f is there twice"),
        ((Full("image"),), "network.image"),
        ((Full("a.b"),), "network.a.b"),
    ],
)
def test_a_network_that_is_none_is_told(layers: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_network(Network("n", image=9, classes=3, columns=1, layers=layers))


def test_a_shape_is_written_with_its_sides() -> None:
    assert (shape_text((96, 55, 55)), shape_text((10,)), shape_text(None)) == ("96×55×55", "10", "–")
