"""What a store's codec does to a network's errors: the same trainings from raw, yuv420 and jpeg stores, in records.

    python -m experiments.codecs cifar-26 --data ../shared/data/cifar10 --stores runs/stores
    python -m experiments.codecs tiny-64 --data ../shared/data/tiny-imagenet --stores runs/stores

The stores are prepared first, at the preset's size, those of JPEGs with quality 90; one that is there is used as it is.
`cifar-26` is trained to its end, `tiny-64` for three epochs, each with three seeds and from each store. Other options
are those of `experiments.real_images`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alexnet.data.store.prepare import prepare
from alexnet.presets import preset
from experiments import real_images
from experiments.real_images import CODECS
from experiments.records import TrainingRecord

PRESETS = ("cifar-26", "tiny-64")
NAMES = {name: {codec: f"{name}-{codec}" for codec in CODECS} for name in PRESETS}  # preset → codec → experiment
SEEDS = (0, 1, 2)


def main(argv: Sequence[str] | None = None) -> list[TrainingRecord]:
    """Prepare the stores, train once per seed and store, write a record for each store and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--data", required=True, help="CIFAR-10's or Tiny ImageNet's images")
    parser.add_argument("--stores", type=Path, required=True, help="the folder that the stores are made in")
    parser.add_argument("--seeds", nargs="+", default=[str(seed) for seed in SEEDS])
    args, rest = parser.parse_known_args(argv)
    records = []
    for codec, name in NAMES[args.preset].items():
        store = args.stores / name
        prepare(args.data, store, size=preset(args.preset).data.size, codec=codec)
        records.append(real_images.main([name, "--data", str(store), "--seeds", *args.seeds, *rest]))
    return records


if __name__ == "__main__":
    main(sys.argv[1:])
