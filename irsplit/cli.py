"""The command line: finds the command, turns users' mistakes into one line and exit code 2.

Exit codes: 0 done, 1 a check did not hold, 2 the user's input is at fault. Commands are imported
when they are asked for: `irsplit --version` loads none of them.
"""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irsplit.base.errors import VERSION, IrsplitError
from irsplit.base.lazy import LazyModule
from irsplit.commands.flags import old_names, text_of
from irsplit.commands.log import Log
from irsplit.commands.registry import COMMANDS, Parser, module_of, parser_of
from irsplit.commands.terminal import escaping, message

if TYPE_CHECKING:
    import difflib
else:
    difflib = LazyModule("difflib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and words[:1] != ["serve"]:
        # A command ends soon, and collections that walk a large graph cost as much as the passes;
        # so does the last collection, at exit.
        gc.disable()
        atexit.register(gc.freeze)
    with escaping("stdout"), escaping("stderr"):
        return _run(words)


def _run(words: Sequence[str]) -> int:
    parser = Parser(
        prog="irsplit",
        description="Split compiler for neural networks.",
        epilog="commands:\n" + "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"irsplit {VERSION}")
    parser.add_argument("command", metavar="COMMAND", help="see below; 'irsplit COMMAND --help'")
    name = parser.parse_args(words[:1]).command
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'? See" if near else f"known: {', '.join(COMMANDS)}; see"
        parser.exit(2, f"error: there is no command '{name}'; {hint} 'irsplit --help'\n")
    try:
        arguments = parser_of(name).parse_args(words[1:])
        log = Log(structured=getattr(arguments, "log_json", False))
        for note in old_names(arguments):
            log.note(note)
        return module_of(name).run(arguments)
    except IrsplitError as error:
        print(f"error: {message(text_of(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (irsplit cuts MODEL | head): nothing left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
