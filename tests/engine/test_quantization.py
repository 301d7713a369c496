"""Whole numbers for weights and activations: how they are rounded, and what is lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet import presets
from alexnet.engine import plain
from alexnet.engine.quantization import IMAGE, Quantizer, WholeWeights, quantizers, sources, view_limits


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("levels", [127, 255])
def test_levels_cover_a_range_and_zero_is_one_of_them(levels: int) -> None:
    quantizer = Quantizer.of(-1.5, 4.0, levels)
    x = np.linspace(-1.5, 4, 1000, dtype=np.float32)
    given = (quantizer(x).astype(np.float64) - quantizer.zero) / quantizer.factor
    assert np.abs(given - x).max() < 0.51 / quantizer.factor + 0.5 / quantizer.factor
    assert quantizer(np.float32([0]))[0] == quantizer.zero
    assert list(quantizer(np.float32([-100, 100]))) == [0, levels]


def test_each_kernel_has_weights_up_to_127() -> None:
    weight = numbers(4, 3, 2, 2) * np.float32([1, 10, 1e-3, 0])[:, None, None, None]
    whole = WholeWeights.of(weight, numbers(4), Quantizer(2.0, 0))
    assert list(np.abs(whole.weight.reshape(4, -1).astype(int)).max(1)) == [127, 127, 127, 0]
    back = whole.weight * (2 * whole.scale)[:, None, None, None]
    assert (np.abs(back - weight) <= whole.scale[:, None, None, None] * 1.01).all()


@pytest.mark.parametrize("zero", [0, 40])
def test_whole_products_are_those_of_the_rounded_numbers(zero: int) -> None:
    """Convolution with zeros around the maps and a fully-connected layer, against float64 of what levels stand for."""
    quantizer = Quantizer(20.0, zero)
    x, weight, bias = np.abs(numbers(2, 5, 6, 4)), numbers(6, 2, 3, 3), numbers(6)
    x = x - 1 if zero else x
    stands_for = (quantizer(x).astype(np.float64) - zero) / 20
    whole = WholeWeights.of(weight, bias, quantizer)
    factors = whole.weight * (whole.scale.astype(np.float64) * 20)[:, None, None, None]
    theirs = plain.convolve(stands_for, factors, bias, pad=1, groups=2)  # type: ignore[arg-type]
    assert np.allclose(plain.whole_convolve(x, whole, quantizer, pad=1, groups=2), theirs, atol=1e-5)

    flat, weight = x.reshape(2, -1), numbers(7, 120)
    whole = WholeWeights.of(weight, numbers(7), quantizer)
    factors = whole.weight * (whole.scale.astype(np.float64) * 20)[:, None]
    theirs = plain.full(stands_for.reshape(2, -1), factors, numbers(7))  # type: ignore[arg-type]
    assert np.allclose(plain.whole_full(flat, whole, quantizer), theirs, atol=1e-5)


def test_a_layer_takes_what_is_before_dropout() -> None:
    network = presets.preset("paper").network
    assert sources(network) == {
        "conv1": IMAGE, "conv2": "pool1", "conv3": "pool2", "conv4": "relu3", "conv5": "relu4",
        "fc6": "pool5", "fc7": "relu6", "fc8": "relu7",
    }  # fmt: skip


def test_levels_below_zero_are_kept_where_numbers_are_below_zero() -> None:
    network = presets.preset("cifar-26").network  # conv1, pool1, relu1; and so on
    ranges = {IMAGE: 100.0, "relu1": 3.0, "pool2": 2.0}
    rectified = quantizers(network, ranges, (-120.0, 140.0))
    assert set(rectified) == {"conv1", "conv2", "conv3"}
    assert [rectified[name].zero for name in ("conv1", "conv2", "conv3")] == [64, 0, 0]
    assert rectified["conv2"].factor == pytest.approx(127 / 3)
    tangents = quantizers(dataclasses.replace(network, activation="tanh"), {"tanh1": 1.0}, (0.0, 1.0))
    assert tangents["conv2"].zero == 64


def test_the_numbers_of_a_view_are_limited_by_its_mean() -> None:
    mean = np.full((2, 2, 3), 100, np.float32)
    mean[0, 0, 1] = 120
    assert view_limits(mean, None) == (-120.0, 155.0)
    assert view_limits(None, np.float32([1, 2, 0.5])) == (0.0, 510.0)
