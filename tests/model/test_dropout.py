"""Keyed dropout: published words of Philox, masks that depend on their keys alone, and their statistics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.engine.library import library
from alexnet.model import dropout
from alexnet.model.dropout import (
    DropoutKeys,
    KeyedDropout,
    dropout_mask,
    layer_number,
    plain_mask,
    set_dropout_keys,
)
from alexnet.model.zoo import create_model

GOLDEN = [
    "01010100011101101100111011111000",
    "01001111101100001001011000101000",
    "00011111000000111001010101010000",
]
GOLDEN_SUM = 3539
POSITIONS = torch.tensor([0, 1, 7, 1_281_166, 2**32 - 1])


def mask(
    positions: Tensor | list[int] = POSITIONS,
    seed: int = 0,
    epoch: int = 0,
    layer: str = "drop6",
    rate: float = 0.5,
    units: int = 256,
    first_unit: int = 0,
) -> Tensor:
    """The mask (N, units) of some keys."""
    return dropout_mask(
        DropoutKeys(seed, epoch, torch.as_tensor(positions)), layer_number(layer), rate, units, first_unit
    )


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Masks by the engine, and by torch operations."""
    if request.param == "plain":
        monkeypatch.setattr(dropout, "is_available", lambda: False)
    elif library() is None:
        pytest.skip("no compiled library here, or switched off")
    return request.param


def test_masks_are_these(way: str) -> None:
    """Golden values: a run that is resumed by a later version must draw the same."""
    bits = mask([0, 1, 1_281_166], seed=42, epoch=3, units=32)
    assert ["".join(str(int(bit)) for bit in row) for row in bits] == GOLDEN
    assert int(mask(seed=2**63 + 5, layer="drop7", rate=0.3, units=1000).sum()) == GOLDEN_SUM


