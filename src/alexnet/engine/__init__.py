"""The engine: kernels of our own in C++ for the CPU, compiled at first use, and how to call them without torch.

Functions take addresses and sizes; the modules of `model/` make them from tensors. Nothing here imports torch.
"""

from alexnet.engine.memory import keep_freed_memory

__all__ = ["keep_freed_memory"]
