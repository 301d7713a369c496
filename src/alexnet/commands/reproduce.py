"""`alexnet reproduce`: check the paper's claims, from records or by training what has none."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.commands.frame import Command, CommandError, Result, stop_code
from alexnet.commands.text_table import paragraph
from alexnet.errors import RunBusy, UsageError, describe_os_error, quoted
from alexnet.progress import duration

if TYPE_CHECKING:
    from alexnet.progress import Progress
    from alexnet.reproduce.claims import Claim
    from alexnet.reproduce.ledger import Outcome, Row
    from alexnet.reproduce.scales import Scale

OUT = "runs/reproduce"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which claims, at which scale, and where runs go."""
    from alexnet.reproduce.scales import SCALES

    parser.add_argument(
        "claims",
        metavar="CLAIM",
        nargs="*",
        help="numbers of claims (default: all; without --scale what is known of them)",
    )
    parser.add_argument(
        "--scale",
        choices=tuple(SCALES),
        help="train what has no record at this scale; digits takes minutes in all, imagenet days a run",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="runs of each network, with seeds 0 to N−1 (default: 5; of tiny-imagenet 3, of imagenet 1)",
    )
    parser.add_argument(
        "--data",
        metavar="SRC",
        action="append",
        default=[],
        help="where the scale's images are; SCALE=SRC for those of another that a claim needs too",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path(OUT),
        help=f"folder of new runs and their records (default: {OUT})",
    )
    parser.add_argument(
        "--again", action="store_true", help="leave the records of the package out: train everything here"
    )
    parser.add_argument("--cost", action="store_true", help="say what would be trained and how long it takes, and stop")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads of a training (default: one per core)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write the ledger as a page: .html with plots, or .md"
    )


def run(args: argparse.Namespace) -> Result:
    """Train what is missing where a scale is given, and say what the records say."""
    from alexnet.progress import Terminal
    from alexnet.reproduce.claims import CLAIMS
    from alexnet.reproduce.ledger import outcomes, rows
    from alexnet.reproduce.records import PACKAGE, read_records
    from alexnet.reproduce.scales import scale_of

    claims = _claims(args.claims) or list(CLAIMS)
    progress = Terminal()
    own = args.out / "records"
    folders = [own] if args.again else [PACKAGE, own]
    if args.scale is None:
        for name in ("seeds", "data", "again", "cost"):
            if getattr(args, name):
                raise UsageError(f"--{name} is of runs to train: say with --scale at which scale")
    else:
        scale = scale_of(args.scale)
        _train(
            args,
            claims if args.claims else [one for one in claims if scale.name in one.scales],
            scale,
            folders,
            progress,
        )
        if args.cost:
            return {"text": ""}
    records = read_records(folders)
    for line in records.left_out:
        progress.warn(f"records left out: {line}")
    scales = [args.scale] if args.scale else None
    found = outcomes(records, claims, scales) if scales else outcomes(records, claims)
    if args.report:
        from alexnet.reproduce.page import write_page

        write_page(args.report, records)
        progress.note(f"the ledger is in {args.report}")
    result: Result = {"claims": [one.to_json() for one in found]}
    detailed = bool(args.claims or args.scale)
    result["text"] = details(found) if detailed else table_text(rows(records, claims))
    return result


def _claims(words: list[str]) -> list[Claim]:
    from alexnet.reproduce.claims import claim_of

    claims = []
    for word in words:
        if not word.isdecimal() or len(word) > 3:
            raise UsageError(f"claim {quoted(word)} should be a number; `alexnet reproduce` lists the claims")
        claims.append(claim_of(int(word)))
    return list({claim.number: claim for claim in claims}.values())


def _train(
    args: argparse.Namespace, claims: list[Claim], scale: Scale, folders: list[Path], progress: Progress
) -> None:
    """Say what the missing runs cost, and train them one after the other."""
    from alexnet.reproduce import cost, work
    from alexnet.reproduce.records import read_records

    seeds = scale.seeds if args.seeds is None else args.seeds
    if seeds < 1 or args.threads < 0:
        raise UsageError(f"--seeds {seeds} and --threads {args.threads} should be whole numbers from 1 and from 0")
    if seeds < 2:
        progress.warn("an interval needs at least two seeds; one gives values without a verdict")
    place = work.Workplace(args.out, _sources(args.data, scale.name), args.threads, args.device)
    known = read_records(folders)
    jobs = work.jobs_of(claims, scale, seeds, known)
    if not jobs:
        progress.note(
            f"nothing to train: all runs have records ({len(claims)} claims at {scale.name}, seeds 0 to {seeds - 1})"
        )
        return
    for job in jobs:
        work.source_of(job, place)
    probe = partial(cost.step_seconds, threads=args.threads, device_name=args.device)
    costs = cost.cost_of(jobs, known, cost.processor_here(args.threads), probe)
    progress.note(f"{len(jobs)} runs to train at {scale.name}: about {duration(costs.seconds)} by {costs.basis}")
    if args.cost:
        return
    words = ["alexnet", "reproduce", *map(str, args.claims), "--scale", scale.name, "--seeds", str(seeds)]
    command = shlex.join(words + ["--data", "SRC"] * bool(args.data))  # a record does not say where things are
    busy = []
    for number, job in enumerate(jobs, 1):
        progress.note(f"{number}/{len(jobs)}: {job.name}, {job.arm.about}")
        try:
            if job.key not in read_records(folders).runs:  # another process may have made it by now
                work.perform(job, place, of_a_run(), command)
        except RunBusy:
            busy.append(job.name)
        except KeyboardInterrupt as stopped:
            raise CommandError(
                "stopped; what was trained is kept: give the same command again to go on", stop_code(stopped)
            ) from None
        except OSError as error:
            raise CommandError(
                f"{describe_os_error(error)}; what was trained before is kept: mend it and give the same command again"
            ) from None
    if busy:
        progress.warn(f"another process trains {', '.join(busy)}; give the same command again when it is done")


