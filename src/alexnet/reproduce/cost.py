"""What runs will cost, before any is begun: by records on this kind of processor, or by a probe of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alexnet.architecture import infer_shapes
from alexnet.config import Config
from alexnet.reproduce.records import Records, processor_of
from alexnet.reproduce.scales import ARMS, BASE, SCALES, config_of
from alexnet.reproduce.work import Job


@dataclass(frozen=True)
class Cost:
    """How long jobs will take: seconds of one process, and what that is known from."""

    seconds: float
    basis: str


def cost_of(jobs: Sequence[Job], known: Records, processor: str, probe: Callable[[Config], float]) -> Cost:
    """What jobs cost on this kind of processor, by its records, else by a probe.

    An arm without a record takes as long as the scale's base, in proportion to its connections. `probe` returns the
    seconds of one training step.
    """
    bases: dict[tuple[str, str], tuple[float, str]] = {}
    for record in sorted(known.runs.values(), key=lambda record: record.date):
        if record.processor == processor:
            bases[record.scale, record.arm] = record.seconds, f"the record of {record.date[:10]}"
    total, reasons = 0.0, dict[str, None]()
    for job in jobs:
        place = job.scale.name, job.arm.name
        if place not in bases and job.arm.baseline:
            reasons["without the baselines, which were not timed here"] = None
            continue
        if place not in bases:
            base = bases.get((job.scale.name, BASE))
            if base is None:
                config = config_of(job.arm, job.scale, job.seed)
                bases[place] = probe(config) * _steps(job, config), "a probe of this machine"
            else:
                share = _connections(job) / _connections(Job(job.scale, ARMS[BASE], 0))
                bases[place] = base[0] * share, base[1]
        seconds, reason = bases[place]
        total, reasons[reason] = total + seconds, None
    return Cost(total, " and ".join(reasons))


def _steps(job: Job, config: Config) -> int:
    """Steps of a run whose schedule does not end it early."""
    return -(-SCALES[job.images].train_images // config.train.batch_size) * config.train.epochs


def _connections(job: Job) -> int:
    """Connections of all images that a run sees."""
    config = config_of(job.arm, job.scale, job.seed)
    each = sum(entry.connections for entry in infer_shapes(config.network))
    return each * _steps(job, config) * config.train.batch_size


def processor_here(threads: int) -> str:
    """The kind of this processor, as records have it."""
    import torch

    from alexnet.environment import instruction_sets

    return processor_of(instruction_sets()[1], threads or torch.get_num_threads())


def step_seconds(config: Config, threads: int = 0, device_name: str = "auto") -> float:
    """The median time of a training step here, of three after two that warm up; `threads` 0: one per core."""
    import torch

    from alexnet.device import choose_device
    from alexnet.engine.memory import keep_freed_memory
    from alexnet.model.zoo import build
    from alexnet.progress import quiet
    from alexnet.training.adapt import choose_precision
    from alexnet.training.sgd import SGD, parameter_groups
    from alexnet.training.step import Step
    from alexnet.training.task import task_of

    device = choose_device(device_name)
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    config = choose_precision(config, device, quiet)
    model = build(config.network, config.train.seed).to(device)
    optimizer = SGD(parameter_groups(model, config.network, config.optimizer), lr=1e-6)
    step = Step(model, task_of(config), optimizer, config.train.seed, config.train.precision)
    batch, side = config.train.batch_size, config.network.image
    images = 60 * torch.randn(batch, 3, side, side, device=device)
    positions = torch.arange(batch, device=device)
    times = []
    for number in range(5):
        start = time.perf_counter()
        step(images, positions % config.network.classes, positions, 1, number).sum().item()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])
