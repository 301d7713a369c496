"""The product of square matrices whose rate is the reference for networks."""

from __future__ import annotations

import argparse

from alexnet.environment import instruction_sets

SIDE, SIDE_CUDA = 2048, 8192  # rows and columns


def side_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--side`, also for tests."""
    words = f"rows and columns of the matrices whose product is the reference (on a CPU {SIDE})"
    parser.add_argument("--side", type=int, help=words)


def side_of(options: argparse.Namespace) -> int:
    """`--side`, or what suits the device."""
    if options.side is not None:
        return int(options.side)
    return SIDE_CUDA if getattr(options, "device", "cpu") == "cuda" else SIDE


def multiplied_as(precision: str, device: str = "cpu") -> str:
    """The precision whose products are the reference: float32 where a processor has none of bfloat16 numbers."""
    emulated = precision == "bfloat16" and device == "cpu" and not instruction_sets()[1].endswith("bf16")
    return "float32" if emulated else precision
