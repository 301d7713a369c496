"""Kernels of our own, where they pay: normalization across and within maps, and the update rule.

`build` compiles kernels.cpp at first use, `cpu` calls it, `cuda` holds the Triton kernels, `composed` the same in torch
operations for everything else, and `operators` registers them with torch. `ALEXNET_NATIVE=0` turns the compiled
kernels off.
"""

from alexnet.native.cpu import sgd_step

__all__ = ["sgd_step"]
