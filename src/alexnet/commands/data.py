"""`alexnet data`: prepare, verify or describe images."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from alexnet.commands.frame import (
    SOURCE_HELP,
    Command,
    CommandError,
    HelpFormat,
    Parser,
    Result,
    common_arguments,
)

MOST_UNREADABLE = 20  # files named by `verify`


def _source_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument("--download", action="store_true", help="let a torchvision data set be downloaded")
    common_arguments(parser)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Three actions with their flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    about = {
        "prepare": "make a checked store of a source, once, for fast training",
        "verify": "check a source or store: counts, sums, labels, duplicates, odd files (grey, misnamed, …)",
        "info": "splits, classes, counts, sizes, statistics, and a contact sheet",
    }
    parsers = {
        name: actions.add_parser(name, help=text, description=text.capitalize() + ".", formatter_class=HelpFormat)
        for name, text in about.items()
    }
    for action in parsers.values():
        _source_argument(action)
    prepare = parsers["prepare"]
    prepare.add_argument("out", metavar="OUT", help="the store's folder; a killed preparation goes on where it was")
    prepare.add_argument("--size", type=int, default=256, help="pixels of the shorter side (default: 256)")
    codecs = "yuv420: fast, half of raw; raw: exact; jpeg: small (default: yuv420 where the disk has room, else jpeg)"
    prepare.add_argument("--codec", choices=("yuv420", "raw", "jpeg"), help=codecs)
    prepare.add_argument("--quality", type=int, default=90, help="of the jpeg codec (default: 90)")
    prepare.add_argument("--exif-rotate", action="store_true", help="apply EXIF orientation (the 2012 code did not)")
    prepare.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    prepare.add_argument("--workers", type=int, help="default: one per core")
    parsers["info"].add_argument("--contact-sheet", metavar="PNG", help="write a picture of samples there")


def run(args: argparse.Namespace) -> Result:
    """Prepare, verify or describe."""
    return {"prepare": _prepare, "verify": _verify, "info": _info}[args.action](args)


def _prepare(args: argparse.Namespace) -> Result:
    with _stoppable("stopped; what is finished is kept: give the same command to go on where it was"):
        from alexnet.data.store.manifest import left_out
        from alexnet.data.store.prepare import prepare
        from alexnet.progress import Terminal

        progress = Terminal()
        with progress.counting("preparing"):
            manifest = prepare(
                args.source,
                args.out,
                size=args.size,
                codec=args.codec,
                quality=args.quality,
                exif_rotate=args.exif_rotate,
                strict=args.strict,
                workers=args.workers,
                progress=progress.decoding,
                note=progress.note,
                download=args.download,
            )
    unreadable = [{"file": file, "reason": reason} for file, reason in left_out(Path(args.out).expanduser())]
    return {"action": "prepare", "out": args.out, "manifest": manifest.to_json(), "unreadable": unreadable}


@contextmanager
def _stoppable(message: str) -> Iterator[None]:
    """End the work within at once where a signal asks for it, with the message and the exit code shells know."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]

    def stop(number: int, _: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)  # the end is tidy, and soon there
        raise KeyboardInterrupt(143 if number == signal.SIGTERM else 130)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise CommandError(message, stopped.args[0] if stopped.args else 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verify(args: argparse.Namespace) -> Result:
    with _stoppable("stopped; nothing was changed"):
        from alexnet.data.store.verify import verify
        from alexnet.progress import Terminal

        progress = Terminal()
        with progress.counting("verifying"):
            verification = verify(args.source, progress=progress.decoding, download=args.download)
    return {"action": "verify", **verification.to_json(), "exit_code": int(verification.errors > 0)}


def _info(args: argparse.Namespace) -> Result:
    from alexnet.data.readers.open import open_source
    from alexnet.data.store.info import info

    source = open_source(args.source, download=args.download)
    result = {"action": "info", **info(source).to_json()}
    if args.contact_sheet:
        from alexnet.report.contact_sheet import write_contact_sheet

        write_contact_sheet(source, Path(args.contact_sheet).expanduser())
        result["contact_sheet"] = args.contact_sheet
    return result


def say(result: Result) -> str:
    """What was prepared, verified or described."""
    if result["action"] == "prepare":
        lines = _prepared(result)
    elif result["action"] == "verify":
        lines = _verified(result)
    else:
        lines = _described(result)
    return "\n".join(_printable(line) for line in lines)


def _printable(line: str) -> str:
    """A line without what would steer a terminal, as names of files and classes may."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line[:2000])


def _prepared(result: Result) -> list[str]:
    """Lines about a new store: its splits, and the pictures that were left out."""
    splits = result["manifest"]["splits"]
    counts = ", ".join(f"{name} {entry['count']:,}" for name, entry in splits.items())
    lines = [f"{result['out']}: {counts}; check it with `alexnet data verify {result['out']}`"]
    if dropped := sum(entry["unreadable"] for entry in splits.values()):
        total = dropped + sum(entry["count"] for entry in splits.values())
        lines.append(f"{dropped:,} of {total:,} pictures cannot be read and were left out:")
        lines += [f"  {entry['file']}: {entry['reason']}" for entry in result["unreadable"]]
        if dropped > len(result["unreadable"]):
            lines.append(f"  … all of them in {Path(result['out']) / 'report.csv'}")
    return lines


def _verified(result: Result) -> list[str]:
    """A line about each issue, with the first of the files that cannot be read."""
    from alexnet.data.store.checks import UNREADABLE

    lines, bad = [], 0
    for issue in result["issues"]:
        unreadable = issue["message"].startswith(UNREADABLE)
        bad += unreadable
        if not unreadable or bad <= MOST_UNREADABLE:
            lines.append(f"{issue['level']}: {issue['where']}: {issue['message']}")
    if bad > MOST_UNREADABLE:
        lines.append(f"… and {bad - MOST_UNREADABLE:,} more files are unreadable; --json lists all")
    return lines or [f"{result['source']}: nothing is wrong with it"]


def _described(result: Result) -> list[str]:
    """Lines about a source or store: its classes, its splits, what a store holds."""
    names = result["class_names"]
    few = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    lines = [f"{result['spec']}: a {result['kind']} of {len(names):,} classes ({few})"]
    for name, split in result["splits"].items():
        lines += _split_lines(name, split)
    if result["kind"] == "store":
        turned = "turned as EXIF says" if result["settings"].get("exif_rotate") else "not turned as EXIF says"
        lines.append(
            f"made of {result['source']} as {result['codec']} squares of {result['size']} pixels, {turned}: "
            f"{result['bytes'] / 1e6:,.1f} MB"
        )
        if result["unreadable"] or result["odd"]:
            lines.append(
                f"{result['unreadable']:,} files left out, {result['odd']:,} odd (grey, misnamed, …) but used; "
                f"see {result['report']}"
            )
        if "statistics" in result:
            mean = ", ".join(f"{value:.1f}" for value in result["statistics"]["rgb_mean"])
            lines.append(f"mean RGB of train: {mean}")
    if "contact_sheet" in result:
        lines.append(f"samples: {result['contact_sheet']}")
    return lines


def _split_lines(name: str, split: dict[str, Any]) -> list[str]:
    """Lines about a split: its images and classes, and what a look at some of its files showed."""
    few, most = split["smallest"], split["largest"]
    line = f"{name}: {split['count']:,} images, "
    if few["count"] == most["count"]:
        line += f"{few['count']:,} per class"
    else:
        line += f"{few['count']:,} ({few['name']}) to {most['count']:,} ({most['name']}) per class"
    line += f"; the largest class is {split['majority']:.1f} % of them"
    if not split["sampled"]:
        return [line, "  none of the files looked at can be read"]
    seen = f"  files {_range(split['width'])} pixels wide, {_range(split['height'])} high"
    if split["formats"]:
        seen += f"; {', '.join(f'{count:,} {kind}' for kind, count in split['formats'].items())}"
    if split["turned"]:
        seen += f"; --exif-rotate would turn {split['turned']:,} of them"
    if split["unread"]:
        seen += f"; {split['unread']:,} more cannot be read"
    looked = split["sampled"] + split["unread"]
    seen += f" ({looked:,} looked at)" if looked < split["count"] else ""
    return [line, seen]


def _range(values: dict[str, float]) -> str:
    low, high = values["min"], values["max"]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


COMMAND = Command("data", "prepare, verify or describe images", arguments, run, say)
