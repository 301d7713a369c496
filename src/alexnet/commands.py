"""What each command takes, does and says; `cli` has the table of them.

A command is three functions: its arguments, its work (which imports what it needs and returns what `--json` prints),
and the prose of the result.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

Result = dict[str, Any]


class Wrong(ValueError):
    """A wrong request, told in one line."""


class Parser(argparse.ArgumentParser):
    """argparse with one line for a wrong request."""

    def error(self, message: str) -> NoReturn:
        raise Wrong(f"{message}; see `{self.prog} --help`")


class Failed(Exception):
    """Work that failed, told in one line, with the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def told(error: OSError) -> str:
    """What the system says, with the file."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
                        help="print one JSON object on stdout")


def _source_help() -> str:
    return ("digits, a folder of class folders (with or without train/ val/ test/), a folder of Parquet files, ILSVRC "
            "or WebDataset tars, hf:owner/name, a torchvision data set, or a store")


def train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="P", help="network and recipe, see `alexnet presets` (default: digits)")
    parser.add_argument("--data", metavar="SRC", help=_source_help())
    parser.add_argument("--out", metavar="DIR", help="the run directory (default: runs/PRESET, numbered)")
    parser.add_argument("--resume", metavar="DIR", help="go on with an interrupted run, exactly as if it had not been")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="short for --train.precision")
    parser.add_argument("--epochs", metavar="N", help="short for --train.epochs")
    parser.add_argument("--seed", metavar="N", help="short for --train.seed")
    parser.add_argument("--device", metavar="D", help="short for --train.device")


def train(args: argparse.Namespace) -> Result:
    from alexnet import config as settings
    from alexnet import presets

    changes = _settings(args.rest)
    short = {"data": "data.source", "precision": "train.precision", "epochs": "train.epochs", "seed": "train.seed",
             "device": "train.device"}
    for name, path in short.items():
        if getattr(args, name) is not None:
            changes[path] = getattr(args, name)
    if args.resume:
        if changes or args.preset or args.out:
            raise Wrong("--resume goes on with the run's own settings; leave the others out")
        config, out = presets.preset("digits"), Path(args.resume)
    else:
        config = settings.replace(presets.preset(args.preset or "digits"), changes)
        out = Path(args.out) if args.out else _free(Path("runs") / config.preset.replace(":", "-"))
    from alexnet.training.loop import TrainingError, train
    from alexnet.training.progress import Terminal

    try:
        return train(config, out, bool(args.resume), Terminal(), ["alexnet", *args.argv])
    except KeyboardInterrupt:
        if not (out / "config.json").exists():
            raise Failed("stopped before the run began; there is nothing to resume", 130) from None
        raise Failed(f"stopped; the run is saved: go on with `alexnet train --resume {out}`", 130) from None
    except TrainingError as error:
        raise Failed(str(error)) from None
    except OSError as error:
        what = told(error) if error.filename else f"{out}: {told(error)}"
        if not (out / "config.json").exists():
            raise Failed(f"{what}; the run has not begun: mend it and give the same command again") from None
        raise Failed(f"{what}; what was saved before is kept: mend it and go on with "
                     f"`alexnet train --resume {out}`") from None


def _settings(rest: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` as a dictionary."""
    out: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise Wrong(f"{word!r} is not understood here; settings are written --section.name value")
        path, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise Wrong(f"--{path} needs a value")
            value = words.pop(0)
        out[path] = value
    return out


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def train_epilog(preset: str = "digits") -> str:
    from alexnet import config, presets

    lines = [f"settings, each as --section.name VALUE (in brackets: what preset {preset} has):"]
    for entry in config.fields(presets.preset(preset)):
        choices = f" {{{','.join(entry.choices)}}}" if entry.choices else ""
        default = ",".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
        lines.append(f"  --{entry.path}{choices}  {entry.about} [{default}]")
    return "\n".join(lines)


def say_train(result: Result) -> str:
    lines = [f"{result['run']}: {result['epochs']} epochs, {result['steps']} steps in {result['seconds']:.0f} s, "
             f"{result['images_per_second']:.0f} images/s"]
    for name in ("best", "last"):
        if result[name]:
            lines.append(f"{name}: epoch {result[name]['epoch']}, validation {_errors(result[name])}")
    lines.append(f"measure it with `alexnet evaluate {result['run']}`, see it with `alexnet report {result['run']}`")
    return "\n".join(lines)


