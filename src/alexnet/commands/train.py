"""`alexnet train`: train a network; every setting has a flag."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.commands.frame import (
    SOURCE_HELP,
    Command,
    CommandError,
    Result,
    describe_errors,
    named_config,
    settings_arguments,
    settings_help,
    stop_code,
    with_settings,
)
from alexnet.errors import UsageError, describe_os_error

if TYPE_CHECKING:
    from alexnet.config import Config

SHORT = {"data": "data.source", "epochs": "train.epochs", "seed": "train.seed", "device": "train.device"}
SHORT |= {"precision": "train.precision", "init": "train.init"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, on what, and where to."""
    parser.add_argument(
        "--preset",
        metavar="PRESET",
        help="network and recipe: one that `alexnet presets` lists, torchvision:NAME, or fine-tune, for the network of "
        "--init RUN (default: digits)",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="settings from a file that `alexnet config` wrote, or from a run; flags win"
    )
    parser.add_argument("--data", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument("--out", metavar="DIR", help="the run directory (default: runs/PRESET, numbered)")
    parser.add_argument("--init", metavar="MODEL", help="a run or .safetensors file whose weights the run begins with")
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with an interrupted run, exactly as if it had not been, or train a finished one longer; takes "
        "--data, --epochs, --device, --train.threads, .steps and .save_every, --data.workers and .memory, "
        "--schedule.drops, .patience and .milestones",
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16", "auto"), help="short for --train.precision")
    parser.add_argument("--epochs", metavar="N", help="short for --train.epochs")
    parser.add_argument("--seed", metavar="N", help="short for --train.seed")
    parser.add_argument("--device", metavar="D", help="short for --train.device")
    settings_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """Train or resume; a run that is stopped or fails says how to go on."""
    changes: dict[str, str] = {}
    if args.resume:
        changes = _changes(args)
        config, out = None, Path(args.resume)
    else:
        config = chosen_config(args)
        out = Path(args.out) if args.out else _free(Path("runs") / config.preset.replace(":", "-"))
    from alexnet.errors import TrainingError
    from alexnet.progress import Terminal
    from alexnet.training.loop import resume, train

    try:
        if config:
            return train(config, out, Terminal(), ["alexnet", *args.argv]).to_json()
        return resume(out, Terminal(), changes).to_json()
    except KeyboardInterrupt as stopped:
        code = stop_code(stopped)
        if not (out / "config.json").exists():
            raise CommandError("stopped before the run began; there is nothing to resume", code) from None
        if not any((out / "checkpoints").glob("*.safetensors")):
            raise CommandError("stopped before the run was saved: give the same command again", code) from None
        raise CommandError(f"stopped; the run is saved: go on with `alexnet train --resume {out}`", code) from None
    except TrainingError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        what = describe_os_error(error) if error.filename else f"{out}: {describe_os_error(error)}"
        if not (out / "config.json").exists():
            raise CommandError(f"{what}; the run has not begun: mend it and give the same command again") from None
        raise CommandError(
            f"{what}; what was saved before is kept: mend it and go on with `alexnet train --resume {out}`"
        ) from None


def _changes(args: argparse.Namespace) -> dict[str, str]:
    """The settings with which a run goes on. Raises UsageError for a flag that only a new run can have."""
    for name in ("preset", "config", "out"):
        if getattr(args, name):
            raise UsageError(f"--resume goes on with a run's own settings and place: leave --{name} out")
    if args.without:
        raise UsageError("--without cannot be changed in a run; begin another")
    return {**args.settings, **_short(args)}


def _short(args: argparse.Namespace) -> dict[str, str]:
    """The settings that short flags mean, by path."""
    return {path: getattr(args, name) for name, path in SHORT.items() if getattr(args, name) is not None}


def chosen_config(args: argparse.Namespace) -> Config:
    """The settings asked for: those of `--config` or `--preset`, without `--without`, and the flags over them."""
    from alexnet import config_file

    if args.config is None:
        base = named_config(args.preset or "digits")
    elif Path(args.config).is_dir():
        base = named_config(args.config)
    else:
        base = config_file.read_config(args.config, args.preset)
    args.settings = {**args.settings, **_short(args)}
    if base.preset == "fine-tune":  # its network is that of the model it begins from
        from alexnet.config import replace
        from alexnet.training.init import initialise_from

        base = initialise_from(replace(base, {"train.init": args.settings.get("train.init", base.train.init)}))
    return with_settings(base, args)


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def epilog() -> str:
    """Every setting of the default preset."""
    return settings_help("digits")


def say(result: Result) -> str:
    """Length, speed and errors, and what may come next."""
    epochs, steps = (f"{result[name]} {name if result[name] != 1 else name[:-1]}" for name in ("epochs", "steps"))
    lines = [
        f"{result['run']}: {epochs}, {steps} in {result['seconds']:.0f} s, {result['images_per_second']:.0f} images/s"
    ]
    for name in ("best", "last"):
        validated = result[name]
        words = f"epoch {validated['epoch']}, validation {describe_errors(validated)}" if validated else ""
        if name == "last" and result["steps"] > validated.get("step", 0):  # these weights were not validated
            before = f" since step {validated['step']}: {words}" if validated else ""
            lines.append(f"last: step {result['steps']}, not validated{before}")
        elif words:
            lines.append(f"{name}: {words}")
    lines.append(f"measure it with `alexnet evaluate {result['run']}`, see it with `alexnet report {result['run']}`")
    return "\n".join(lines)


COMMAND = Command(
    "train", "train a network; every setting has a flag", arguments, run, say, settings=True, epilog=epilog
)