def by_hand(seed: int, epoch: int, position: int, layer: int, unit: int) -> int:
    """The word of one unit, in Python's whole numbers."""
    c = [unit // 4, position, epoch, seed >> 32]
    k = [seed & 0xFFFFFFFF, layer]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[unit % 4]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_mask_is_the_definition_unit_by_unit(rate: float, way: str) -> None:
    seed, epoch, layer = 0xFEDCBA9876543210, 89, 3_000_000_123
    keys = DropoutKeys(seed, epoch, POSITIONS)
    threshold = round(rate * 2**32)
    if way == "plain":
        bits = plain_mask(keys, layer, threshold, 21, 3, "cpu")
    else:
        bits = torch.empty(len(POSITIONS), 21, dtype=torch.bool)
        dropout.dropout(bits.data_ptr(), POSITIONS.data_ptr(), 5, 21, 3, (seed, epoch, layer), threshold, 1)
    expected = [[by_hand(seed, epoch, int(p), layer, 3 + u) >= threshold for u in range(21)] for p in POSITIONS]
    assert bits.tolist() == expected


@pytest.mark.skipif(library() is None, reason="no compiled library here, or switched off")
@pytest.mark.parametrize(("units", "first_unit"), [(1, 0), (3, 2), (4, 4), (255, 1), (256, 0), (1000, 777), (4096, 0)])
def test_the_engine_and_plain_torch_agree_to_the_bit(
    units: int, first_unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    masks = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            masks.append(mask(seed=7, epoch=2, rate=0.37, units=units, first_unit=first_unit))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(dropout, "is_available", lambda: False)
    masks.append(mask(seed=7, epoch=2, rate=0.37, units=units, first_unit=first_unit))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_an_image_has_the_same_mask_in_any_batch(way: str) -> None:
    whole = mask()
    for i in range(len(POSITIONS)):
        assert torch.equal(mask(POSITIONS[i : i + 1]), whole[i : i + 1])
    assert torch.equal(mask(POSITIONS.flip(0)), whole.flip(0))


@pytest.mark.parametrize("first", [0, 1, 2, 3, 128, 131])
def test_a_part_of_the_units_has_its_part_of_the_mask(first: int, way: str) -> None:
    assert torch.equal(mask(units=90, first_unit=first), mask(units=256)[:, first : first + 90])


@pytest.mark.parametrize("change", [{"seed": 1}, {"seed": 2**32}, {"epoch": 1}, {"layer": "drop7"}, {"first_unit": 4}])
def test_each_part_of_the_key_changes_the_mask(change: dict[str, int], way: str) -> None:
    share = float((mask(units=4096) != mask(units=4096, **change)).double().mean())  # type: ignore[arg-type]
    assert share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_the_share_dropped_is_the_rate(rate: float, way: str) -> None:
    dropped = ~mask(list(range(200)), rate=rate, units=1000)
    sigma = math.sqrt(rate * (1 - rate))
    assert float(dropped.double().mean()) == pytest.approx(rate, abs=4 * sigma / math.sqrt(dropped.numel()))
    by_unit = dropped.double().mean(0) - rate
    assert float(by_unit.abs().max()) < 5 * sigma / math.sqrt(200)
    assert float(by_unit.std()) == pytest.approx(sigma / math.sqrt(200), rel=0.1)  # neither more nor less even


def test_units_images_epochs_and_layers_are_not_correlated() -> None:
    seeds, epochs, layers = (0, 1), (0, 1, 89), ("drop6", "drop7")
    masks = [
        mask(list(range(100)), seed=s, epoch=e, layer=layer, units=400).double().sub(0.5).mul(2)
        for s, e, layer in itertools.product(seeds, epochs, layers)
    ]
    bound = 5 / math.sqrt(masks[0].numel())
    for one, other in itertools.combinations(masks, 2):
        assert abs(float((one * other).mean())) < bound
    for one in masks:
        for shift in (1, 2, 3, 4, 8, 64):
            assert abs(float((one[:, shift:] * one[:, :-shift]).mean())) < 1.2 * bound  # between units
            assert abs(float((one[shift:] * one[:-shift]).mean())) < 2 * bound  # between images
    between = torch.corrcoef(masks[0])  # of images, over all units
    between.fill_diagonal_(0)
    assert float(between.abs().max()) < 6 / math.sqrt(400)


def keyed(rate: float = 0.5, positions: Tensor | list[int] = POSITIONS, **options: int) -> KeyedDropout:
    """A module in training with keys set."""
    module = KeyedDropout(rate, "drop6", **options).train()
    set_dropout_keys(module, 11, 2, torch.as_tensor(positions))
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_kept_is_scaled_up_and_so_is_its_gradient(dtype: torch.dtype, way: str) -> None:
    x = torch.randn(5, 40).to(dtype).requires_grad_()
    out = keyed(0.2)(x)
    keep = mask(seed=11, epoch=2, rate=0.2, units=40)
    assert out.dtype == dtype
    assert torch.equal(out, torch.where(keep, x * torch.tensor(1 / 0.8, dtype=dtype), 0))
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    assert torch.equal(grad, keep * torch.tensor(1 / 0.8, dtype=dtype))


def test_units_of_maps_are_counted_by_map_row_and_column_in_any_layout(way: str) -> None:
    x = torch.rand(5, 6, 4, 3) + 1
    expected = keyed()(x.flatten(1)).view_as(x)
    assert torch.equal(keyed()(x), expected)
    assert torch.equal(keyed()(x.contiguous(memory_format=torch.channels_last)), expected)
    halves = torch.cat([keyed()(x[:, :3]), keyed(first_unit=36)(x[:, 3:])], 1)
    assert torch.equal(halves, expected)


def test_autocast_keeps_the_type_that_comes_in(way: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert keyed()(torch.randn(5, 8)).dtype == torch.float32
        assert keyed()(torch.randn(5, 8).bfloat16()).dtype == torch.bfloat16


def test_it_does_nothing_at_test_time_or_at_rate_0() -> None:
    x = torch.randn(5, 8)
    assert torch.equal(keyed().eval()(x), x)
    assert torch.equal(keyed(0.0)(x), x)


def test_without_keys_it_is_torchs_dropout() -> None:
    x = torch.randn(64, 100)
    torch.manual_seed(3)
    theirs = nn.Dropout(0.3).train()(x)
    module = keyed(0.3)
    set_dropout_keys(module, 0, 0, None)
    torch.manual_seed(3)
    assert torch.equal(module(x), theirs)


def test_with_keys_torchs_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    keyed()(torch.randn(5, 8, generator=torch.Generator()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keys_of_another_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="keys of 5 images and a batch of 3"):
        keyed()(torch.zeros(3, 8))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, math.nan])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="dropout rate"):
        KeyedDropout(rate)


def test_an_empty_batch_stays_empty(way: str) -> None:
    assert keyed(positions=[])(torch.zeros(0, 8)).shape == (0, 8)


def test_positions_may_be_of_numpy() -> None:
    module = KeyedDropout(0.5, "drop6").train()
    set_dropout_keys(module, 11, 2, POSITIONS.numpy().astype(np.int64))
    x = torch.randn(5, 8)
    assert torch.equal(module(x), keyed()(x))


@pytest.mark.parametrize("name", ["tiny-64", "torchvision:alexnet"])
def test_every_dropout_layer_of_a_network_is_keyed_and_differs_from_the_others(name: str) -> None:
    model = create_model(name, num_classes=3)
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    layers = [module.layer for module in model.modules() if isinstance(module, KeyedDropout)]
    assert len(layers) == len(set(layers)) == 2


def test_an_image_trains_alike_alone_and_in_a_batch_with_others() -> None:
    model = create_model("digits").double().train()
    images = torch.randn(4, 3, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    set_dropout_keys(model, 5, 1, [3, 9, 4, 2])
    whole = model(images)
    assert not torch.allclose(whole, model.eval()(images))
    model.train()
    for i, position in enumerate((3, 9, 4, 2)):
        set_dropout_keys(model, 5, 1, [position])
        torch.testing.assert_close(model(images[i : i + 1]), whole[i : i + 1], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_network_draws_the_same() -> None:
    x = torch.randn(5, 40)
    module = keyed()
    assert torch.equal(torch.compile(module)(x), module(x))
