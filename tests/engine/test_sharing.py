"""Views that share the windows of the first convolution give what they give one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from alexnet import presets
from alexnet.architecture import Conv
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
        (38, {"pad": 2}, 0),
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


def test_ten_views_are_two_groups_where_the_stride_allows() -> None:
    groups, alone = grouped(TEN, 48, 40, Conv("c", 8, 5, stride=2))
    assert [group.views for group in groups] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)] and not alone
    assert groups[0].strips[0].part == Part(0, 0, 48, 48)
    assert grouped(TEN, 48, 40, Conv("c", 8, 5, stride=2, pad=1)) == ([], list(range(10)))
    assert grouped([(0, 0, False), (0, 1, False)], 48, 40, Conv("c", 8, 5, stride=2)) == ([], [0, 1])


def test_a_mirrored_part_is_cut_from_the_other_side() -> None:
    assert Part(3, 1, 5, 10).place(20, mirrored=True) == (3, 9, True)
    assert Part(3, 1, 5, 10).place(20, mirrored=False) == (3, 1, False)
