"""The presets against the table of facts: layers, normalizations, initial values and recipes of each version."""

from typing import Any

import pytest

from alexnet import presets
from alexnet.architecture import LRN, Conv, Full, Local, MapNorm, Network, Pool, groups

BIASED = ("conv2", "conv4", "conv5", "fc6", "fc7")


def network(name: str, **rest: Any) -> Network:
    return presets.preset(name, **rest).network


def order(name: str) -> list[str]:
    return [layer.name for layer in network(name).layers]


def by_name(name: str) -> dict[str, Any]:
    return {layer.name: layer for layer in network(name).layers}


def weighted(name: str) -> dict[str, Any]:
    return {key: layer for key, layer in by_name(name).items() if isinstance(layer, Conv | Local | Full)}


def deviations(name: str) -> dict[str, float]:
    return {key: layer.std for key, layer in weighted(name).items()}


def biases(name: str) -> dict[str, float]:
    return {key: layer.bias for key, layer in weighted(name).items()}


def test_all_presets_are_there_and_the_paper_comes_first() -> None:
    assert presets.names()[0] == "paper"
    assert set(presets.names()) == {
        "paper",
        "code-145",
        "caffe",
        "one-weird-trick",
        "one-gpu",
        "conv6",
        "cifar-26",
        "cifar-18",
        "cifar-13",
        "cifar-11",
        "digits",
        "tiny-32",
        "tiny-64",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"),
        ("caffe", "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"),
        (
            "code-145",
            "conv1 norm1 pool1 relu1 conv2 relu2 norm2 mapnorm2 pool2 conv3 relu3 conv4 relu4 conv5 pool5 relu5",
        ),
        ("one-weird-trick", "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"),
    ],
)
def test_the_order_of_relu_normalization_and_pooling(name: str, expected: str) -> None:
    assert order(name)[: len(expected.split())] == expected.split()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", "pool5 fc6 relu6 drop6 fc7 relu7 drop7 fc8"),
        ("code-145", "relu5 fc6 relu6 drop6 fc7 relu7 drop7 fc8"),
        ("one-weird-trick", "pool5 drop5 fc6 relu6 drop6 fc7 relu7 fc8"),
    ],
)
def test_dropout_stands_after_or_before_the_hidden_layers(name: str, expected: str) -> None:
    assert order(name)[-len(expected.split()) :] == expected.split()


@pytest.mark.parametrize("name", ["paper", "code-145", "one-weird-trick", "tiny-64"])
def test_dropout_is_a_half(name: str) -> None:
    assert {layer.rate for key, layer in by_name(name).items() if key.startswith("drop")} == {0.5}


@pytest.mark.parametrize(
    ("name", "k", "divide", "across_columns"),
    [
        ("paper", 2, False, False),
        ("code-145", 2, True, False),
        ("caffe", 1, True, True),
        ("one-gpu", 2, False, False),
        ("conv6", 2, False, False),
        ("tiny-64", 2, False, False),
    ],
)
def test_normalization_across_maps(name: str, k: float, divide: bool, across_columns: bool) -> None:
    norms = [layer for layer in network(name).layers if isinstance(layer, LRN)]
    assert [n.name for n in norms] == ["norm1", "norm2"]
    for norm in norms:
        assert (norm.size, norm.alpha, norm.beta, norm.k, norm.divide) == (5, 1e-4, 0.75, k, divide)
        assert groups(network(name), norm) == (1 if across_columns else network(name).columns)


def test_the_2012_source_normalizes_conv2_within_maps_too() -> None:
    norm = by_name("code-145")["mapnorm2"]
    assert (norm.size, norm.alpha, norm.beta, norm.k, norm.divide) == (5, 0.001, 0.75, 1, True)


@pytest.mark.parametrize("name", ["paper", "code-145", "caffe", "conv6", "tiny-64"])
def test_only_conv3_and_the_fully_connected_layers_see_both_columns(name: str) -> None:
    net = network(name)
    grouped = {key for key, layer in weighted(name).items() if groups(net, layer) == 2}
    assert net.columns == 2
    assert grouped == {"conv2", "conv4", "conv5"}


