"""irsplit completion SHELL: print a script that completes commands."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import shtab

from irsplit import profiles
from irsplit.commands.registry import COMMANDS, module_of
from irsplit.passes.choose_cut import OBJECTIVES
from irsplit.runtime.frame.descriptor import codec_names

EXAMPLES = """
irsplit completion bash
irsplit completion zsh
irsplit completion fish
"""

PLACES = {
    "bash": "~/.local/share/bash-completion/completions/irsplit",
    "zsh": "_irsplit in a folder of $fpath",
    "fish": "~/.config/fish/completions/irsplit.fish",
}
"""Where each shell looks for the script."""

_OFFERED: dict[str, Callable[[], Iterable[str]]] = {
    "codec": lambda: (*codec_names(), "auto"),
    "device": lambda: profiles.names("device"),
    "server": lambda: profiles.names("device"),
    "link": lambda: profiles.names("link"),
    "objective": lambda: OBJECTIVES,
}
"""What to offer for options that may have other values too."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    places = "; ".join(f"{shell}: {place}" for shell, place in PLACES.items())
    text = f"the shell; the script belongs into a file: {places}"
    parser.add_argument("shell", choices=tuple(PLACES), metavar="SHELL", help=text)


def run(arguments: Namespace) -> int:
    """Print the script for a shell."""
    parser = _Described(prog="irsplit")
    parser.add_argument("--version", action="version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, summary in COMMANDS.items():
        module_of(name).add_arguments(commands.add_parser(name, help=summary))
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


class _Described(ArgumentParser):
    """A parser that knows what to offer for an argument; it never parses.

    The parsers of its commands are of this class too.
    """

    def add_argument(self, *names: Any, **options: Any) -> Action:
        """Declare an argument, with its choices or as a file."""
        action = super().add_argument(*names, **options)
        if action.dest in _OFFERED:
            action.choices = list(_OFFERED[action.dest]())
        elif action.type is Path:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
        return action
