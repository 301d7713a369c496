"""Freed memory is kept: after some, large tensors cost no page faults."""

import subprocess
import sys
from pathlib import Path

import pytest

import alexnet

MEASURE = """
import resource, torch
from alexnet.engine.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(9 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(keep_freed_memory())
for _ in range(30):
    faults()
print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_tensors_soon_reuse_the_pages_of_earlier_ones():
    run = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env={"PYTHONPATH": str(Path(alexnet.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    agreed, faults = run.stdout.split()
    if agreed == "False":
        pytest.skip("this C library has no mallopt")
    assert int(faults) < 100