def of_a_run() -> Progress:
    """A run's bars alone: the record tells of its epochs."""
    from alexnet.progress import Terminal

    class Bars(Terminal):
        def note(self, text: str) -> None:
            pass

        def warn(self, text: str) -> None:
            pass

        def validated(self, epoch: int, result: Result, lr: float) -> None:
            pass

    return Bars()


def _sources(words: list[str], scale: str) -> dict[str, str]:
    """`--data SRC` and `--data SCALE=SRC`, by scale."""
    from alexnet.reproduce.scales import SCALES

    sources = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or name not in SCALES:
            name, place = scale, word
        sources[name] = place
    return sources


def table_text(rows: list[Row]) -> str:
    """One line per claim: the paper's figures, and the verdict and difference at each scale."""
    lines = []
    for row in rows:
        lines.append(f"{row.claim.number:2}  {row.claim.title} ({row.claim.section}); paper: {row.claim.paper[0]}")
        said = [f"      {line}" for scale in row.verdicts for line in [_short(row, scale)]]
        lines += said or [f"      {row.claim.note or 'no records yet'}"]
    confirmed = sum(row.best[0] == "confirmed" for row in rows)
    lines += ["", f"{confirmed} of {len(rows)} claims are confirmed at some scale.", ""]
    lines.append("alexnet reproduce 3 says more of a claim; alexnet reproduce 3 --scale digits checks it here")
    return "\n".join(lines)


def _short(row: Row, scale: str) -> str:
    from alexnet.reproduce.ledger import main_outcome

    one = main_outcome(row.scales[scale])
    return f"{scale + ':':15}{row.verdicts[scale]:27} {difference_text(one)}"


def difference_text(one: Outcome) -> str:
    """A difference with its interval, as `1.42 points [0.90, 1.94], n = 5`."""
    if one.interval is None:
        return one.missing
    found = one.interval
    numbers = f"{found.mean:+.2f} {one.comparison.unit} [{found.low:+.2f}, {found.high:+.2f}]".replace("-", "−")
    return f"{numbers}, n = {found.n:,}{' images' if one.comparison.over == 'images' else ''}"


def details(found: list[Outcome]) -> str:
    """All that is known of some claims; scales at which nothing was run in one line."""
    from alexnet.reproduce.ledger import NOT_RUN

    lines: list[str] = []
    for claim in dict.fromkeys(one.claim for one in found):
        own = [one for one in found if one.claim is claim]
        lines += ["", f"{claim.number}  {claim.title} ({claim.section})", paragraph(f"    {claim.statement}", "    ")]
        lines.append(paragraph(f"    paper: {'; '.join(claim.paper)}", "    "))
        for one in own:
            if one.verdict != NOT_RUN:
                lines += _detail(one)
        absent = dict.fromkeys(one.scale for one in own if one.verdict == NOT_RUN)
        for scale in absent:
            why = "; ".join(dict.fromkeys(one.missing for one in own if (one.scale, one.verdict) == (scale, NOT_RUN)))
            lines.append(paragraph(f"  {scale}, not run: {why}", "    "))
    return "\n".join(lines).strip("\n") or "nothing is measured of this"


def _detail(one: Outcome) -> list[str]:
    """A comparison: its verdict, its difference, and the values of both sides."""
    beside = "" if one.comparison.decides else " (beside the verdict)"
    lines = [f"  {one.scale}, {one.comparison.name}: {one.verdict}{beside}", f"    {difference_text(one)}"]
    for side, values in ((one.comparison.better, one.better), (one.comparison.worse, one.worse)):
        shown = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"    {side.arm}, {side.metric}: {shown} ({sum(values) / len(values):.2f})")
    return lines


COMMAND = Command("reproduce", "check the paper's claims, each by one command", arguments, run)
