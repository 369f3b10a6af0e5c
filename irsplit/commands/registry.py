"""Find the commands by name: each is a module of irsplit.commands, imported on demand."""

import argparse
import importlib
import textwrap
from typing import Any, NoReturn

COMMANDS = {
    "cuts": "list the positions at which a model can be cut, and why it cannot at the others",
    "extract": "write one signature or subgraph of a model as a model of its own",
    "profile": "measure the stages of a model, or the segments of a bundle, on this device",
    "bench": "measure what each cut costs on this device, and compare with an earlier run",
    "plan": "rank the cuts of a model for a device, a server and a link",
    "compile": "cut a model and write a bundle for device and server",
    "verify": "compare a bundle with the model that it was compiled from",
    "run": "run a bundle on inputs, all segments in this process",
    "serve": "serve the server side of bundles (Open Inference Protocol, gRPC and HTTP)",
    "export": "write what existing engines run: a Ray Serve application, a Triton model "
    "repository, a KServe service, models for ONNX Runtime",
    "report": "write a page with what every cut costs, which re-plans when its sliders move",
    "pack": "make one file of each side of a bundle, which runs without being unpacked",
    "delta": "write the patch that makes one build of a bundle of another",
    "apply": "make the new build of a bundle of the old one and a patch",
    "update": "update a device's bundle to the build that a server has",
    "inspect": "show what is in a model or a bundle",
    "header": "write boundary.h, with which C code encodes and decodes frames",
    "olive-config": "write the package config with which Olive finds our passes",
    "opt": "run passes over a model and print it as IR text",
    "completion": "print a script that lets a shell complete commands, options and names",
    "plugins": "list the installed passes, dialects and codecs, and where each comes from",
}
"""What each command does, by its name."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"error: {message}; see '{self.prog} --help'\n")


def module_of(name: str) -> Any:
    """Import a command: a module with EXAMPLES, add_arguments(parser) and run(arguments)."""
    return importlib.import_module(f"irsplit.commands.{name.replace('-', '_')}")


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, which also makes its --help and its reference page."""
    module = module_of(name)
    summary = COMMANDS[name]
    parser = Parser(
        prog=f"irsplit {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="examples:\n" + textwrap.indent(module.EXAMPLES.strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser
