"""Maps of neighbouring layers do not overlap, and the memory is no larger than the largest two."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.engine.library import Dtype
from alexnet.engine.plan import ALIGNED, Maps, Operation, Plan


def operation(name: str, *shape: int, in_place: bool = False) -> Operation:
    return Operation(name, Maps(shape, Dtype.FLOAT32), lambda x, out: None, in_place)


def test_neighbours_share_the_memory_of_the_largest_two() -> None:
    given = Maps((1, 10, 10, 3), Dtype.FLOAT32)  # 1216 bytes in whole lines
    chain = [operation("a", 1, 5, 5, 16), operation("b", 1, 5, 5, 16, in_place=True), operation("c", 1, 7)]
    plan = Plan(given, [*chain, operation("d", 1, 300)])
    assert plan.size == 1216 + 1600
    for stage in plan.stages:
        out = stage.operation.out
        assert stage.target % ALIGNED == 0 and stage.target + out.room <= plan.size
        if stage.operation.in_place:
            assert stage.source == stage.target
    places = [(stage.source, stage.target) for stage in plan.stages]
    assert places[0][0] == 0 and places[0][1] >= 1216
    assert [source for source, _ in places[1:]] == [target for _, target in places[:-1]]
    assert plan.end == places[-1][1]


def test_a_plan_without_operations_holds_what_it_is_given() -> None:
    given = Maps((2, 3), Dtype.BFLOAT16)
    assert (Plan(given, []).size, Plan(given, []).end) == (64, 0)


@pytest.mark.parametrize(("dtype", "stored"), [(Dtype.FLOAT32, np.float32), (Dtype.BFLOAT16, np.uint16)])
def test_what_lies_in_memory_is_read_as_a_float32_copy(dtype: Dtype, stored: type) -> None:
    memory = np.zeros(200, np.uint8)
    memory[64 : 64 + 6 * np.dtype(stored).itemsize].view(stored)[:] = 0x3F80 if stored is np.uint16 else 1
    values = Maps((2, 3), dtype).read(memory, 64)
    assert values.dtype == np.float32 and values.shape == (2, 3) and (values == 1).all()
    memory[:] = 0
    assert (values == 1).all()


def test_wanted_outputs_are_given_before_they_are_written_over() -> None:
    def fill(value: float, count: int) -> Operation:
        def write(_: int, out: int) -> None:
            start = out - memory.ctypes.data
            memory[start : start + 4 * count].view(np.float32)[:] = value

        return Operation(f"{value:g}", Maps((1, count), Dtype.FLOAT32), write)

    plan = Plan(Maps((1, 16), Dtype.FLOAT32), [fill(1, 20), fill(2, 40), fill(3, 20)], {"1", "3"})
    memory = np.zeros(plan.size, np.uint8)
    found: dict[str, list[float]] = {}
    plan.run(memory, lambda name, values: found.update({name: values.ravel().tolist()}))
    assert found == {"1": [1.0] * 20, "3": [3.0] * 20}
