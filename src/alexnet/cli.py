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
from collections.abc import Sequence

from alexnet.commands import bench, data, evaluate, export, predict, presets, report, summary, train
from alexnet.commands.frame import Parser, json_argument
from alexnet.errors import AlexnetError, UsageError, describe_os_error

COMMANDS = tuple(module.COMMAND for module in (train, evaluate, predict, summary, presets, data, report, export, bench))


def _parser(wanted: str | None) -> Parser:
    parser = Parser(
        prog="alexnet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description='The 2012 paper "ImageNet Classification with Deep Convolutional Neural Networks", working.',
        epilog="examples:\n  alexnet train --preset tiny-64 --data pictures/ --out runs/first\n"
        "  alexnet evaluate runs/first --views 10\n  alexnet report runs/first\n"
        "  alexnet COMMAND --help says more",
    )
    from alexnet import __version__

    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    json_argument(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.about,
            description=command.about.capitalize() + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.name == wanted:
            command.arguments(sub)
            if command.name == "train":
                sub.epilog = train.epilog()
        if command.name != "data":
            json_argument(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        return _main(words)
    except AlexnetError as error:
        return _fail(" ".join(str(error).split()), error.exit_code, as_json)
    except KeyboardInterrupt:
        return _fail("stopped", 130, as_json)
    except (ValueError, ImportError) as error:
        return _fail(" ".join(str(error).split()), 2, as_json)
    except BrokenPipeError:  # who reads our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(describe_os_error(error), 1, as_json)
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
        raise UsageError(f"{wanted!r} is no command; {hint}")
    parser = _parser(wanted)
    if wanted == "train":
        args, rest = parser.parse_known_args(words)
    else:
        args, rest = parser.parse_args(words), []
    if args.command is None:
        if "--json" in words:
            raise UsageError(f"a command is needed: {', '.join(names)}")
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
