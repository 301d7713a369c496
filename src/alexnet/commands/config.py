"""`alexnet config`: every setting of a preset or a run as a TOML file, for `alexnet train --config`."""

from __future__ import annotations

import argparse

from alexnet.commands.frame import PRESET_HELP, Command, Result, named_config, settings_arguments, with_settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whose settings, and what to change in them."""
    parser.add_argument("preset", metavar="PRESET", help=PRESET_HELP)
    settings_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """The settings as JSON, and as TOML in `text`."""
    from alexnet.config_file import to_toml

    config = with_settings(named_config(args.preset), args)
    return {**config.to_dict(), "text": to_toml(config).rstrip()}


COMMAND = Command(
    "config", "every setting of a preset or a run, as a file for `train --config`", arguments, run, settings=True
)
