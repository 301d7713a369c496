"""Fit a baseline: member after member, streamed through files, going on where it was killed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.baselines import sift
from alexnet.baselines.choice import errors_of, fit_temperature, negative_log_likelihood
from alexnet.baselines.directory import BaselineRun, Record, images_config, is_baseline
from alexnet.baselines.grid import Floats
from alexnet.baselines.member import Fitting
from alexnet.baselines.settings import DESCRIPTORS, Settings, members, settings_of
from alexnet.checkpoint import read_tensors
from alexnet.data.dataset import Split
from alexnet.data.readers.open import open_source
from alexnet.data.run_data import RunData, SourceManifest, open_known_source, open_run_data, place_of
from alexnet.device import cpu_count
from alexnet.environment import environment
from alexnet.errors import CheckpointError, DataError, MissingLibrary, RunError, UnreadableImage, UsageError
from alexnet.files import remove_leftovers, write_json
from alexnet.progress import Progress, quiet

GREY_SAMPLE = 200  # pictures that are looked at for colours
CHANGEABLE = ("threads", "memory")  # when a fit goes on: they change no result
NEEDED = {"sklearn": "scikit-learn", "threadpoolctl": "threadpoolctl"}


def fit_baseline(
    kind: str,
    data: str,
    out: Path,
    values: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
    command: list[str] | None = None,
) -> BaselineRun:
    """Fit a baseline of a kind, `sparse-coding` or `sift-fv`, to a source and write it to a new directory.

    `values` are settings by name; `docs/baselines.md` says what they are. Raises UsageError and its kinds for a wrong
    request, OSError on a full disk: what is finished is kept for `resume_baseline`.
    """
    settings = settings_of(kind, values)
    check_libraries(settings)
    _check_free(out, kind)
    source, place = open_source(data), place_of(data)
    config = images_config(settings, source.spec, len(source.classes))
    opened = open_run_data(config, source, place)
    settings = dataclasses.replace(settings, exif_rotate=opened.config.data.exif_rotate)
    chosen = _without_colour(settings, opened.train, progress)
    out.mkdir(parents=True, exist_ok=True)
    run = BaselineRun(out, Record(kind, dataclasses.asdict(chosen)), chosen)
    with run.held():
        _check_free(out, kind)
        write_json(out / "environment.json", environment(command))
        write_json(out / "source.json", opened.describe())
        return _fit(run.write(), opened, progress)


def resume_baseline(
    out: Path,
    progress: Progress = quiet,
    data: str | None = None,
    kind: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> BaselineRun:
    """Go on with a fit that was stopped; a finished one is returned as it is.

    `data` says where its images are now, `kind` of which kind it should be; `values` may have the settings that change
    no result, `threads` and `memory`. Raises RunError where there is none, and where its images are others than when it
    began.
    """
    run = BaselineRun.open(out)
    if kind not in (None, run.record.kind):
        raise RunError(f"{out} is of the kind {run.record.kind}, not {kind}")
    if run.record.finished:
        progress.note(f"{out} is finished; there is nothing to resume")
        return run
    for name in values or {}:
        if name not in CHANGEABLE:
            raise UsageError(f"--resume goes on with the settings of {out}: leave --{name.replace('_', '-')} out")
    run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, **(values or {})))
    check_libraries(run.settings)
    with run.held():
        source, place, changes = open_known_source(run, data)
        if changes:
            raise RunError(
                f"{source.spec} is not what {out} began with: {changes}; put its images back, name with --data where "
                "they are, or begin another"
            )
        opened = open_run_data(images_config(run.settings, source.spec, len(source.classes)), source, place)
        return _fit(run, opened, progress)


def check_libraries(settings: Settings) -> None:
    """Raise MissingLibrary naming what a fit needs and is not installed."""
    from importlib import import_module

    for module, package in NEEDED.items():
        try:
            import_module(module)
        except ModuleNotFoundError:
            raise MissingLibrary(f"a baseline needs {package}; pip install 'alexnet[baselines]'") from None
    if any(descriptor == "sift" for _, _, descriptor in members(settings)):
        sift.check_library()


def _check_free(out: Path, kind: str) -> None:
    """Raise RunError where something is there already."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another --out")
    if is_baseline(out):
        raise RunError(f"{out} exists; go on with `alexnet baseline {kind} --resume {out}` or choose another --out")
    begun = {".lock", "environment.json", "source.json"}
    if out.exists() and not {path.name for path in out.iterdir() if not path.name.endswith(".part")} <= begun:
        raise RunError(f"{out} exists and is not a baseline; choose another --out")


