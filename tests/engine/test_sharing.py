"""Views that share windows of the first layers give what they give one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from alexnet import presets
from alexnet.architecture import LRN, Activation, Conv, Full, Layer, Network, Pool
from alexnet.engine import compiled_network, library
from alexnet.engine.interpreter import Interpreter
from alexnet.engine.preparation import weight_shapes
from alexnet.engine.sharing import Group, Part, grouped

TEN = [(r, c, m) for m in (False, True) for r, c in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))]
SEVERAL = [(0, 1, True), (4, 1, True), (1, 1, False), (0, 3, True)]  # some of which share


def interpreter(side: int, precision: str = "float32", **changes: object) -> Interpreter:
    """The preset tiny-64 for views of `side`, with other settings of its first convolution."""
    network = presets.preset("tiny-64", classes=5).network
    first = dataclasses.replace(network.layers[0], **changes)  # type: ignore[arg-type]
    network = dataclasses.replace(network.replace_layer("conv1", first), image=side)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.05, s).astype(np.float32) for name, s in weight_shapes(network).items()}
    ranges = {"image": 255.0, "pool1": 300.0} if precision == "int8" else None
    mean = rng.uniform(90, 150, (side + 8, side + 8, 3)).astype(np.float32)
    return Interpreter(network, weights, mean=mean, precision=precision, ranges=ranges)


@pytest.mark.skipif(library.library() is None, reason="no compiled library here, or switched off")
@pytest.mark.parametrize(
    ("side", "changes", "groups"),
    [
        (41, {}, 2),
        (40, {}, 2),
        (40, {"ceil": False}, 2),
        (52, {"stride": 4, "size": 7}, 2),
        (38, {"pad": 2}, 2),
        (42, {"stride": 3}, 0),
    ],
    ids=["fits", "rounded up", "rounded down", "stride 4", "padded", "no multiple"],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_shared_views_are_equal_to_separate_ones(
    side: int, changes: dict[str, int], groups: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[Group] = []

    def spy(*given: Any) -> tuple[list[Group], list[int]]:
        found = grouped(*given)
        shared.extend(found[0])
        return found

    monkeypatch.setattr(compiled_network, "grouped", spy)
    net = interpreter(side, precision, **changes)
    squares = np.random.default_rng(1).integers(0, 256, (3, side + 8, side + 8, 3), np.uint8)
    ten = net.logits(squares, TEN)
    assert len(shared) == groups
    for views, together in ((TEN, ten), (SEVERAL, net.logits(squares, SEVERAL))):
        assert np.array_equal(together, np.concatenate([net.logits(squares, [view]) for view in views]))


def drawn(seed: int) -> tuple[Network, int, list[tuple[int, int, bool]]]:
    """A network of a few convolutions and pooling layers, the side of its squares, and views of them."""
    rng = np.random.default_rng(seed)
    side, layers = int(rng.integers(24, 60)), list[Layer]()
    left = side
    for i in range(int(rng.integers(1, 6))):
        size, stride, ceil = (int(value) for value in rng.integers((1, 1, 0), (6, 4, 2)))
        pad = int(rng.integers(0, size)) if rng.random() < 0.5 else 0
        layer: Layer = Pool(f"pool{i}", size, stride, "avg" if rng.random() < 0.3 else "max", bool(ceil))
        if rng.random() < 0.6:
            layer = Conv(
                f"conv{i}", 6, size, stride, pad, sees="own" if i and rng.random() < 0.5 else "all", ceil=bool(ceil)
            )
        if left + 2 * getattr(layer, "pad", 0) < size + 2:
            break
        layers += [layer, Activation(f"relu{i}")] if isinstance(layer, Conv) else [layer]
        layers += [LRN(f"norm{i}")] if rng.random() < 0.2 else []
        left = (left + 2 * getattr(layer, "pad", 0) - size) // stride + 1
    layers = layers or [Conv("conv", 6, 3)]
    gap = int(rng.choice((4, 8, 12)))
    corners = [(0, 0), (0, gap), (gap, 0), (gap, gap), (gap // 2, gap // 2), *rng.integers(0, gap + 1, (2, 2)).tolist()]
    first = [("conv0", 6, 3)] if not isinstance(layers[0], Conv) else []
    layers = [*(Conv(*made, pad=1) for made in first), *layers, Full("fc")]
    return (
        Network("drawn", side, 5, 2, layers=tuple(layers)),
        side + gap,
        [(*at, m) for m in (False, True) for at in corners],
    )


@pytest.mark.skipif(library.library() is None, reason="no compiled library here, or switched off")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_any_network_shares_without_a_difference(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    depths = []
    for seed in range(60):
        network, square, views = drawn(seed)
        rng = np.random.default_rng(seed)
        weights = {name: rng.normal(0, 0.2, s).astype(np.float32) for name, s in weight_shapes(network).items()}
        mean = rng.uniform(90, 150, (square, square, 3)).astype(np.float32)
        net = Interpreter(network, weights, mean=mean, precision=precision)
        squares = rng.integers(0, 256, (2, square, square, 3), np.uint8)
        together = net.logits(squares, views)
        apart = np.concatenate([net.logits(squares, [view]) for view in views])
        assert np.isfinite(apart).all() and np.array_equal(together, apart), (seed, network)
        depths += [len(group.levels) for group in net._computed._groups(tuple(views), square)[0]]  # type: ignore[union-attr]
    assert max(depths) >= 4 and min(depths) == 1 and len(depths) >= 60


def test_ten_views_are_two_groups_where_the_strides_allow() -> None:
    layers: list[tuple[Conv | Pool, int]] = [(Conv("c", 8, 5, stride=2), 19), (Pool("p", 3, 2), 9)]
    layers += [(Conv("d", 8, 5), 5), (Conv("e", 8, 3, pad=1), 5)]
    groups, alone = grouped(TEN, 48, 40, layers)
    assert [group.views for group in groups] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)] and not alone
    first, second, third = groups[0].levels  # of the fourth 16 places in common and 105 of the views' own are no gain
    assert groups[0].part(first.source) == Part(0, 0, 47, 47) and (first.side, second.side) == (19, 9)
    assert first.inner == slice(0, 18) and second.inner == slice(0, 8)  # the last windows see zeros past the edge
    assert second.corners == ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))
    assert third.inner == slice(0, 4) and len(third.strips) == 2  # below and at the right


def test_views_are_alone_where_they_lie_no_multiple_of_the_stride_apart() -> None:
    assert grouped([(0, 0, False), (0, 1, False)], 48, 40, [(Conv("c", 8, 5, stride=2), 19)]) == ([], [0, 1])
    assert grouped(TEN, 48, 40, []) == ([], list(range(10)))


def test_a_mirrored_part_is_cut_from_the_other_side() -> None:
    assert Part(3, 1, 5, 10).place(20, mirrored=True) == (3, 9, True)
    assert Part(3, 1, 5, 10).place(20, mirrored=False) == (3, 1, False)
