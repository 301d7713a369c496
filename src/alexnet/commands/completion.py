"""`alexnet completion`: a file that lets a shell complete commands, flags, settings and their values.

It is made from the parser itself and from the tables of settings, presets and ablations.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from alexnet.commands.frame import Command, Result

SHELLS = {
    "bash": "alexnet completion bash > ~/.local/share/bash-completion/completions/alexnet",
    "zsh": 'alexnet completion zsh > "${fpath[1]}/_alexnet"',
    "fish": "alexnet completion fish > ~/.config/fish/completions/alexnet.fish",
}


@dataclass(frozen=True)
class Flag:
    """One flag: what follows it (`values` empty: a file or anything; None: nothing), and its help."""

    name: str
    values: tuple[str, ...] | None
    about: str = ""


@dataclass(frozen=True)
class Verb:
    """One command, `train` or `data prepare` (or "" for none yet): the words it begins with, and its flags."""

    name: str
    words: tuple[str, ...]
    flags: tuple[Flag, ...]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help=f"{', '.join(SHELLS)}: print its file")


def run(args: argparse.Namespace) -> Result:
    """The file's text."""
    verbs = list(command_verbs(args.parser(), set(args.with_settings)))
    write = {"bash": bash, "zsh": zsh, "fish": fish}[args.shell]
    return {"shell": args.shell, "script": write(verbs)}


def command_verbs(parser: argparse.ArgumentParser, settings: set[str], name: str = "") -> Iterator[Verb]:
    """Every command of a parser, with the settings' flags for those that take them."""
    from alexnet import presets
    from alexnet.ablations import ABLATIONS

    named = {"PRESET": tuple(presets.names()), "X,Y": tuple(ABLATIONS)}
    words: list[str] = []
    flags = list(setting_flags()) if name in settings else []
    below: list[Verb] = []
    for action in parser._actions:
        values = tuple(map(str, action.choices or named.get(str(action.metavar), ())))
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                below += command_verbs(sub, settings, f"{name} {word}".strip())
        if action.option_strings:
            flags.append(Flag(action.option_strings[-1], None if action.nargs == 0 else values, action.help or ""))
        else:
            words += values
    yield Verb(name, tuple(words), tuple(flags))
    yield from below


def setting_flags() -> Iterator[Flag]:
    """Every setting of any preset, and every layer, which `none` removes."""
    from alexnet import presets
    from alexnet.config import fields

    flags: dict[str, Flag] = {}
    for config in map(presets.preset, presets.names()):
        for entry in fields(config):
            values = entry.choices or (("true", "false") if entry.kind is bool else ())
            flags.setdefault(entry.path, Flag(f"--{entry.path}", values, entry.about))
        for layer in config.network.layers:
            flags.setdefault(f"network.{layer.name}", Flag(f"--network.{layer.name}", ("none",), "remove this layer"))
    yield from flags.values()


def _table(verbs: list[Verb]) -> str:
    """A function of bash and zsh: `_alexnet_words VERB PREVIOUS CURRENT` prints what may come, nothing for a file."""
    lines = ["_alexnet_words() {", "  case $1 in"]
    for verb in verbs:
        lines += [f'    "{verb.name}")', "      case $2 in"]
        by_values: dict[tuple[str, ...], list[str]] = {}
        for flag in verb.flags:
            if flag.values is not None:
                by_values.setdefault(flag.values, []).append(flag.name)
        lines += [
            f"        {'|'.join(names)}) echo '{' '.join(values)}'; return;;" for values, names in by_values.items()
        ]
        flags = " ".join(flag.name for flag in verb.flags)
        lines += ["      esac", f"      case $3 in -*) echo '{flags}';; *) echo '{' '.join(verb.words)}';; esac;;"]
    return "\n".join([*lines, "  esac", "}"])


def _verb(verbs: list[Verb]) -> str:
    """A function of bash and zsh: `_alexnet_verb WORD…` prints the command that the words begin."""
    nested = "|".join(sorted({verb.name.split()[0] for verb in verbs if " " in verb.name}))
    return "\n".join(
        [
            "_alexnet_verb() {",
            "  local verb='' word",
            '  for word in "$@"; do',
            "    case $word in -*) continue;; esac",
            "    case $verb in",
            "      '') verb=$word;;",
            f'      {nested}) verb="$verb $word"; break;;',
            "      *) break;;",
            "    esac",
            "  done",
            '  echo "$verb"',
            "}",
        ]
    )


def bash(verbs: list[Verb]) -> str:
    """The file for bash; where nothing is known, names of files are completed."""
    return "\n".join(
        [
            f"# {SHELLS['bash']}",
            _table(verbs),
            _verb(verbs),
            "_alexnet() {",
            '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" verb',
            '  verb="$(_alexnet_verb "${COMP_WORDS[@]:1:COMP_CWORD-1}")"',
            '  COMPREPLY=($(compgen -W "$(_alexnet_words "$verb" "$previous" "$current")" -- "$current"))',
            "}",
            "complete -o bashdefault -o default -F _alexnet alexnet",
        ]
    )


def zsh(verbs: list[Verb]) -> str:
    """The file for zsh; where nothing is known, names of files are completed."""
    return "\n".join(
        [
            "#compdef alexnet",
            f"# {SHELLS['zsh']}",
            _table(verbs),
            _verb(verbs),
            "_alexnet() {",
            "  local -a candidates",
            '  local verb="$(_alexnet_verb ${words[2,CURRENT-1]})"',
            '  candidates=(${=$(_alexnet_words "$verb" "${words[CURRENT-1]}" "$PREFIX")})',
            "  if (( $#candidates )); then compadd -a candidates; else _files; fi",
            "}",
            'if [[ $funcstack[1] == _alexnet ]]; then _alexnet "$@"; else compdef _alexnet alexnet; fi',
        ]
    )


def fish(verbs: list[Verb]) -> str:
    """The file for fish, with help texts."""
    lines = []
    for verb in verbs:
        first, _, action = verb.name.partition(" ")
        condition = (
            f"__fish_seen_subcommand_from {first}" if first else "not __fish_seen_subcommand_from $alexnet_commands"
        )
        if action:
            condition += f"; and __fish_seen_subcommand_from {action}"
        if verb.words:
            lines.append(f"complete -c alexnet -n '{condition}' -a '{' '.join(verb.words)}'")
        for flag in verb.flags:
            values = "" if flag.values is None else f" -x -a '{' '.join(flag.values)}'" if flag.values else " -r"
            name = f"-l {flag.name[2:]}" if flag.name.startswith("--") else f"-s {flag.name[1:]}"
            about = flag.about.replace("\\", "").replace("'", "’").replace("%%", "%")
            lines.append(f"complete -c alexnet -n '{condition}' {name}{values} -d '{about}'")
    commands = " ".join(verb.name for verb in verbs if verb.name and " " not in verb.name)
    return "\n".join([f"# {SHELLS['fish']}", f"set -g alexnet_commands {commands}", *lines])


def say(result: Result) -> str:
    """The file itself."""
    return result["script"]


COMMAND = Command("completion", "print a file that lets bash, zsh or fish complete this command", arguments, run, say)