@pytest.mark.parametrize("name", ["paper", "code-145", "one-weird-trick", "one-gpu", "caffe", "tiny-64", "cifar-26"])
def test_pooling_overlaps(name: str) -> None:
    pools = [layer for layer in network(name).layers if isinstance(layer, Pool)]
    assert pools
    assert all((pool.size, pool.stride) == (3, 2) for pool in pools)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", [0.01] * 8),
        ("one-gpu", [0.01] * 8),
        ("conv6", [0.01] * 9),
        ("code-145", [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01]),
        ("cifar-26", [0.0001, 0.01, 0.01, 0.1, 0.1]),
        ("cifar-18", [0.0001, 0.01, 0.01, 0.01]),
        ("cifar-13", [0.0001, 0.01, 0.04, 0.04, 0.01]),
        ("cifar-11", [0.0001, 0.01, 0.04, 0.04, 0.01]),
    ],
)
def test_deviations_of_the_initial_weights(name: str, expected: list[float]) -> None:
    assert list(deviations(name).values()) == expected


def test_deviations_of_caffe_are_smaller_in_its_hidden_layers() -> None:
    assert (deviations("caffe")["conv1"], deviations("caffe")["conv5"]) == (0.01, 0.01)
    assert (deviations("caffe")["fc6"], deviations("caffe")["fc7"]) == (0.005, 0.005)


@pytest.mark.parametrize(
    ("name", "value"), [("paper", 1), ("code-145", 1), ("one-gpu", 1), ("conv6", 1), ("caffe", 0.1), ("tiny-64", 1)]
)
def test_initial_biases(name: str, value: float) -> None:
    assert biases(name) == {key: value if key in BIASED else 0 for key in weighted(name)}


@pytest.mark.parametrize("name", ["cifar-26", "cifar-18", "cifar-13", "cifar-11"])
def test_the_cifar_nets_start_without_biases(name: str) -> None:
    assert set(biases(name).values()) == {0}


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("paper", [96, 256, 384, 384, 256]),
        ("code-145", [96, 256, 384, 384, 256]),
        ("caffe", [96, 256, 384, 384, 256]),
        ("one-weird-trick", [64, 192, 384, 256, 256]),
        ("cifar-26", [32, 32, 64]),
        ("cifar-18", [32, 32, 64]),
        ("cifar-13", [64, 64, 32, 32]),
        ("cifar-11", [64, 64, 32, 32]),
    ],
)
def test_kernels_of_each_layer(name: str, kernels: list[int]) -> None:
    assert [layer.kernels for layer in weighted(name).values() if not isinstance(layer, Full)] == kernels


@pytest.mark.parametrize(
    ("name", "image", "classes", "columns"),
    [
        ("paper", 224, 1000, 2),
        ("code-145", 224, 1000, 2),
        ("caffe", 227, 1000, 2),
        ("one-weird-trick", 224, 1000, 1),
        ("one-gpu", 224, 1000, 1),
        ("conv6", 224, 1000, 2),
        ("cifar-26", 32, 10, 1),
        ("cifar-18", 32, 10, 1),
        ("cifar-13", 24, 10, 1),
        ("cifar-11", 24, 10, 1),
        ("tiny-64", 56, 200, 2),
    ],
)
def test_inputs_classes_and_columns(name: str, image: int, classes: int, columns: int) -> None:
    net = network(name)
    assert (net.image, net.classes, net.columns) == (image, classes, columns)


