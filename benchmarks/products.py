"""The product of square matrices whose rate is the reference for networks."""

from __future__ import annotations

import argparse

from alexnet.environment import instruction_sets

SIDE, SIDE_EMULATED, SIDE_CUDA = 2048, 256, 8192  # rows and columns


def side_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--side`, also for tests: a product of 2048² bfloat16 matrices takes 13 s where it is emulated."""
    words = f"rows and columns of the matrices whose product is the reference (on a CPU {SIDE})"
    parser.add_argument("--side", type=int, help=words)


def side_of(options: argparse.Namespace, precision: str) -> int:
    """`--side`, or what suits the device; small where the processor would emulate the precision."""
    if options.side is not None:
        return int(options.side)
    if getattr(options, "device", "cpu") == "cuda":
        return SIDE_CUDA
    native = precision == "float32" or instruction_sets()[1].endswith("bf16")
    return SIDE if native else SIDE_EMULATED
