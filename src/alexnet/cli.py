"""The command `alexnet`: a table of commands, each importing what it needs when it runs.

Prose and progress go to stderr; with `--json` one JSON object goes to stdout. Exit codes: 0 done, 1 the work failed,
2 the request was wrong.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alexnet import commands as work
from alexnet.commands import Failed, Parser, Result, Wrong, json_argument, told


@dataclass(frozen=True)
class Command:
    """One command: its line in `alexnet --help`, its arguments, and the function that does it."""

    name: str
    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    say: Callable[[Result], str]


COMMANDS = (
    Command("train", "train a network; every setting has a flag", work.train_arguments, work.train, work.say_train),
    Command("evaluate", "top-1 and top-5 error of a run, or of several averaged", work.evaluate_arguments,
            work.evaluate, work.say_evaluate),
    Command("predict", "the most probable labels of images", work.predict_arguments, work.predict, work.say_predict),
    Command("summary", "every layer: output shape, neurons, weights, connections", work.summary_arguments,
            work.summary, work.text),
    Command("presets", "the table of presets, or how two differ", work.presets_arguments, work.presets, work.text),
    Command("data", "prepare, verify or describe images", work.data_arguments, work.data, work.say_data),
    Command("report", "one self-contained HTML page of a run, with the paper's figures", work.report_arguments,
            work.report, lambda result: f"the report is at {result['report']}"),
    Command("bench", "speed beside other libraries, kept and compared",
            work.bench_arguments, work.bench, work.text),
)


def _parser(wanted: str | None) -> Parser:
    parser = Parser(
        prog="alexnet", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="The 2012 paper \"ImageNet Classification with Deep Convolutional Neural Networks\", working.",
        epilog="examples:\n  alexnet train --preset tiny-64 --data pictures/ --out runs/first\n"
               "  alexnet evaluate runs/first --views 10\n  alexnet report runs/first\n"
               "  alexnet COMMAND --help says more")
    from alexnet import __version__

    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    json_argument(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.about, description=command.about.capitalize() + ".",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        if command.name == wanted:
            command.arguments(sub)
            if command.name == "train":
                sub.epilog = work.train_epilog()
        if command.name != "data":
            json_argument(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        return _main(words)
    except Failed as failure:
        return _fail(str(failure), failure.code, as_json)
    except KeyboardInterrupt:
        return _fail("stopped", 130, as_json)
    except (ValueError, ImportError) as error:
        return _fail(" ".join(str(error).split()), 2, as_json)
    except BrokenPipeError:  # who reads our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(told(error), 1, as_json)
    except (MemoryError, RuntimeError) as error:
        what = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and "out of memory" not in what and "allocate memory" not in what:
            raise
        return _fail(f"out of memory; try a smaller --train.batch_size or --data.memory ({what[:200]})", 1, as_json)


def _main(words: list[str]) -> int:
    names = [command.name for command in COMMANDS]
    wanted = next((word for word in words if not word.startswith("-")), None)
    if wanted is not None and wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(names)}"
        raise Wrong(f"{wanted!r} is no command; {hint}")
    parser = _parser(wanted)
    if wanted == "train":
        args, rest = parser.parse_known_args(words)
    else:
        args, rest = parser.parse_args(words), []
    if args.command is None:
        if "--json" in words:
            raise Wrong(f"a command is needed: {', '.join(names)}")
        parser.print_help(sys.stderr)
        return 2
    args.rest, args.argv = rest, words
    command = COMMANDS[names.index(args.command)]
    result = command.run(args)
    if getattr(args, "json", False):
        result.pop("text", None)
        print(json.dumps(result))
    else:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
        print(command.say(result))
    sys.stdout.flush()
    return int(result.get("exit_code", 0))


def _fail(message: str, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message}))
    print(f"alexnet: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
