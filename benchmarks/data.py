"""How fast are preparing and feeding? Ours beside torchvision, Hugging Face datasets and WebDataset, in one run.

IMAGES is a folder of class folders with original photographs; they are used several times over under other names, so
that a pass is long enough to time. Contenders take turns on the same images and the same number of workers, after one
untimed round; values are medians, the spread is the range. Peers that are not installed are left out.

feed        batches of 128 crops of 224, mirrored at random, from 256-pixel squares: ours from a JPEG store (quality
            90), a yuv420 store and a raw store, torchvision's ImageFolder + DataLoader from the same squares as JPEGs
codecs      bytes, error and time of a crop for each codec and five qualities of JPEG
originals   the same from the original files, each decoded at its full size
prepare     rescale to 256, crop, store; the peer is torchvision's Resize and CenterCrop, saved as JPEG of quality 90;
            the reference is decoding alone
statistics  preparing with and without the sums for mean and PCA
waiting     the share of training (`--preset`) from a store, without keeping images in memory, that waits for them
open        seconds and megabytes to open stores of 1.3 and 15 million images (sparse files)
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from alexnet.config import replace
from alexnet.data.batch import Draw
from alexnet.data.dataset import Split
from alexnet.data.decode import decode
from alexnet.data.loader import BatchLoader
from alexnet.data.random import coins, integers, random_words
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import LABELS, MANIFEST, NPY_HEADER, STATISTICS, read_manifest
from alexnet.data.statistics import Accumulator
from alexnet.data.store.prepare import prepare
from alexnet.data.store.writers import npy_header
from alexnet.errors import UsageError
from alexnet.files import write_json
from alexnet.presets import preset
from alexnet.run import Run
from alexnet.training.loop import train
from benchmarks.codecs import CROP, SIZE, codecs
from benchmarks.processes import child_environment
from benchmarks.records import Result
from benchmarks.timing import compare_times, rounded, summarize, take_turns

BATCH, QUALITY = 128, 90
STORES = {"jpeg": "JPEG store", "yuv420": "yuv420 store", "raw": "raw store"}  # by codec
Contender = Callable[[], int]
FINISH = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of class folders of original photographs")
    parser.add_argument("--turns", type=int, default=5, help="timed passes of each contender")
    parser.add_argument("--workers", type=int, default=2, help="threads of ours, processes of the peers'")
    parser.add_argument("--copies", type=int, default=8, help="times each image is used in a pass of feeding")
    parser.add_argument("--preset", default="tiny-64", help="what is trained to see how long it waits")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one kind of measurement")


def measure(options: argparse.Namespace) -> Iterator[Result]:
    """The sections' results, in order. Raises UsageError where IMAGES holds no class folders with files."""
    if not any(options.images.glob("*/*")):
        raise UsageError(f"{options.images} should be a folder of class folders with photographs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the peers' workers; ours decode in threads of their own
    try:
        for name, section in SECTIONS.items():
            if not options.only or name in options.only:
                with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
                    yield from section(options, Path(folder))
    finally:
        torch.set_num_threads(threads)


def feed(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """From 256-pixel squares: our codecs against the peers on the same JPEGs."""
    photographs = multiply(options.images, folder / "originals", options.copies)
    stores = {}
    for codec in STORES:
        prepare(photographs, folder / codec, size=SIZE, codec=codec, quality=QUALITY, workers=options.workers)
        stores[codec] = open_source(folder / codec).splits["train"]
    squares = folder / "squares"
    for i in range(len(stores["jpeg"])):
        path = squares / stores["jpeg"].image_name(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stores["jpeg"].read_bytes(i))
    random_crop = transforms.Compose([transforms.RandomCrop(CROP), transforms.RandomHorizontalFlip(), *FINISH])
    bare = transforms.Compose(
        [transforms.RandomCrop(CROP), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    encoded = [stores["jpeg"].read_bytes(i) for i in range(len(stores["jpeg"]))]
    contenders = {
        **{name: ours(stores[codec], options) for codec, name in STORES.items()},
        "torchvision": torchvision(squares, random_crop, options),
        "torchvision to uint8": torchvision(squares, bare, options),
        "decoding alone": decoding(encoded, options),
    }
    if find_spec("datasets"):
        contenders["datasets"] = hugging_face(squares, random_crop, options)
    if find_spec("webdataset"):
        contenders["webdataset"] = web_dataset(folder / "jpeg" / "train", random_crop, options)
    seconds = take_turns(contenders, options.turns, measure=seconds_per_image)
    sizes = f"{SIZE}-pixel squares, {np.mean([len(data) for data in encoded]) / 1000:.1f} KB as JPEG"
    peers = [name for name in contenders if "store" not in name and name != "decoding alone"]
    yield rates(f"feed from a JPEG store ({sizes})", seconds, "JPEG store", peers, "decoding alone")
    for name in ("yuv420 store", "raw store"):
        yield rates(f"feed from a {name} ({SIZE}-pixel squares)", seconds, name, peers)


def originals(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Straight from the files as they are."""
    photographs = multiply(options.images, folder / "originals", max(1, options.copies // 4))
    crop = transforms.Compose([transforms.RandomResizedCrop(CROP), transforms.RandomHorizontalFlip(), *FINISH])
    split = open_source(photographs).splits["train"]
    files = [split.read_bytes(i) for i in range(len(split))]
    contenders = {
        "folder": ours(split, options),
        "torchvision": torchvision(photographs, crop, options),
        "decoding alone": decoding(files, options),
    }
    seconds = take_turns(contenders, options.turns, measure=seconds_per_image)
    size = np.mean([len(data) for data in files]) / 1000
    yield rates(f"feed from originals ({size:.0f} KB)", seconds, "folder", ["torchvision"], "decoding alone")


def prepare_store(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Resize, crop and store, against the loop that people write, in one process and in as many as ours has threads."""
    photographs = multiply(options.images, folder / "originals", max(1, options.copies // 4))
    split = open_source(photographs).splits["train"]
    files = [split.read_bytes(i) for i in range(len(split))]

    def ours_in(codec: str) -> Contender:
        def run() -> int:
            shutil.rmtree(folder / codec, ignore_errors=True)
            prepare(photographs, folder / codec, size=SIZE, codec=codec, quality=QUALITY, workers=options.workers)
            return len(split)

        return run

    pool = multiprocessing.get_context("spawn").Pool(options.workers)
    paths = [
        (str(path), str(folder / "saved" / f"{i}.jpg")) for i, (path, _) in enumerate(ImageFolder(photographs).samples)
    ]
    (folder / "saved").mkdir()
    with pool:
        seconds = take_turns(
            {
                **{name: ours_in(codec) for codec, name in STORES.items()},
                "torchvision, one process": lambda: sum(map(resize_and_save, paths)),
                f"torchvision, {options.workers} processes": lambda: sum(
                    pool.imap(resize_and_save, paths, chunksize=16)
                ),
                "decoding alone": decoding(files, options),
            },
            options.turns,
            measure=seconds_per_image,
        )
    peers = [name for name in seconds if name.startswith("torchvision")]
    size = np.mean([len(data) for data in files]) / 1000
    for name in STORES.values():
        yield rates(f"prepare a {name} (originals of {size:.0f} KB)", seconds, name, peers, "decoding alone")


def statistics_cost(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Preparing a raw store, the fastest kind, with the sums and with them switched off."""
    photographs = multiply(options.images, folder / "originals", max(1, options.copies // 4))
    count = len(open_source(photographs).splits["train"])
    add = Accumulator.add

    def counted_only(self: Accumulator, images: np.ndarray) -> None:
        self.count += len(images)

    def run(how: Callable[..., None]) -> Contender:
        def once() -> int:
            shutil.rmtree(folder / "store", ignore_errors=True)
            Accumulator.add = how  # type: ignore[method-assign]
            prepare(photographs, folder / "store", size=SIZE, codec="raw", workers=options.workers)
            Accumulator.add = add  # type: ignore[method-assign]
            return count

        return once

    contenders = {"with": run(add), "without": run(counted_only)}
    seconds = take_turns(contenders, options.turns, measure=seconds_per_image)
    cost = [100 * (full / bare - 1) for full, bare in zip(seconds["with"], seconds["without"], strict=True)]
    name = "cost of mean and PCA on top of preparing a raw store"
    yield summarize(name, cost, "%", reference_rate=10.0, reference_basis="the aim")


OPEN = """
import resource, sys, time
import numpy, torch, pyarrow.parquet, simplejpeg
from alexnet.data.readers import store
from alexnet.data.readers.open import open_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
split = open_source(sys.argv[1]).splits["train"]
print(time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, before / 1024)
"""
OPENED = (1_300_000, 15_000_000)  # images of the stores that are opened


def opening(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Open stores whose files are holes, in fresh processes whose imports are done."""
    for name in ("a", "b"):
        Image.new("RGB", (SIZE, SIZE)).save(place(folder / "small" / name / "image.png"))
    prepare(folder / "small", folder / "template", size=SIZE, codec="raw")
    for images in OPENED:
        root = folder / str(images)
        sparse_store(folder / "template", root, images)
        seconds, megabytes, before = [], 0.0, 0.0
        for _ in range(options.turns):
            command = [sys.executable, "-c", OPEN, str(root)]
            done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)
            elapsed, more, before = map(float, done.stdout.split())
            seconds.append(elapsed)
            megabytes = max(megabytes, more)
        yield summarize(
            f"open a store of {images:,} images",
            seconds,
            "s",
            reference_rate=1.0,
            fraction_of_reference=rounded(1 / statistics.median(seconds)),
            reference_basis="the aim",
            also={"megabytes": round(megabytes, 1), "megabytes_of_imports": round(before, 1)},
        )


def place(path: Path) -> Path:
    """The path, whose folder is there now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def multiply(images: Path, out: Path, copies: int) -> Path:
    """Link every image of a folder of class folders `copies` times under other names."""
    for path in sorted(images.glob("*/*")):
        (out / path.parent.name).mkdir(parents=True, exist_ok=True)
        for k in range(copies):
            os.symlink(path.resolve(), out / path.parent.name / f"{k}-{path.name}")
    return out


def ours(split: Split, options: argparse.Namespace) -> Contender:
    """Random crops from a loader that may keep nothing decoded, mirrored at random."""
    room, epochs = SIZE - CROP + 1, iter(range(10**9))

    def draws(epoch: int, positions: np.ndarray, places: np.ndarray) -> Draw:
        words = random_words((0, epoch), positions, 3)
        return Draw(integers(words[:, :2], room), coins(words[:, 2]), np.zeros((len(words), 3), np.float32))

    source = BatchLoader(split, SIZE, BATCH, seed=0, crop=CROP, draws=draws, workers=options.workers, memory=0)

    def run() -> int:
        count = 0
        for batch in source.epoch(next(epochs)):
            # One at a time each stays in the cache: a tenth of the time of flipping all that are chosen at once.
            assert batch.draw is not None
            for i in np.flatnonzero(batch.draw.mirrored).tolist():
                batch.images[i] = batch.images[i].flip(1)
            count += len(batch.images)
        return count

    return run


def torchvision(root: Path, transform: Callable[..., Any], options: argparse.Namespace) -> Contender:
    """`ImageFolder` and `DataLoader`."""
    return loader(ImageFolder(str(root), transform), options, shuffle=True)


def hugging_face(root: Path, transform: Callable[..., Any], options: argparse.Namespace) -> Contender:
    """An Arrow table of the same JPEGs, decoded by `datasets` in its transform."""
    import datasets

    samples = ImageFolder(str(root)).samples
    rows = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": Path(path).read_bytes(), "path": None} for path, _ in samples],
            "label": [k for _, k in samples],
        },
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )

    def change(batch: dict[str, Any]) -> dict[str, Any]:
        return {"image": [transform(image) for image in batch["image"]], "label": batch["label"]}

    return loader(rows.with_transform(change), options, shuffle=True)


def web_dataset(shards: Path, transform: Callable[..., Any], options: argparse.Namespace) -> Contender:
    """The shards of our own JPEG store, which are in WebDataset layout, repeated so that each worker has one."""
    import webdataset

    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    pairs = (
        webdataset.WebDataset(urls * options.workers, shardshuffle=False, empty_check=False)
        .shuffle(500)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform, int)
    )
    return loader(pairs, options, shuffle=None)


def loader(data: Any, options: argparse.Namespace, shuffle: bool | None) -> Contender:
    """Batches of torch's `DataLoader` in processes that live as long as the contender."""
    from torch.utils.data import DataLoader

    batches = DataLoader(data, BATCH, shuffle=shuffle, num_workers=options.workers, persistent_workers=True)

    def run() -> int:
        count = 0
        for batch in batches:
            count += len(batch["label"] if isinstance(batch, dict) else batch[1])
        return count

    return run


def decoding(files: list[bytes], options: argparse.Namespace) -> Contender:
    """Decoding alone, in threads: no faster pass over these files is possible with this library."""

    def run() -> int:
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(lambda first: [decode(data) for data in files[first : first + 32]], range(0, len(files), 32)))
        return len(files)

    return run


def resize_and_save(job: tuple[str, str]) -> int:
    """What people write with torchvision: open, resize, crop, save."""
    source, target = job
    change = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE)])
    change(Image.open(source).convert("RGB")).save(target, quality=QUALITY)
    return 1


def sparse_store(template: Path, root: Path, images: int, shard_images: int = 4096) -> None:
    """A raw store of the right layout and length whose files are holes, after the manifest of a small one."""
    manifest = read_manifest(template).to_json()
    split = manifest["splits"]["train"]
    shard, size = split["shards"][0], int(manifest["size"])
    split["count"], split["shards"] = images, []
    manifest["source_splits"]["train"]["count"] = images
    for number, first in enumerate(range(0, images, shard_images)):
        count = min(shard_images, images - first)
        path = place(root / "train" / f"{number:05d}.npy")
        with open(path, "wb") as file:
            file.write(npy_header(count, (size, size, 3)))
            file.truncate(NPY_HEADER + count * size * size * 3)
        name = str(path.relative_to(root))
        split["shards"].append({**shard, "file": name, "count": count, "bytes": path.stat().st_size})
    np.lib.format.open_memmap(root / "train" / LABELS, "w+", np.int64, (images,)).flush()
    split["files"][LABELS]["bytes"] = (root / "train" / LABELS).stat().st_size
    shutil.copy(template / STATISTICS, root / STATISTICS)
    write_json(root / MANIFEST, manifest)


def waiting(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """The share of its time that training waits for images of a store that are kept nowhere."""
    photographs = multiply(options.images, folder / "originals", options.copies)
    base = preset(options.preset)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.workers)
    try:
        for codec in STORES:
            prepare(
                photographs, folder / codec, size=base.data.size, codec=codec, quality=QUALITY, workers=options.workers
            )
            config = replace(
                base,
                {
                    "data.source": str(folder / codec),
                    "data.memory": "0",
                    "data.workers": str(options.workers),
                    "train.steps": str(10 * (options.turns + 2)),
                    "train.log_every": "10",
                    "train.threads": "0",
                    "schedule.kind": "epochs",
                    "train.epochs": "100000",
                    "train.evaluate_every": "100000",
                },
            )
            train(config, folder / f"run-{codec}")
            lines = Run.open(folder / f"run-{codec}").metrics("train")[2:]
            shares = [100 * line["waiting"] for line in lines]
            speeds = [line["images_per_second"] for line in lines]
            yield summarize(
                f"waiting for images while training {options.preset} from a {codec} store",
                shares,
                "%",
                by=f"{codec} store",
                reference_rate=1.0,
                reference_basis="the aim",
                also={"images_per_second": rounded(statistics.median(speeds))},
            )
    finally:
        torch.set_num_threads(threads)


SECTIONS: dict[str, Callable[[argparse.Namespace, Path], Iterator[Result]]] = {
    "feed": feed,
    "codecs": codecs,
    "originals": originals,
    "prepare": prepare_store,
    "statistics": statistics_cost,
    "waiting": waiting,
    "open": opening,
}


def seconds_per_image(run: Contender) -> float:
    """The seconds of a pass over the number of its images."""
    began = time.perf_counter()
    count = run()
    return (time.perf_counter() - began) / count


def rates(name: str, seconds: Mapping[str, list[float]], own: str, peers: list[str], basis: str = "") -> Result:
    """Images per second beside the peers', and beside the contender `basis`."""
    rate = 1 / statistics.median(seconds[basis]) if basis else None
    return compare_times(name, seconds, own, peers, work=1, unit="images/s", reference_rate=rate, reference_basis=basis)
