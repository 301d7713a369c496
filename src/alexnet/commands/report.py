"""`alexnet report`: one self-contained HTML page of a run, with the paper's figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet.commands.frame import Command, Result


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whose report."""
    parser.add_argument("run", metavar="RUN", help="a run directory; one in training too: its report can be renewed")
    parser.add_argument("--data", metavar="SRC", help="where the run's images are now, if they were moved")
    parser.add_argument("--out", metavar="FILE", help="write the page there, and nothing into the run")


def run(args: argparse.Namespace) -> Result:
    """Write the report."""
    from alexnet.progress import Terminal
    from alexnet.run import Run

    run = Run.open(args.run)  # before what draws is imported, which takes seconds
    from alexnet.report.report import write_report

    return {"report": str(write_report(run, Terminal(), data=args.data, out=Path(args.out) if args.out else None))}


def say(result: Result) -> str:
    """Where the report is."""
    return f"the report is at {result['report']}"


COMMAND = Command("report", "one self-contained HTML page of a run, with the paper's figures", arguments, run, say)
