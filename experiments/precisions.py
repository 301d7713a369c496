"""What bfloat16 and int8 cost in top-1 error on trained runs, against float32, in a record.

    python -m experiments.precisions runs/tiny-64 runs/cifar-26

Each run is evaluated by the engine in each precision, one centre view, on all images of its test split, or of its
validation split where it has no test. int8 is calibrated as `alexnet evaluate` does, on 256 training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet.files import write_json
from alexnet.inference.backends import PRECISIONS
from alexnet.inference.evaluate import Evaluation, evaluate
from benchmarks.records import Record, Result, make_record
from experiments.records import RECORDS

NAME = "precisions"
EXACT = "float32"


def main(argv: Sequence[str] | None = None) -> Record:
    """Evaluate, print, write the record and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records")
    args = parser.parse_args(argv)
    record = make_record(NAME, [result for run in args.runs for result in costs(run)])
    args.records.mkdir(parents=True, exist_ok=True)
    write_json(args.records / f"{NAME}.json", record.to_json())
    for result in record.results:
        print(f"{result.name}: {result.value:.2f} % ({result.also['points']:+.2f}), n = {result.n:,}")
    return record


def costs(run: Path) -> Iterator[Result]:
    """A result for each precision: its top-1 error in percent, with the `points` over float32's beside it."""
    measured: dict[str, Evaluation] = {}
    for precision in sorted(PRECISIONS, key=lambda name: name != EXACT):
        measured[precision] = evaluate([run], precision=precision, device="cpu")
        found, exact = measured[precision], measured[EXACT]
        also = {"points": round(found.top1_error - exact.top1_error, 3)}
        name = f"{run.name}, {found.split}, {precision}"
        peers = {} if precision == EXACT else {EXACT: exact.top1_error}
        yield Result(name, found.top1_error, "%", n=found.count, by=precision, peers=peers, also=also)


if __name__ == "__main__":
    main()
