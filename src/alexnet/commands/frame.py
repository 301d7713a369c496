"""What every command is made of: its entry in the table, its parser, and the arguments that several share."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from alexnet.errors import AlexnetError, UsageError, quoted, suggestion
from alexnet.setting import LARGEST, either, number

if TYPE_CHECKING:
    from alexnet.config import Config

Result = dict[str, Any]

SOURCE_HELP = (
    "digits, a folder of class folders (with or without train/ val/ test/), a folder of Parquet files, ILSVRC "
    "or WebDataset tars, hf:owner/name, a torchvision data set, or a store"
)
MODEL_HELP = "a run directory, a file written by `alexnet export --format safetensors`, or torchvision:NAME"
CHECKPOINT_HELP = (
    "best or last of a run (default: best by validation error); for torchvision:NAME a file of weights, or random"
)
PRESET_HELP = "a preset, torchvision:NAME, a run directory, or a file that `alexnet config` wrote"


def text(result: Result) -> str:
    """The prose of a result that brings its own."""
    return result["text"]


@dataclass(frozen=True)
class Command:
    """One command: its line in `alexnet --help`, its arguments, its work, and the prose of its result.

    `run` imports what it needs and returns what `--json` prints; `say` makes prose of that. With `settings` it takes
    `--section.name VALUE`, which `run` finds in `args.settings`; `epilog` ends its help.
    """

    name: str
    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    say: Callable[[Result], str] = text
    settings: bool = False
    epilog: Callable[[], str] | None = None


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, and with one line in our words for a wrong request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.type not in (int, float):
            return super()._get_value(action, arg_string)
        try:
            value = number(arg_string, action.type)
            if abs(value) < LARGEST[action.type]:
                return value
        except ValueError:
            pass
        wanted = "a whole number" if action.type is int else "a number"
        raise argparse.ArgumentError(action, f"{quoted(arg_string)} should be {wanted}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = suggestion(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"{quoted(value)} should be {either(list(action.choices))}{hint}")


class HelpFormat(argparse.RawDescriptionHelpFormatter):
    """Help with room for the longest command's name, and examples left as they are written."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 16, "width": 100, **options})


class CommandError(AlexnetError):
    """Work that failed, with the exit code: 1, or that of a command that was stopped."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def stop_code(stopped: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped: 143 by SIGTERM, else 130, as shells and schedulers expect."""
    return int(stopped.args[0]) if stopped.args else 130


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes: `--json` and `--debug`."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="print where a failure was raised"
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout"
    )


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which weights of a model compute, where, and how."""
    parser.add_argument("--checkpoint", metavar="NAME", help=CHECKPOINT_HELP)
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument(
        "--backend",
        choices=("engine", "torch"),
        help="what computes (default: engine, and torch on a GPU and for networks of torchvision's)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        help="default: the run's own; int8, on the CPU, is calibrated on the run's training images at first use",
    )


def settings_arguments(parser: argparse.ArgumentParser) -> None:
    """`--without`; the settings themselves, `--section.name VALUE`, are read before the parser."""
    from alexnet.ablations import ABLATIONS

    parser.add_argument(
        "--without",
        metavar="X,Y",
        type=lambda names: [name.strip() for name in names.split(",")],
        action="extend",
        default=[],
        help=f"leave ideas of the paper out: {', '.join(ABLATIONS)}",
    )


def split_settings(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`--section.name VALUE` and `--section.name=VALUE` as path → text, and the other words.

    Raises UsageError for one without a value.
    """
    settings: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or "." not in flag:
            rest.append(word)
            continue
        if not equals:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise UsageError(f"{flag} needs a value")
        settings[flag[2:]] = value
    return settings, rest


def named_config(name: str, classes: int | None = None) -> Config:
    """The settings that a word on the command line means; see `alexnet.named`."""
    from alexnet import named

    return named.named_config(name, classes)


def with_settings(base: Config, args: argparse.Namespace) -> Config:
    """The config with what `--without` and `--section.name` change; the flags win. Raises UsageError."""
    from alexnet import config
    from alexnet.ablations import without

    return config.replace(without(base, args.without), args.settings)


def settings_help(preset: str) -> str:
    """Every setting with its help text and what a preset has, for the end of a command's help."""
    from alexnet import config, presets

    lines = [f"settings, each as --section.name VALUE (in brackets: what preset {preset} has):"]
    for entry in config.fields(presets.preset(preset)):
        if entry.path.count(".") == 1:
            choices = f" {{{','.join(entry.choices)}}}" if entry.choices else ""
            lines.append(f"  --{entry.path}{choices}  {entry.about} [{config.text_of(entry.default)}]")
    lines += [
        "settings of a layer, which `alexnet config PRESET` prints, as --network.conv1.kernels 48;",
        "--network.norm1 none removes a layer",
    ]
    return "\n".join(lines)


def unknown_flag(flag: str, known: Iterable[str], values: Mapping[str, str]) -> UsageError:
    """What to say of a flag that a command does not have: the flag of that last name, or the one most like it.

    `values` are words that flags take, as bfloat16, and what to give then, as --precision bfloat16.
    """
    names = sorted(known)
    flag = flag.partition("=")[0]
    word = _bare(flag)
    close = [name for name in names if _bare(name).rpartition(".")[2] == word]
    if not close:  # last words alone, as --bath-size is like --train.batch_size, and whole names
        spellings = {_bare(name).rpartition(".")[2]: name for name in names} | {_bare(name): name for name in names}
        spellings = {first: name for name in names if (first := _first(name))} | spellings
        close = [spellings[like] for like in difflib.get_close_matches(word[:100], spellings, n=1, cutoff=0.7)]
    if not close or word in values:
        close = [values[like] for like in difflib.get_close_matches(word[:100], values, n=1, cutoff=0.65)]
    return UsageError(f"unknown flag {flag}" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def _first(name: str) -> str:
    """The first word of a setting's last name of several, as batch of --train.batch_size."""
    first, several, _ = _bare(name).rpartition(".")[2].partition("_")
    return first if several and "." in name else ""


def _bare(flag: str) -> str:
    """A flag without the dashes that all begin with, which are no likeness, and with one spelling of a gap."""
    return flag.lstrip("-").replace("-", "_")


def describe_errors(result: Result) -> str:
    """Errors, loss and count of a measurement in words."""
    top5 = "" if result["top5_error"] is None else f", top-5 error {result['top5_error']:.2f} %"
    beside = describe_comparison(result)
    beside = f" ({beside})" if beside else ""
    return (
        f"top-1 error {result['top1_error']:.2f} %{beside}{top5}, loss {result['loss']:.4f}, {result['count']:,} images"
    )


def describe_comparison(result: Result) -> str:
    """What a measurement is to be compared with, in words; empty where it is not known."""
    chance, majority = result.get("chance_error"), result.get("majority_error")
    words = [] if chance is None else [f"chance {chance:.2f} %"]
    return ", ".join([*words, *([] if majority is None else [f"majority {majority:.2f} %"])])
