"""Where else metrics go: plug-ins for TensorBoard, Weights & Biases and MLflow (`train.track`), none by default.

`metrics.jsonl` is always written; a tracker that fails is warned of once and left, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from alexnet.errors import MissingLibrary, RunError, UsageError, suggestion
from alexnet.files import write_json
from alexnet.progress import Progress, quiet
from alexnet.records import checked, read_json


class Tracker(Protocol):
    """One place metrics go to."""

    def open(self, path: Path, config: Mapping[str, Any], steps: int, identity: str | None) -> str | None:
        """Begin, or go on at step `steps`; `identity` is what an earlier process of the run got back, None at first."""
        ...

    def log(self, values: Mapping[str, float], steps: int) -> None:
        """Keep numbers by name (`validation/top1_error`)."""
        ...

    def close(self) -> None:
        """End."""
        ...


class TensorBoard:
    """Event files in the run's folder `tensorboard`."""

    def __init__(self) -> None:
        import_module("tensorboard")
        self.library = import_module("torch.utils.tensorboard")
        self.writer: Any = None

    def open(self, path: Path, config: Mapping[str, Any], steps: int, identity: str | None) -> str | None:
        """Begin or go on; see `Tracker`."""
        self.writer = self.library.SummaryWriter(str(path / "tensorboard"), purge_step=steps or None)
        return None

    def log(self, values: Mapping[str, float], steps: int) -> None:
        """Keep numbers by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """End."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project `alexnet` (WANDB_PROJECT); a resumed run goes on with the same."""

    def __init__(self) -> None:
        self.library = import_module("wandb")
        self.run: Any = None

    def open(self, path: Path, config: Mapping[str, Any], steps: int, identity: str | None) -> str | None:
        """Begin or go on; see `Tracker`."""
        self.run = self.library.init(
            dir=str(path), name=path.name, config=dict(config), id=identity, resume="allow" if identity else None
        )
        return str(self.run.id)

    def log(self, values: Mapping[str, float], steps: int) -> None:
        """Keep numbers by name."""
        self.run.log({**values, "steps": steps})

    def close(self) -> None:
        """End."""
        self.run.finish()


class MLflow:
    """A run at MLFLOW_TRACKING_URI; a resumed run goes on with the same."""

    def __init__(self) -> None:
        self.library = import_module("mlflow")

    def open(self, path: Path, config: Mapping[str, Any], steps: int, identity: str | None) -> str | None:
        """Begin or go on; see `Tracker`."""
        run = self.library.start_run(run_id=identity, run_name=None if identity else path.name)
        if identity is None:
            sections = {name: part for name, part in config.items() if isinstance(part, dict) and name != "network"}
            flat = {f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()}
            self.library.log_params(flat)
        return str(run.info.run_id)

    def log(self, values: Mapping[str, float], steps: int) -> None:
        """Keep numbers by name."""
        self.library.log_metrics(dict(values), step=steps)

    def close(self) -> None:
        """End."""
        self.library.end_run()


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class Trackers:
    """The trackers of a run; whatever one of them raises is a warning."""

    def __init__(self, names: Iterable[str] = (), progress: Progress = quiet) -> None:
        """Import their libraries, and nothing else.

        Raises UsageError for a name that is not known, MissingLibrary for a library that is not installed.
        """
        self.progress = progress
        self.active: dict[str, Tracker] = {}
        for name in names:
            if name not in TRACKERS:
                hint = suggestion(name, TRACKERS) or f"; there are {', '.join(TRACKERS)}"
                raise UsageError(f"train.track {name!r} is not a tracker{hint}")
            try:
                self.active[name] = TRACKERS[name]()
            except ImportError as error:
                raise MissingLibrary(
                    f"train.track {name} needs a library that is not installed ({error}): pip install {name}"
                ) from None

    def open(self, path: Path, config: Mapping[str, Any], steps: int) -> None:
        """Begin or go on with the run at `path`; what the trackers call it is kept in its trackers.json."""
        if not self.active:
            return
        file = path / "trackers.json"
        try:
            identities = checked(dict[str, str], read_json(file, 1 << 20), str(file))
        except (FileNotFoundError, RunError):  # without it they start new runs
            identities = {}
        known = dict(identities)

        def begin(name: str, tracker: Tracker) -> None:
            identity = tracker.open(path, config, steps, known.get(name))
            if identity:
                known[name] = str(identity)

        self._each(begin)
        if known != identities:
            write_json(file, known)

    def log(self, kind: str, values: Mapping[str, Any], steps: int) -> None:
        """Keep the numbers among a line of metrics."""
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self._each(lambda name, tracker: tracker.log(numbers, steps))

    def close(self) -> None:
        """End them all."""
        self._each(lambda name, tracker: tracker.close())
        self.active = {}

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self.active.items()):
            try:
                call(name, tracker)
            except Exception as error:  # a library's own troubles must not end a training
                del self.active[name]
                self.progress.warn(f"the tracker {name} failed and is left ({error!r}); metrics.jsonl goes on")
