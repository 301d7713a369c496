"""Training and measuring the runs that a claim needs, each once, going on where they were stopped.

Runs are in `out/runs/SCALE/ARM-SEED`, their records in `out/records`. Several processes may work in the same folder:
a run that another one trains is passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alexnet import config as settings
from alexnet.config import Config
from alexnet.errors import DataError, RunError, UsageError, several
from alexnet.progress import Progress
from alexnet.reproduce import rivals
from alexnet.reproduce.claims import Claim, arms_of
from alexnet.reproduce.records import Epoch, Key, Records, RunRecord, record_path, settings_of
from alexnet.reproduce.scales import ARMS, SCALES, Arm, Scale, config_of, fingerprint
from alexnet.run import Run


@dataclass(frozen=True)
class Job:
    """One run of an arm that has no record yet."""

    scale: Scale
    arm: Arm
    seed: int

    @property
    def key(self) -> Key:
        """Which record it makes."""
        return self.scale.name, self.arm.name, self.seed

    @property
    def images(self) -> str:
        """The scale whose images it is trained on."""
        return self.arm.data.get(self.scale.name, self.scale.name)

    @property
    def name(self) -> str:
        """What it is called."""
        return "/".join((self.scale.name, f"{self.arm.name}-{self.seed}"))


@dataclass(frozen=True)
class Workplace:
    """Where runs and records go, where the images of each scale are, and on how many threads of which device."""

    out: Path
    sources: Mapping[str, str]
    threads: int = 0
    device: str = "auto"

    @property
    def records(self) -> Path:
        """The folder of new records."""
        return self.out / "records"

    def run(self, key: Key) -> Path:
        """The run directory of an arm and seed."""
        return self.out / "runs" / key[0] / f"{key[1]}-{key[2]}"


def jobs_of(claims: Iterable[Claim], scale: Scale, seeds: int, known: Records) -> list[Job]:
    """The runs that claims need at a scale and that have no record, those that others begin from first.

    Raises UsageError where a claim is not measured at this scale.
    """
    wanted: dict[Key, Job] = {}

    def want(arm: Arm, seed: int) -> None:
        if arm.start:
            want(ARMS[arm.start], seed)
        job = Job(scale, arm, seed)
        if job.key not in known.runs:
            wanted[job.key] = job

    chosen = list(claims)
    for claim in chosen:
        if scale.name not in claim.scales:
            places = ", ".join(claim.scales) or "no scale"
            raise UsageError(f"claim {claim.number} ({claim.title}) is not measured at {scale.name}, but at {places}")
    for seed in range(seeds):  # seed by seed, so that every arm has some early
        for claim in chosen:
            for arm in arms_of(claim, scale.name):
                if seed < ARMS[arm].most_seeds:
                    want(ARMS[arm], seed)
    return list(wanted.values())


def perform(job: Job, place: Workplace, progress: Progress, command: str) -> RunRecord:
    """Train a job's run as far as it is not trained, measure it, and write its record.

    Raises RunBusy where another process trains or measures it, RunError where the run directory holds one of other
    settings, and what `alexnet.train` and `alexnet.evaluate` raise; what was trained before stays.
    """
    source, path = source_of(job, place), place.run(job.key)
    check_classes(job, source)
    if job.arm.baseline:
        own = {"seed": str(job.seed), "threads": str(place.threads)}
        texts = {**job.arm.at.get(job.scale.name, {}), **own}
        run: Run = rivals.fitted(job.arm.baseline, texts, source, path, progress, ["alexnet", "reproduce", job.name])
    else:
        run = trained(job, place, path, source, progress)
    with run.held():
        record_path(place.records, job.key).parent.mkdir(parents=True, exist_ok=True)
        record = recorded(job, place, run, progress, command)
        record.save(place.records)
    return record


def recorded(job: Job, place: Workplace, run: Run, progress: Progress, command: str) -> RunRecord:
    """What a finished run shows; its predictions are kept beside where its record goes."""
    from alexnet.data.run_data import load_statistics, open_run_data
    from alexnet.inference.load import load
    from alexnet.inference.network import NetworkPredictor
    from alexnet.report.kernels import grey_images
    from alexnet.reproduce import measure
    from alexnet.training.task import task_of

    arm, data = job.arm, open_run_data(run.config)
    curve: tuple[Epoch, ...] = ()
    if arm.baseline:
        values = measure.values_of_model(load(run.path), data, place.records, job.key, 1, True, progress)
        seconds, steps = run.record.seconds, 0  # type: ignore[attr-defined]
    else:
        predictor = load(run.path, checkpoint="last", device=place.device)
        curve = measure.curve_of(run)
        seconds, steps = curve[-1].seconds, run.metrics("train")[-1]["step"]
        values = measure.values_of_curve(run, curve, task_of(run.config).chance(len(data.source.classes)))
        views = views_of(job) if arm.full else 1
        values |= measure.values_of_model(predictor, data, place.records, job.key, views, False, progress)
        if arm.full:
            values |= measure.values_of_neighbours(predictor, run, progress)
            statistics = load_statistics(run.statistics_file, run.config.data.size)
            coloured = run.config.network.columns == 2 and not grey_images(statistics)
            if coloured and isinstance(predictor, NetworkPredictor):
                values |= measure.values_of_kernels(predictor)
    environment = run.environment
    return RunRecord(
        *job.key,
        settings=settings_of(job.scale.name, arm.name),
        data=SCALES[job.images].data,
        values=values,
        curve=measure.thinned(curve) if curve else (),
        epochs=len(curve),
        steps=steps,
        seconds=round(seconds, 1),
        hardware=environment["hardware"],
        versions=environment["versions"],
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=environment["commit"],
        command=command,
    )


def trained(job: Job, place: Workplace, path: Path, source: str, progress: Progress) -> Run:
    """The job's run, trained to its end."""
    from alexnet.checkpoint import has_checkpoint
    from alexnet.training import loop

    changes = {"data.source": source, "train.device": place.device, "train.threads": str(place.threads)}
    if job.arm.start:
        changes["train.init"] = str(place.run((job.scale.name, job.arm.start, job.seed)))
    config = settings.replace(config_of(job.arm, job.scale, job.seed), changes)
    if (path / "config.json").exists():
        found = Run.open(path)
        if fingerprint(adapted(found.config, config)) != fingerprint(config):
            raise RunError(
                f"{path} is a run of other settings than {job.name} has now; remove it or give another --out"
            )
        if has_checkpoint(path / "checkpoints", "last"):
            loop.resume(path, progress, {"train.threads": str(place.threads)})
            return Run.open(path)
    loop.train(config, path, progress, ["alexnet", "reproduce", job.name])
    return Run.open(path)