def _errors(result: Result) -> str:
    top5 = "" if result["top5_error"] is None else f", top-5 error {result['top5_error']:.2f} %"
    return f"top-1 error {result['top1_error']:.2f} %{top5}, loss {result['loss']:.4f}, {result['count']:,} images"


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directories; several are averaged, an ensemble")
    parser.add_argument("--data", metavar="SRC", help="another source with the same classes (default: the run's own)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="default: test where there is one, else val")
    parser.add_argument("--views", type=int, choices=(1, 5, 10), default=1,
                        help="1: the centre; 10: corners, centre and their mirror images, averaged, as in the paper")
    _model_arguments(parser)


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", choices=("best", "last"), help="default: best by validation error")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--engine", choices=("auto", "torch", "onnxruntime", "openvino"), default="torch",
                        help="what computes (default: torch); auto: the fastest that is installed")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"),
                        help="default: the run's own; int8 is calibrated on its training images at first use")


def evaluate(args: argparse.Namespace) -> Result:
    from alexnet.evaluation.evaluate import evaluate
    from alexnet.run import Run
    from alexnet.training.progress import Terminal

    progress = Terminal()
    for path in args.runs:
        if args.views == 10 and not Run.open(path).config.augment.mirror:
            progress.warn(f"{path} was trained without mirror images; --views 5 leaves them out")
    result = evaluate(args.runs, args.data, args.split, args.views, args.checkpoint, args.device, progress,
                      args.engine, args.precision)
    if len(args.runs) == 1 and args.precision is None:  # the report shows what the run itself computes
        try:
            Run.open(args.runs[0]).record_evaluation(result)
        except OSError as error:  # a run that may only be read
            progress.warn(f"the result is not kept in the run: {told(error)}")
    return result


def say_evaluate(result: Result) -> str:
    who = result["runs"][0] if len(result["runs"]) == 1 else f"{len(result['runs'])} runs averaged"
    lost = f" ({result['unreadable']} could not be read)" if result["unreadable"] else ""
    views = "centre view" if result["views"] == 1 else f"{result['views']} views"
    return f"{who} on {result['data']} {result['split']}, {views}: {_errors(result)}{lost}"


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", type=int, default=5, help="labels to show (default: 5)")
    parser.add_argument("--views", type=int, choices=(1, 5, 10), default=1, help="views to average (default: 1)")
    _model_arguments(parser)


def predict(args: argparse.Namespace) -> Result:
    from alexnet.evaluation import engines, predict

    if args.engine == "torch" and args.precision is None:
        net = predict.load(args.run, args.checkpoint, args.device)
    else:
        engine = "auto" if args.precision == "int8" and args.engine == "torch" else args.engine
        net = engines.load(args.run, args.checkpoint, args.device, engine, args.precision)
    predictions = net.predict(args.images, args.top, args.views)
    return {"predictions": [
        {"image": image, "labels": [{"label": label, "probability": round(p, 6)} for label, p in
                                    zip(found.labels, found.probabilities, strict=True)]}
        for image, found in zip(args.images, predictions, strict=True)]}


def say_predict(result: Result) -> str:
    lines = []
    for entry in result["predictions"]:
        lines.append(entry["image"])
        lines += [f"  {label['probability']:7.2%}  {label['label']}" for label in entry["labels"]]
    return "\n".join(lines)


def summary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help="a preset, or torchvision:NAME")
    parser.add_argument("--classes", type=int, help="number of classes (default: the preset's)")


def summary(args: argparse.Namespace) -> Result:
    from alexnet import presets
    from alexnet.views import summary

    network = presets.preset(args.preset, args.classes).network
    return {**summary.summary(network), "text": summary.render_summary(network)}


def presets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", metavar="PRESET", nargs="*", help="none: the table; two: how they differ")


def presets(args: argparse.Namespace) -> Result:
    from alexnet import presets
    from alexnet.views import comparison

    if not args.presets:
        return {"presets": comparison.presets_data(), "text": comparison.presets_table()}
    if len(args.presets) != 2:
        raise Wrong("`alexnet presets` takes no preset (the table) or two (how they differ)")
    first, second = (presets.preset(name) for name in args.presets)
    rows = [dataclasses.asdict(row) for row in comparison.difference(first, second)]
    return {"a": first.preset, "b": second.preset, "differences": rows,
            "text": comparison.render_difference(first, second)}


def text(result: Result) -> str:
    return result["text"]


def report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory")


