"""Kernels of our own, where they pay: normalization across and within maps, convolution, and the update rule.

`build` compiles the C++ sources at first use, `cpu` and `convolution` call them, `cuda` holds the Triton kernels,
`composed` the same in torch operations for everything else, and `operators` registers them with torch; `memory` spares
the page faults.
`ALEXNET_NATIVE=0` turns the compiled kernels off.
"""

from alexnet.engine.cpu import sgd_step
from alexnet.engine.memory import keep_freed_memory

__all__ = ["keep_freed_memory", "sgd_step"]
