"""Train on few pictures by the README's own line, and keep a record: errors beside those of the most frequent class.

    python -m experiments.own_pictures own-tiny --data ../shared/data/tiny-imagenet --pictures runs/tiny-8 --seeds 0 1 2
    python -m experiments.own_pictures own-photographs --data ../shared/data/imagenet-samples --pictures runs/kinds
    python -m experiments.own_pictures own-photographs-tuned … --init runs/tiny

The folder of pictures is made first, with train/ and test/ in it: 500 pictures of eight classes of Tiny ImageNet, or
240 photographs of ImageNet in six kinds. Which pictures are for the test is a rule, and nothing is chosen on them.
Other options are those of `experiments.real_images`.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alexnet.data.readers.open import open_source
from alexnet.errors import UsageError
from experiments import real_images
from experiments.records import TrainingRecord

LINE = "alexnet train --preset tiny-64 --data pictures/ --out runs/first"  # of the README
TINY_CLASSES = range(0, 200, 25)  # every 25th of Tiny ImageNet's classes in the order of their wnids
TINY_PICTURES = 500  # of train; the test pictures are those of the official val split
EVERY = 4  # of each kind's photographs in the order of their wnids the fourth, eighth, … are for the test

# The kinds of photographs by their wnids, of which WordNet 3.0 has these ranges: the first range that fits. Its
# artefacts are in the order of their names, so the kinds of these are lists of words, and the rest is the last kind.
RANGES: tuple[tuple[str, int, int], ...] = (
    ("mammals", 1870000, 1900000),
    ("mammals", 2062000, 2140000),
    ("mammals", 2320000, 2510000),
    ("other animals", 1440000, 2600000),
    ("food and plants", 7500000, 8000000),
    ("food and plants", 11500000, 13200000),
    ("outdoors", 9200000, 9500000),
)
WORDS = {
    "outdoors": (
        "airship barn barrow bicycle-built-for-two birdhouse bullet_train cannon cinema convertible dogsled fountain "
        "garbage_truck golfcart grille lifeboat lumbermill megalith minivan mosque parachute passenger_car pier plow "
        "pole police_van radio_telescope speedboat steel_arch_bridge thresher tile_roof tricycle water_tower yurt"
    ),
    "tools and vessels": (
        "acoustic_guitar analog_clock assault_rifle Band_Aid basketball bassoon beaker beer_bottle beer_glass "
        "bottlecap bow candle cassette cello cleaver dial_telephone electric_fan face_powder flute fountain_pen "
        "goblet gong hand_blower hard_disc harp hatchet hourglass iron loupe marimba milk_can ocarina perfume pitcher "
        "plastic_bag plunger pot quill rugby_ball shield spotlight steel_drum tape_player teddy typewriter_keyboard "
        "vacuum vase water_jug whistle wooden_spoon"
    ),
}
REST = "rooms and people"


def kind(name: str) -> str:
    """The kind of a photograph from its file's name, `n02085620_Chihuahua.JPEG`. Raises UsageError without a wnid."""
    match = re.match(r"n(\d{8})_(.*)\.\w+$", name)
    if match is None:
        raise UsageError(f"{name!r} should begin with a wnid, as n02085620_Chihuahua.JPEG")
    number, words = int(match[1]), match[2]
    listed = (title for title, names in WORDS.items() if words in names.split())
    ranged = (title for title, first, end in RANGES if first <= number < end)
    return next(itertools.chain(listed, ranged), REST)


def tiny(data: Path) -> Iterator[tuple[str, str, bytes]]:
    """The eight classes: (split, class, file) of the first pictures of train, and of all of val as test."""
    source = open_source(data)
    labels = list(TINY_CLASSES)
    each, more = divmod(TINY_PICTURES, len(labels))
    for name, split in (("train", source.splits["train"]), ("test", source.splits["val"])):
        for place, label in enumerate(labels):
            positions = (split.labels == label).nonzero()[0]
            wanted = each + (place < more) if name == "train" else len(positions)
            for i in positions[:wanted]:
                yield name, source.classes[label].replace(" ", "_"), split.read_bytes(int(i))


def photographs(data: Path) -> Iterator[tuple[str, str, bytes]]:
    """The six kinds: (split, kind, file) of every photograph, every fourth of a kind for the test."""
    counts: dict[str, int] = {}
    for path in sorted(data.glob("*/*")):
        title = kind(path.name)
        counts[title] = counts.get(title, 0) + 1
        yield "train" if counts[title] % EVERY else "test", title.replace(" ", "_"), path.read_bytes()


MAKERS: dict[str, Callable[[Path], Iterator[tuple[str, str, bytes]]]]
MAKERS = {"own-tiny": tiny, "own-photographs": photographs, "own-photographs-tuned": photographs}


def make_folder(name: str, data: Path, out: Path) -> None:
    """Write the pictures of an experiment as train/CLASS/N.jpg and test/CLASS/N.jpg; a folder that is there stays."""
    if out.exists():
        return
    for number, (split, title, content) in enumerate(MAKERS[name](data)):
        folder = out / split / title
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}.jpg").write_bytes(content)


def main(argv: Sequence[str] | None = None) -> TrainingRecord:
    """Make the folder, train once per seed, measure, write the record and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("--data", type=Path, required=True, help="Tiny ImageNet's Parquet files, or the photographs")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of pictures to be made")
    args, rest = parser.parse_known_args(argv)
    make_folder(args.name, args.data, args.pictures)
    return real_images.main([args.name, "--data", str(args.pictures), *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
