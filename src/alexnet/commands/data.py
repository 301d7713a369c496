"""`alexnet data`: prepare, verify or describe images."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet.commands.frame import (
    SOURCE_HELP,
    Command,
    CommandError,
    HelpFormat,
    Parser,
    Result,
    common_arguments,
)


def _source_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument("--download", action="store_true", help="let a torchvision data set be downloaded")
    common_arguments(parser)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Three actions with their flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    about = {
        "prepare": "make a checked store of a source, once, for fast training",
        "verify": "check a source or store: counts, sums, labels, duplicates, odd files",
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
    prepare.add_argument("--codec", choices=("raw", "jpeg"), default="raw", help="raw: fastest; jpeg: small")
    prepare.add_argument("--quality", type=int, default=90, help="of the jpeg codec (default: 90)")
    prepare.add_argument("--exif-rotate", action="store_true", help="apply EXIF orientation (the 2012 code did not)")
    prepare.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    prepare.add_argument("--workers", type=int, help="default: one per core")
    parsers["info"].add_argument("--contact-sheet", metavar="PNG", help="write a picture of samples there")


def run(args: argparse.Namespace) -> Result:
    """Prepare, verify or describe."""
    return {"prepare": _prepare, "verify": _verify, "info": _info}[args.action](args)


def _prepare(args: argparse.Namespace) -> Result:
    from alexnet.data.store.prepare import prepare
    from alexnet.progress import Terminal

    progress = Terminal()
    try:
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
                download=args.download,
            )
    except KeyboardInterrupt:
        raise CommandError("stopped; give the same command to go on where it was", 130) from None
    return {"action": "prepare", "out": args.out, "manifest": manifest.to_json()}


def _verify(args: argparse.Namespace) -> Result:
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
        splits = ", ".join(f"{name} {entry['count']:,}" for name, entry in result["manifest"]["splits"].items())
        return f"{result['out']}: {splits}; check it with `alexnet data verify {result['out']}`"
    if result["action"] == "verify":
        if not result["issues"]:
            return f"{result['source']}: nothing is wrong with it"
        return "\n".join(f"{issue['level']}: {issue['where']}: {issue['message']}" for issue in result["issues"])
    return "\n".join(_described(result))


def _described(result: Result) -> list[str]:
    """Lines about a source or store: its classes, its splits, what a store holds."""
    names = result["class_names"]
    few = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    lines = [f"{result['spec']}: a {result['kind']} of {len(names):,} classes ({few})"]
    for name, split in result["splits"].items():
        line = f"{name}: {split['count']:,} images, {_range(split['per_class'])} per class"
        if split["sampled"]:
            line += f"; {_range(split['width'])} pixels wide, {_range(split['height'])} high"
            line += f" ({split['sampled']:,} looked at)" if split["sampled"] < split["count"] else ""
        lines.append(line)
    if result["kind"] == "store":
        turned = ", turned as EXIF says" if result["settings"]["exif_rotate"] else ""
        lines.append(
            f"made of {result['source']} as {result['codec']} squares of {result['size']} pixels{turned}: "
            f"{result['bytes'] / 1e6:,.1f} MB"
        )
        if result["unreadable"] or result["odd"]:
            lines.append(f"{result['unreadable']:,} files left out, {result['odd']:,} odd; see {result['report']}")
        if "statistics" in result:
            mean = ", ".join(f"{value:.1f}" for value in result["statistics"]["rgb_mean"])
            lines.append(f"mean RGB of train: {mean}")
    if "contact_sheet" in result:
        lines.append(f"samples: {result['contact_sheet']}")
    return lines


def _range(values: dict[str, float]) -> str:
    low, high = values["min"], values["max"]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


COMMAND = Command("data", "prepare, verify or describe images", arguments, run, say)
