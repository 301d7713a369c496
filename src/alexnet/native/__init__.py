"""Kernels of our own, where they pay: normalization across and within maps, and the update rule.

`build` compiles kernels.cpp at first use, `cpu` calls it, `cuda` holds the Triton kernels, `composed` the same in torch
operations for everything else, and `operators` registers them with torch; `memory` spares the page faults.
`ALEXNET_NATIVE=0` turns the compiled kernels off.
"""

from alexnet.native.cpu import sgd_step
from alexnet.native.memory import keep_freed_memory

__all__ = ["keep_freed_memory", "sgd_step"]
