"""What every command is made of: its entry in the table, its parser, and the arguments that several share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from alexnet.errors import AlexnetError, UsageError

Result = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """One command: its line in `alexnet --help`, its arguments, its work, and the prose of its result.

    `run` imports what it needs and returns what `--json` prints; `say` makes prose of that.
    """

    name: str
    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    say: Callable[[Result], str]


class Parser(argparse.ArgumentParser):
    """argparse with one line for a wrong request."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


class CommandError(AlexnetError):
    """Work that failed, with the exit code: 1, or 130 for a command that was stopped."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


SOURCE_HELP = (
    "digits, a folder of class folders (with or without train/ val/ test/), a folder of Parquet files, ILSVRC "
    "or WebDataset tars, hf:owner/name, a torchvision data set, or a store"
)


def json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout"
    )


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a model's weights and what computes them."""
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="best or last of a run (default: best by validation error); for torchvision:NAME a file of weights, or "
        "random",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--backend",
        choices=("auto", "torch", "onnxruntime", "openvino"),
        help="what computes (default: torch, and openvino for int8); auto: the fastest that is installed",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        help="default: the run's own; int8 is calibrated on its training images at first use",
    )


MODEL_HELP = "a run directory, a file written by `alexnet export --format safetensors`, or torchvision:NAME"


def text(result: Result) -> str:
    return result["text"]


def describe_errors(result: Result) -> str:
    top5 = "" if result["top5_error"] is None else f", top-5 error {result['top5_error']:.2f} %"
    return f"top-1 error {result['top1_error']:.2f} %{top5}, loss {result['loss']:.4f}, {result['count']:,} images"
