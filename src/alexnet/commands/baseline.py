"""`alexnet baseline`: fit one of the paper's rivals, sparse coding or SIFT with Fisher vectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.commands.frame import (
    SOURCE_HELP,
    Command,
    CommandError,
    HelpFormat,
    Parser,
    Result,
    common_arguments,
    describe_errors,
    stop_code,
)
from alexnet.errors import UsageError, describe_os_error

if TYPE_CHECKING:
    from alexnet.baselines.directory import BaselineRun

ABOUT = {
    "sparse-coding": "dense descriptors, LLC and L1 codes, max pooling over a pyramid, linear SVMs, averaged",
    "sift-fv": "Fisher vectors of dense SIFT and of local colour statistics, linear SVMs, averaged",
}
AFTER = (
    "examples:\n  alexnet baseline {kind} --data pictures/ --out runs/{kind}\n"
    "  alexnet evaluate runs/{kind}\n  alexnet predict runs/{kind} some.jpg\n"
    "  alexnet evaluate runs/{kind} runs/first      a network and it, averaged\n\n"
    "It needs the extra: pip install 'alexnet[baselines]'. A fit that was stopped goes on with --resume."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The kinds, and of each its settings as flags."""
    from alexnet.baselines.settings import KINDS, fields
    from alexnet.config import text_of

    kinds = parser.add_subparsers(dest="kind", metavar="KIND", parser_class=Parser, required=True)
    for kind in KINDS:
        sub = kinds.add_parser(
            kind,
            help=ABOUT[kind],
            description=ABOUT[kind][0].upper() + ABOUT[kind][1:] + ".",
            epilog=AFTER.format(kind=kind),
            formatter_class=HelpFormat,
        )
        sub.add_argument("--data", metavar="SRC", help=SOURCE_HELP)
        sub.add_argument("--out", metavar="DIR", help=f"the directory that is made (default: runs/{kind}, numbered)")
        sub.add_argument(
            "--resume",
            metavar="DIR",
            help="go on with a fit that was stopped; takes --data, --threads and --memory",
        )
        group = sub.add_argument_group("settings")
        for entry in fields(kind):
            metavar = "N" if entry.kind in (int, float) and not entry.several else "X,Y" if entry.several else "YES"
            about = f"{entry.about} (default: {text_of(entry.default)})".replace("%", "%%")
            group.add_argument(f"--{entry.path.replace('_', '-')}", dest=entry.path, metavar=metavar, help=about)
        common_arguments(sub)


def run(args: argparse.Namespace) -> Result:
    """Fit or resume; a fit that is stopped or fails says how to go on."""
    from alexnet.baselines.settings import fields

    given = {entry.path: entry for entry in fields(args.kind) if getattr(args, entry.path) is not None}
    if args.resume is None and args.data is None:
        raise UsageError(f"name the images with --data SRC, or a fit to go on with by --resume DIR: {SOURCE_HELP}")
    if args.resume is not None and args.out is not None:
        raise UsageError(f"--resume goes on in {args.resume}: leave --out out")
    values = {name: _parsed(entry, getattr(args, name)) for name, entry in given.items()}
    return _fit(args, values)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _parsed(entry: Any, text: str) -> Any:
    """A flag's value. Raises UsageError naming the flag."""
    try:
        return entry.parse(text)
    except UsageError as error:
        raise UsageError(f"--{_flag(entry.path)}{str(error).removeprefix(entry.path)}") from None


def _fit(args: argparse.Namespace, values: dict[str, Any]) -> Result:
    from alexnet.baselines.directory import is_baseline
    from alexnet.baselines.features import FullDisk
    from alexnet.baselines.fit import fit_baseline, resume_baseline
    from alexnet.progress import Terminal
    from alexnet.training.signals import stop_on_signals

    out = Path(args.resume or args.out or _free(Path("runs") / args.kind))
    progress, again = Terminal(), f"`alexnet baseline {args.kind} --resume {out}`"
    try:
        with stop_on_signals():
            if args.resume is None:
                return result_of(fit_baseline(args.kind, args.data, out, values, progress, ["alexnet", *args.argv]))
            return result_of(resume_baseline(out, progress, args.data, args.kind, values))
    except KeyboardInterrupt as stopped:
        code = stop_code(stopped)
        if not is_baseline(out):
            raise CommandError("stopped before the fit began; give the same command again", code) from None
        raise CommandError(f"stopped; what is finished is kept: go on with {again}", code) from None
    except FullDisk as error:
        raise CommandError(f"{error} and go on with {again}") from None
    except OSError as error:
        what = describe_os_error(error) if error.filename else f"{out}: {describe_os_error(error)}"
        if not is_baseline(out):
            raise CommandError(f"{what}; the fit has not begun: mend it and give the same command again") from None
        raise CommandError(f"{what}; what is finished is kept: mend it and go on with {again}") from None


def result_of(run: BaselineRun) -> Result:
    """What `--json` prints: kind, directory, seconds, and the validation errors of the average and of each member."""
    record = run.record
    assert record.validation is not None
    whole = record.to_json()
    members = [{**member, "trials": len(member["trials"])} for member in whole["members"]]
    return {
        "kind": record.kind,
        "run": str(run.path),
        "seconds": record.seconds,
        "validation": whole["validation"],
        "temperature": record.temperature,
        "members": members,
    }


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def say(result: Result) -> str:
    """The members' errors, the average's, and what may come next."""
    lines = [f"{result['run']}: {len(result['members'])} models in {result['seconds']:.0f} s"]
    for member in result["members"]:
        error = member["validation"]["top1_error"]
        chosen = f"λ {member['penalty']:g}, epoch {member['epoch']}, {member['features']:,} features"
        lines.append(f"  {member['name']}: validation top-1 error {error:.2f} % ({chosen})")
    lines.append(f"average: validation {describe_errors(result['validation'])}")
    lines.append(f"measure it on the test split with `alexnet evaluate {result['run']}`")
    return "\n".join(lines)


COMMAND = Command(
    "baseline", "fit one of the paper's rivals: sparse coding, or SIFT with Fisher vectors", arguments, run, say
)