def report(args: argparse.Namespace) -> Result:
    from alexnet.run import Run
    from alexnet.training.progress import Terminal
    from alexnet.views.report import write_report

    return {"report": str(write_report(Run.open(args.run), Terminal()))}


def _source_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help=_source_help())
    parser.add_argument("--download", action="store_true", help="let a torchvision data set be downloaded")
    json_argument(parser)


def data_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    about = {
        "prepare": "make a checked store of a source, once, for fast training",
        "verify": "check a source or store: counts, sums, labels, duplicates, odd files",
        "info": "splits, classes, counts, sizes, statistics, and a contact sheet",
    }
    made = {name: actions.add_parser(name, help=text, description=text.capitalize() + ".")
            for name, text in about.items()}
    for action in made.values():
        _source_argument(action)
    prepare = made["prepare"]
    prepare.add_argument("out", metavar="OUT", help="the store's folder; a killed preparation goes on where it was")
    prepare.add_argument("--size", type=int, default=256, help="pixels of the shorter side (default: 256)")
    prepare.add_argument("--codec", choices=("raw", "jpeg"), default="raw", help="raw: fastest; jpeg: small")
    prepare.add_argument("--quality", type=int, default=90, help="of the jpeg codec (default: 90)")
    prepare.add_argument("--exif-rotate", action="store_true", help="apply EXIF orientation (the 2012 code did not)")
    prepare.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    prepare.add_argument("--workers", type=int, help="default: one a core")
    made["info"].add_argument("--contact-sheet", metavar="PNG", help="write a picture of samples there")


def data(args: argparse.Namespace) -> Result:
    from alexnet.training.progress import Terminal

    progress = Terminal()
    if args.action == "prepare":
        from alexnet.data.prepare import PrepareError, prepare

        try:
            with progress.counting("preparing"):
                manifest = prepare(
                    args.source, args.out, size=args.size, codec=args.codec, quality=args.quality,
                    exif_rotate=args.exif_rotate, strict=args.strict, workers=args.workers,
                    progress=progress.decoding, download=args.download)
        except PrepareError as error:
            raise Failed(str(error)) from None
        except KeyboardInterrupt:
            raise Failed("stopped; give the same command to go on where it was", 130) from None
        return {"action": "prepare", "out": args.out, "manifest": manifest}
    if args.action == "verify":
        from alexnet.data.verify import verify

        with progress.counting("verifying"):
            found = verify(args.source, progress=progress.decoding, download=args.download)
        errors = sum(finding.level == "error" for finding in found)
        return {"action": "verify", "source": args.source, "findings": [dataclasses.asdict(f) for f in found],
                "exit_code": int(errors > 0)}
    from alexnet.data.info import info

    return {"action": "info", **info(args.source, contact_sheet=args.contact_sheet, download=args.download)}


def say_data(result: Result) -> str:
    """What was prepared, found or described."""
    if result["action"] == "prepare":
        splits = ", ".join(f"{name} {entry['count']:,}" for name, entry in result["manifest"]["splits"].items())
        return f"{result['out']}: {splits}; check it with `alexnet data verify {result['out']}`"
    if result["action"] == "verify":
        if not result["findings"]:
            return f"{result['source']}: nothing to remark"
        return "\n".join(f"{f['level']}: {f['where']}: {f['message']}" for f in result["findings"])
    lines = [f"{result['spec']} ({result['kind']}): {result['classes']} classes"]
    for name, split in result["splits"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in split.items()))
    return "\n".join(lines)


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION",
                        choices=("train", "parity", "predict", "data", "lrn", "all", "newest"),
                        help="train, parity, predict, data, lrn; all of them; or newest, what was last measured here")
    parser.add_argument("options", nargs=argparse.REMAINDER,
                        help="the question's own options; `alexnet bench QUESTION --help` lists them")


def bench(args: argparse.Namespace) -> Result:
    from alexnet import benchmarks

    words = [word for word in args.options if word != "--json"]
    args.json = getattr(args, "json", False) or len(words) < len(args.options)
    own = Parser(prog=f"alexnet bench {args.question}")
    if args.question in ("all", "newest"):
        if args.question == "all":
            own.add_argument("--images", type=Path, help="a folder of class folders of photographs, for `data`")
        given = own.parse_args(words)
        return benchmarks.everything(given.images) if args.question == "all" else benchmarks.newest()
    benchmarks.arguments(args.question, own)
    return benchmarks.run(args.question, own.parse_args(words))