def test_the_11_percent_net_is_the_13_percent_net_with_normalization_after_the_relus() -> None:
    with_norm, without = network("cifar-11").layers, network("cifar-13").layers
    assert tuple(layer for layer in with_norm if not isinstance(layer, LRN)) == without
    assert order("cifar-11")[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    for norm in (by_name("cifar-11")["norm1"], by_name("cifar-11")["norm2"]):
        assert (norm.size, norm.alpha, norm.beta, norm.k, norm.divide) == (5, 0.001, 0.75, 1, True)


def test_the_18_percent_net_normalizes_within_maps_after_the_first_two_poolings() -> None:
    names = order("cifar-18")
    norms = [layer for layer in network("cifar-18").layers if isinstance(layer, MapNorm)]
    assert [(n.size, n.alpha, n.beta, n.k, n.divide) for n in norms] == [(3, 5e-5, 0.75, 1, True)] * 2
    for number in "12":
        assert names.index(f"pool{number}") < names.index(f"mapnorm{number}")
    assert not any(isinstance(layer, Full) and layer.units for layer in network("cifar-18").layers)


def test_the_26_percent_net_pools_by_maximum_then_by_mean() -> None:
    assert [layer.kind for layer in network("cifar-26").layers if isinstance(layer, Pool)] == ["max", "avg", "avg"]
    assert [layer.kind for layer in network("cifar-13").layers if isinstance(layer, Pool)] == ["max", "max"]


def test_the_recipe_of_the_paper() -> None:
    config = presets.preset("paper")
    assert (config.augment.crop, config.augment.mirror, config.augment.colour, config.augment.shared) == (
        True,
        True,
        0.1,
        1,
    )
    assert config.augment.colour_divisor == 1
    assert config.train.epochs == 90


def test_the_recipe_of_the_2012_source() -> None:
    config = presets.preset("code-145")
    optimizer, schedule, augment = config.optimizer, config.schedule, config.augment
    assert (optimizer.lr, optimizer.bias_lr, optimizer.bias_decay, optimizer.bias_lr_drops) == (0.01, 2, 0, False)
    assert (schedule.kind, schedule.milestones, schedule.factor) == ("epochs", (23, 51, 78), 10)
    assert schedule.layers == ("conv1@68=1e-5", "conv1@72=0")
    assert (augment.colour, augment.colour_divisor, augment.colour_until, augment.shared) == (0.1, 1.1, 68, 32)
    assert (config.train.epochs, config.data.size - config.network.image) == (93, 2 * 16)


@pytest.mark.parametrize("name", ["cifar-26", "cifar-18", "cifar-13", "cifar-11"])
def test_the_cifar_nets_share_their_rates(name: str) -> None:
    optimizer, train = presets.preset(name).optimizer, presets.preset(name).train
    assert (optimizer.lr, optimizer.lr * optimizer.bias_lr, optimizer.momentum, train.batch_size) == (
        0.001,
        0.002,
        0.9,
        128,
    )


@pytest.mark.parametrize(
    ("name", "moved"), [("cifar-26", False), ("cifar-18", False), ("cifar-13", True), ("cifar-11", True)]
)
def test_only_the_last_two_cifar_nets_crop_and_mirror(name: str, moved: bool) -> None:
    augment = presets.preset(name).augment
    assert (augment.crop, augment.mirror) == (moved, moved)
    assert augment.colour == 0


def test_the_tiny_net_has_all_of_the_papers_ideas() -> None:
    config = presets.preset("tiny-64")
    assert order("tiny-64") == order("paper")
    assert (config.data.size, config.augment.crop, config.augment.mirror, config.schedule.kind) == (
        64,
        True,
        True,
        "plateau",
    )


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_takes_another_number_of_classes(name: str) -> None:
    assert presets.preset(name, classes=7).network.classes == 7


@pytest.mark.parametrize(
    ("activation", "name"), [("relu", "cifar-26"), ("tanh", "cifar-26"), ("tanh", "cifar-18"), ("tanh", "cifar-13")]
)
def test_the_four_layer_nets_take_relu_or_tanh(activation: str, name: str) -> None:
    assert network(name, activation=activation).activation == activation


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("papper", "paper"),
        ("code145", "code-145"),
        ("cafe", "caffe"),
        ("one-weird-tric", "one-weird-trick"),
        ("cifar26", "cifar-26"),
        ("tiny64", "tiny-64"),
        ("digit", "digits"),
    ],
)
def test_an_unknown_preset_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError) as error:
        presets.preset(name)
    assert repr(name) in str(error.value)
    assert f"did you mean {suggestion}?" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_preset_that_resembles_none_lists_them_all() -> None:
    with pytest.raises(ValueError) as error:
        presets.preset("zzz")
    assert all(name in str(error.value) for name in presets.names())


@pytest.mark.parametrize("classes", [1, 0, -3, True, 2.0, "10"])
def test_an_impossible_class_count_is_refused(classes: Any) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        presets.preset("paper", classes=classes)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="relu or tanh"):
        presets.preset("cifar-26", activation="sigmoid")
