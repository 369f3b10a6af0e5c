"""The command line: finds the command, turns users' mistakes into one line and exit code 2.

Exit codes: 0 done, 1 a check did not hold, 2 the user's input is at fault. Commands are modules of irsplit.commands and
are imported when they are asked for: `irsplit --version` loads none of them.
"""

import argparse
import atexit
import gc
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from irsplit.errors import VERSION, IrsplitError

COMMANDS = {
    "cuts": "list the positions at which a model can be cut, and why it cannot at the others",
    "extract": "write one signature or subgraph of a model as a model of its own",
    "profile": "measure the parts of a model, or of a bundle, on this machine",
    "bench": "measure what each cut costs on this machine, and compare with an earlier run",
    "plan": "rank the cuts of a model for a device, a server and a link",
    "compile": "cut a model and write a bundle for device and server",
    "verify": "compare a bundle with the model that it was compiled from",
    "run": "run a bundle on inputs, all segments in this process",
    "serve": "run the server's side of bundles as a service (Open Inference Protocol, gRPC and HTTP)",
    "export": "write what existing engines run: a Ray Serve application, a Triton model repository, a KServe service",
    "report": "write a page with what every cut costs, which re-plans when its sliders move",
    "pack": "make one file of each side of a bundle, which runs without being unpacked",
    "delta": "write the patch that makes one build of a bundle of another",
    "apply": "make the new build of a bundle of the old one and a patch",
    "update": "bring a device's bundle up to the build that a server has",
    "inspect": "show what is in a model or a bundle",
    "header": "write boundary.h, with which C code frames what crosses",
    "olive-config": "write the package config with which Olive finds our passes",
    "opt": "run passes over a model and print it as IR text",
    "plugins": "list the installed passes, dialects and codecs, and where each comes from",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and words[:1] != ["serve"]:
        # A command is over soon, and collections that walk a large graph cost as much as the passes: also the last one.
        gc.disable()
        atexit.register(gc.freeze)
    parser = _Parser(
        prog="irsplit",
        description="Split compiler for neural networks.",
        epilog="commands:\n" + "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"irsplit {VERSION}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below; 'irsplit COMMAND --help'")
    name = parser.parse_args(words[:1]).command
    try:
        return module_of(name).run(parser_of(name).parse_args(words[1:]))
    except IrsplitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (irsplit cuts MODEL | head): nothing left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(2, f"error: {message}; see '{self.prog} --help'\n")


def module_of(name: str) -> Any:
    """The module of a command: EXAMPLES, add_arguments(parser), run(arguments) -> exit code."""
    return importlib.import_module(f"irsplit.commands.{name.replace('-', '_')}")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The arguments of a command; its --help, and the reference in the documentation."""
    module = module_of(name)
    summary = COMMANDS[name]
    parser = _Parser(
        prog=f"irsplit {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="examples:\n" + textwrap.indent(module.EXAMPLES.strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser
