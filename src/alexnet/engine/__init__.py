"""The engine: what a CPU computes of the network, in C++ compiled at installation, and how to call it without torch.

Functions take addresses and sizes; the modules of `model/` make them from tensors. Nothing here imports torch.
"""
