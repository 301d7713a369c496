"""The long run: every family of hostile inputs, as many seeds of each as asked for, and a record of what came of them.

python -m tests.fuzz                         # every module, as many seeds as `SEEDS` says
python -m tests.fuzz images --seeds 1000     # one module
python -m tests.fuzz images --case "PNG" 17  # one case, with all that it said
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.files import write_json
from tests.fuzz import MODULES, SEEDS
from tests.fuzz.harness import Outcome, Server, run, where


def main(arguments: list[str]) -> int:
    """Run what the arguments say; 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(map(short, MODULES))}")
    parser.add_argument("--seeds", type=int, help="seeds per family (default: the module's own number)")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2, help="modules at the same time")
    parser.add_argument("--case", nargs=2, metavar=("FAMILY", "SEED"), help="one case of the one module")
    parser.add_argument("--record", type=Path, help="where the counts are kept")
    args = parser.parse_args(arguments)
    modules = [module for module in MODULES if not args.modules or short(module) in args.modules]
    if args.case:
        with Server(modules[0]) as server:
            outcome = server.run(args.case[0], int(args.case[1]))
        print(json.dumps(asdict(outcome), indent=2))
        return int(outcome.fault)

    def work(module: str) -> list[Outcome]:
        seeds = range(args.first, args.first + (args.seeds or SEEDS[short(module)]))
        outcomes = []
        for outcome in run(module, seeds):
            outcomes.append(outcome)
            if outcome.fault:
                print(f"{short(module)} {outcome.family!r} {outcome.seed}: {outcome.kind}: {outcome.text}", flush=True)
        print(f"{short(module)}: {len(outcomes):,} cases", flush=True)
        return outcomes

    with ThreadPoolExecutor(args.processes) as pool:
        outcomes = dict(zip(map(short, modules), pool.map(work, modules), strict=True))
    entry = summarize(outcomes)
    if args.record:
        words = [word for word in arguments if word not in ("--record", str(args.record))]
        write_json(args.record, {"command": " ".join(["python -m tests.fuzz", *words]), **entry})
    return int(any(outcome.fault for group in outcomes.values() for outcome in group))


def short(module: str) -> str:
    """A module's name without its package."""
    return module.rpartition(".")[2]


def summarize(outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    """Counts by module and family, the worst time and memory of each, and where it was run."""
    modules = {}
    for module, group in outcomes.items():
        names = dict.fromkeys(outcome.family for outcome in group)
        modules[module] = {name: counts([outcome for outcome in group if outcome.family == name]) for name in names}
    return {**where(), "modules": modules}


def counts(group: list[Outcome]) -> dict[str, Any]:
    """Cases, how many were read, refused or a fault of which kind, and the worst seconds and MiB."""
    kinds = Counter(outcome.kind for outcome in group)
    faults = {kind: number for kind, number in sorted(kinds.items()) if kind not in ("read", "refused")}
    return {
        "cases": len(group),
        "read": kinds["read"],
        "refused": kinds["refused"],
        "faults": faults,
        "seconds": max((outcome.seconds for outcome in group), default=0.0),
        "mib": max((outcome.memory for outcome in group), default=0.0),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
