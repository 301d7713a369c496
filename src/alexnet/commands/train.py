"""`alexnet train`: train a network; every setting has a flag."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alexnet.commands.frame import SOURCE_HELP, Command, CommandError, Result, describe_errors
from alexnet.errors import UsageError, describe_os_error


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="P", help="network and recipe, see `alexnet presets` (default: digits)")
    parser.add_argument("--data", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument("--out", metavar="DIR", help="the run directory (default: runs/PRESET, numbered)")
    parser.add_argument("--init", metavar="MODEL", help="a run or .safetensors file whose weights the run begins with")
    parser.add_argument("--resume", metavar="DIR", help="go on with an interrupted run, exactly as if it had not been")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="short for --train.precision")
    parser.add_argument("--epochs", metavar="N", help="short for --train.epochs")
    parser.add_argument("--seed", metavar="N", help="short for --train.seed")
    parser.add_argument("--device", metavar="D", help="short for --train.device")


def run(args: argparse.Namespace) -> Result:
    from alexnet import config as settings
    from alexnet import presets

    changes = _settings(args.rest)
    short = {
        "data": "data.source",
        "init": "train.init",
        "precision": "train.precision",
        "epochs": "train.epochs",
        "seed": "train.seed",
        "device": "train.device",
    }
    for name, path in short.items():
        if getattr(args, name) is not None:
            changes[path] = getattr(args, name)
    if args.resume:
        if changes or args.preset or args.out:
            raise UsageError("--resume goes on with the run's own settings; leave the others out")
        config, out = None, Path(args.resume)
    else:
        config = presets.preset(args.preset or "digits")
        if args.preset == "fine-tune":  # its network is that of the model it begins from
            from alexnet.training.init import initialise_from

            config = initialise_from(settings.replace(config, {"train.init": changes.get("train.init", "")}))
        config = settings.replace(config, changes)
        out = Path(args.out) if args.out else _free(Path("runs") / config.preset.replace(":", "-"))
    from alexnet.errors import TrainingError
    from alexnet.progress import Terminal
    from alexnet.training.loop import resume, train

    try:
        result = train(config, out, Terminal(), ["alexnet", *args.argv]) if config else resume(out, Terminal())
        return result.to_json()
    except KeyboardInterrupt:
        if not (out / "config.json").exists():
            raise CommandError("stopped before the run began; there is nothing to resume", 130) from None
        raise CommandError(f"stopped; the run is saved: go on with `alexnet train --resume {out}`", 130) from None
    except TrainingError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        what = describe_os_error(error) if error.filename else f"{out}: {describe_os_error(error)}"
        if not (out / "config.json").exists():
            raise CommandError(f"{what}; the run has not begun: mend it and give the same command again") from None
        raise CommandError(
            f"{what}; what was saved before is kept: mend it and go on with `alexnet train --resume {out}`"
        ) from None


def _settings(rest: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` as a dictionary."""
    out: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"{word!r} is not understood here; settings are written --section.name value")
        path, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise UsageError(f"--{path} needs a value")
            value = words.pop(0)
        out[path] = value
    return out


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def epilog(preset: str = "digits") -> str:
    from alexnet import config, presets

    lines = [f"settings, each as --section.name VALUE (in brackets: what preset {preset} has):"]
    for entry in config.fields(presets.preset(preset)):
        choices = f" {{{','.join(entry.choices)}}}" if entry.choices else ""
        default = ",".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
        lines.append(f"  --{entry.path}{choices}  {entry.about} [{default}]")
    return "\n".join(lines)


def say(result: Result) -> str:
    lines = [
        f"{result['run']}: {result['epochs']} epochs, {result['steps']} steps in {result['seconds']:.0f} s, "
        f"{result['images_per_second']:.0f} images/s"
    ]
    for name in ("best", "last"):
        if result[name]:
            lines.append(f"{name}: epoch {result[name]['epoch']}, validation {describe_errors(result[name])}")
    lines.append(f"measure it with `alexnet evaluate {result['run']}`, see it with `alexnet report {result['run']}`")
    return "\n".join(lines)


COMMAND = Command("train", "train a network; every setting has a flag", arguments, run, say)
