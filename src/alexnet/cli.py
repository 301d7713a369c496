"""The command `alexnet`: a table of commands, each importing what it needs when it runs.

Prose and progress go to stderr; with `--json` one JSON object goes to stdout. Exit codes: 0 done, 1 the work failed,
2 the request was wrong, 130 stopped by Ctrl-C or SIGUSR1, 143 by SIGTERM. Only an AlexnetError, or what the system says
of a file, is a message for the user; any other exception is a bug, whose traceback is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence

from alexnet.commands import (
    baseline,
    bench,
    completion,
    config,
    data,
    doctor,
    evaluate,
    export,
    predict,
    presets,
    report,
    reproduce,
    summary,
    train,
)
from alexnet.commands.frame import (
    Command,
    HelpFormat,
    Parser,
    common_arguments,
    split_settings,
    stop_code,
    unknown_flag,
)
from alexnet.errors import AlexnetError, UsageError, describe_os_error, missing_library, quoted, suggestion
from alexnet.files import cache_folder, write_text

COMMANDS: tuple[Command, ...] = tuple(
    module.COMMAND
    for module in (
        train,
        evaluate,
        predict,
        baseline,
        summary,
        presets,
        config,
        data,
        report,
        reproduce,
        export,
        bench,
        doctor,
        completion,
    )
)


def command_parser(wanted: str | None = None) -> Parser:
    """The parser of the whole command line; only the command that is wanted, or with None every one, has arguments."""
    from alexnet import __version__

    parser = Parser(
        prog="alexnet",
        formatter_class=HelpFormat,
        description='The 2012 paper "ImageNet Classification with Deep Convolutional Neural Networks", working.',
        epilog="examples:\n  alexnet train --preset tiny-64 --data pictures/ --out runs/first\n"
        "  alexnet evaluate runs/first --views 10\n"
        "  alexnet predict runs/first some.jpg\n  alexnet report runs/first\n"
        "  alexnet COMMAND --help says more\n\n"
        "exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 stopped by Ctrl-C or SIGUSR1,\n"
        "143 by SIGTERM",
    )
    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    common_arguments(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.about,
            description=command.about[0].upper() + command.about[1:] + ".",
            formatter_class=HelpFormat,
        )
        if wanted in (None, command.name):
            command.arguments(sub)
            if command.epilog and wanted:
                sub.epilog = command.epilog()
        common_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may not be text, a terminal may not know σ
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # no line of ours with it
    try:
        return _main(words)
    except AlexnetError as error:
        return _fail(str(error), error.exit_code, words)
    except KeyboardInterrupt as stopped:
        return _fail("stopped", stop_code(stopped), words)
    except BrokenPipeError:  # who reads our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(describe_os_error(error), 1, words)
    except Exception as error:
        what = str(error)
        if isinstance(error, MemoryError) or "out of memory" in what or "allocate memory" in what:
            advice = "try a smaller --train.batch_size or --data.memory"
            return _fail(f"out of memory; {advice} ({what[:200]})", 1, words)
        return _fail(f"bug: {type(error).__name__}: {what[:300]}; {_keep_traceback(words)}", 1, words)


def _main(words: list[str]) -> int:
    names = [command.name for command in COMMANDS]
    if any("\0" in word for word in words):
        raise UsageError("a word of the command holds a NUL character, which no name or value can")
    wanted = next((word for word in words if not word.startswith("-")), None)
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"unknown command {quoted(wanted)}{suggestion(wanted, names) or '; commands: ' + ', '.join(names)}"
        )
    command = COMMANDS[names.index(wanted)] if wanted else None
    settings, rest = split_settings(words) if command and command.settings else ({}, words)
    parser = command_parser(wanted or "")
    args, left = parser.parse_known_args(rest)
    if left:
        raise _unknown(left, parser, command)
    if command is None:
        if "--json" in words:
            raise UsageError(f"a command is needed: {', '.join(names)}")
        parser.print_help(sys.stderr)
        return 2
    args.settings, args.argv, args.parser = settings, words, command_parser
    args.with_settings = [entry.name for entry in COMMANDS if entry.settings]
    try:
        result = command.run(args)
    except ModuleNotFoundError as error:
        raise missing_library(error, f"alexnet {command.name}") from error
    if getattr(args, "json", False):
        result.pop("text", None)
        print(json.dumps(result))
    elif said := command.say(result):
        print(said)
    sys.stdout.flush()
    return int(result.get("exit_code", 0))


def _unknown(left: list[str], parser: Parser, command: Command | None) -> UsageError:
    """What to say of words that no argument takes."""
    flag = next((word for word in left if word.startswith("-")), None)
    where = f"see `alexnet {command.name} --help`" if command else "see `alexnet --help`"
    if flag is None:
        return UsageError(f"unexpected argument {quoted(left[0])}; {where}")
    flags = [action for action in _actions(parser) if action.option_strings]
    known = [name for action in flags for name in action.option_strings]
    values = {str(value): f"{action.option_strings[-1]} {value}" for action in flags for value in action.choices or ()}
    if command and command.settings:
        from alexnet import presets
        from alexnet.config import fields

        settings = list(fields(presets.preset("digits")))
        known += [f"--{entry.path}" for entry in settings]
        values = {value: f"--{entry.path} {value}" for entry in settings for value in entry.choices or ()} | values
    error = unknown_flag(flag, known, values)
    return error if "did you mean" in str(error) else UsageError(f"{error}; {where}")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)


def _keep_traceback(words: list[str]) -> str:
    """Keep the traceback of the exception at hand in the cache folder; returns where it is, in words."""
    trace = traceback.format_exc()
    try:
        folder = cache_folder("bugs")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
        write_text(path, f"alexnet {' '.join(words)}\n\n{trace}".encode(errors="backslashreplace").decode())
    except (OSError, RuntimeError):
        return "its traceback could not be kept: give --debug to see it"
    return f"the traceback is in {path}"


def _fail(message: str, code: int, words: list[str]) -> int:
    """Say in one line what is wrong (and with --json as an object), and with --debug where it was raised."""
    message = str(AlexnetError(" ".join(message.split())))  # printable and bounded as those of our own are
    if "--debug" in words:
        traceback.print_exc()
    if "--json" in words:
        with contextlib.suppress(OSError):  # stdout may be what has failed
            print(json.dumps({"error": message}), flush=True)
    print(f"alexnet: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
