"""`alexnet data`: prepare, verify or describe images."""

from __future__ import annotations

import argparse
import dataclasses

from alexnet.commands.frame import SOURCE_HELP, Command, CommandError, Parser, Result, json_argument


def _source_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument("--download", action="store_true", help="let a torchvision data set be downloaded")
    json_argument(parser)


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    about = {
        "prepare": "make a checked store of a source, once, for fast training",
        "verify": "check a source or store: counts, sums, labels, duplicates, odd files",
        "info": "splits, classes, counts, sizes, statistics, and a contact sheet",
    }
    made = {
        name: actions.add_parser(name, help=text, description=text.capitalize() + ".") for name, text in about.items()
    }
    for action in made.values():
        _source_argument(action)
    prepare = made["prepare"]
    prepare.add_argument("out", metavar="OUT", help="the store's folder; a killed preparation goes on where it was")
    prepare.add_argument("--size", type=int, default=256, help="pixels of the shorter side (default: 256)")
    prepare.add_argument("--codec", choices=("raw", "jpeg"), default="raw", help="raw: fastest; jpeg: small")
    prepare.add_argument("--quality", type=int, default=90, help="of the jpeg codec (default: 90)")
    prepare.add_argument("--exif-rotate", action="store_true", help="apply EXIF orientation (the 2012 code did not)")
    prepare.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    prepare.add_argument("--workers", type=int, help="default: one a core")
    made["info"].add_argument("--contact-sheet", metavar="PNG", help="write a picture of samples there")


def run(args: argparse.Namespace) -> Result:
    from alexnet.progress import Terminal

    progress = Terminal()
    if args.action == "prepare":
        from alexnet.data.store.prepare import PrepareError, prepare

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
        except PrepareError as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            raise CommandError("stopped; give the same command to go on where it was", 130) from None
        return {"action": "prepare", "out": args.out, "manifest": manifest}
    if args.action == "verify":
        from alexnet.data.store.verify import verify

        with progress.counting("verifying"):
            found = verify(args.source, progress=progress.decoding, download=args.download)
        errors = sum(finding.level == "error" for finding in found)
        return {
            "action": "verify",
            "source": args.source,
            "findings": [dataclasses.asdict(f) for f in found],
            "exit_code": int(errors > 0),
        }
    from alexnet.data.store.info import info

    return {"action": "info", **info(args.source, contact_sheet=args.contact_sheet, download=args.download)}


def say(result: Result) -> str:
    """What was prepared, found or described."""
    if result["action"] == "prepare":
        splits = ", ".join(f"{name} {entry['count']:,}" for name, entry in result["manifest"]["splits"].items())
        return f"{result['out']}: {splits}; check it with `alexnet data verify {result['out']}`"
    if result["action"] == "verify":
        if not result["findings"]:
            return f"{result['source']}: nothing to remark"
        return "\n".join(f"{f['level']}: {f['where']}: {f['message']}" for f in result["findings"])
    lines = [f"{result['spec']} ({result['kind']}): {result['classes']} classes"]
    for name, split in result["splits"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in split.items()))
    return "\n".join(lines)


COMMAND = Command("data", "prepare, verify or describe images", arguments, run, say)