def adapted(found: Config, wanted: Config) -> Config:
    """A run's settings with what the images and the processor decided in the form in which it was asked for."""
    network = dataclasses.replace(found.network, classes=wanted.network.classes)
    train = found.train
    if wanted.train.precision == "auto":
        train = dataclasses.replace(train, precision="auto")
    return dataclasses.replace(found, network=network, train=train)


def source_of(job: Job, place: Workplace) -> str:
    """Where a job's images are. Raises UsageError where no place is given."""
    source = place.sources.get(job.images) or SCALES[job.images].source
    if not source:
        flag = "--data SRC" if job.images == job.scale.name else f"--data {job.images}=SRC"
        raise UsageError(f"{job.name} needs the images of {SCALES[job.images].data}: say with {flag} where they are")
    return source


def check_classes(job: Job, source: str) -> None:
    """Raise DataError where images have other classes than those of the job's scale."""
    from alexnet.data.readers.open import open_source

    wanted, found = SCALES[job.images], open_source(source).classes
    other = ""
    if len(found) != wanted.classes:
        other = f"{len(found):,} classes, but {wanted.data} has {wanted.classes:,}"
    elif wanted.names and not set(found) <= {*wanted.names, *map(str, range(len(found)))}:
        other = f"classes {several(found)}, which are not those of {wanted.data}"
    if other:
        raise DataError(f"{source} has {other}; give the right place with --data")


def views_of(job: Job) -> int:
    """Ten, or five where the network was not trained with mirror images."""
    return 10 if config_of(job.arm, job.scale, job.seed).augment.mirror else 5