def _without_colour(settings: Settings, train: Split, progress: Progress) -> Settings:
    """The settings without members that describe colours, where the pictures have none. Raises DataError."""
    names = members(settings)
    coloured = [name for name, _, descriptor in names if DESCRIPTORS[descriptor].needs_colour]
    if not coloured or not _is_grey(train):
        return settings
    rest = tuple(name for name, _, _ in names if name not in coloured)
    if not rest:
        raise DataError(f"the pictures are grey, and {', '.join(coloured)} describes colours: give other --members")
    progress.note(f"the pictures are grey: {', '.join(coloured)} is left out")
    return dataclasses.replace(settings, members=rest)  # type: ignore[call-arg]


def _is_grey(train: Split) -> bool:
    """Whether a sample of pictures has equal red, green and blue."""
    positions = np.unique(np.linspace(0, len(train) - 1, min(GREY_SAMPLE, len(train))).astype(int))
    for i in positions:
        try:
            pixels = train.decode(int(i)).astype(np.int16)
        except UnreadableImage:
            continue
        if np.abs(pixels - pixels[..., :1]).max(initial=0) > 2:
            return False
    return True


@contextmanager
def _single_threaded_libraries() -> Iterator[None]:
    """One thread for each call of a library: the threads are ours, and sums are the same for any number of them."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _fit(run: BaselineRun, data: RunData, progress: Progress) -> BaselineRun:
    """Fit the members that are not recorded yet, then the average."""
    manifest, unreadable = SourceManifest(run, data), dict[str, str]()
    threads = run.settings.threads or cpu_count()
    run.work.mkdir(exist_ok=True)
    (run.path / "members").mkdir(exist_ok=True)
    for folder in (run.path, run.work, run.path / "members"):
        remove_leftovers(folder)
    progress.note(
        f"{data.source.spec}: {len(data.train):,} training images, {len(data.validation):,} for validation, of "
        f"{len(data.source.classes):,} classes"
    )
    known = {member.name for member in run.record.members}
    with ThreadPoolExecutor(threads) as pool, _single_threaded_libraries():
        for name, code, descriptor in members(run.settings):
            if name in known:
                continue
            remove_leftovers(run.work / name)
            fitting = Fitting(run, data, name, code, descriptor, pool, progress, unreadable)
            member = fitting.fit()
            manifest.write(unreadable)
            seconds = run.record.seconds + sum(member.seconds.values())
            run = run.write(members=(*run.record.members, member), seconds=round(seconds, 3))
            fitting.clean()
    run = _average(run, data)
    shutil.rmtree(run.work, ignore_errors=True)
    assert run.record.validation is not None
    progress.note(f"average: validation error {run.record.validation.top1_error:.2f} %")
    return run


def _average(run: BaselineRun, data: RunData) -> BaselineRun:
    """Record the errors of the members' average, and the temperature of its probabilities."""
    found: list[Floats] = []
    labels = np.zeros(0, np.int64)
    for member in run.record.members:
        path = run.work / f"{member.name}-scores.safetensors"
        arrays = read_tensors(path)
        if not {"scores", "labels"} <= arrays.keys():
            raise CheckpointError(f"{path} is damaged: it has no scores or no labels")
        found.append(arrays["scores"])
        labels = np.asarray(arrays["labels"])
    scores = mean_scores(found)
    temperature = fit_temperature(scores, labels)
    errors = errors_of(scores, labels, negative_log_likelihood(scores, labels, temperature))
    return run.write(finished=True, temperature=temperature, validation=errors)


def mean_scores(scores: Sequence[Floats]) -> Floats:
    """The mean of the members' scores: each (N, C)."""
    total = np.zeros_like(scores[0])
    for one in scores:
        total += one
    return total / np.float32(len(scores))
