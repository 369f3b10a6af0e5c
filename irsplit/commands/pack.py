"""irsplit pack BUNDLE -o DIR: make one file of each side of a bundle."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.output import size
from irsplit.compilation.pack import pack

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit pack build/digits -o build/packed
irsplit inspect build/packed/digits.device.irsb
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("bundle", type=Path, help="a folder that 'irsplit compile' wrote")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for NAME.device.irsb, NAME.server.irsb",
    )


def run(arguments: Namespace) -> int:
    """Pack the bundle, and print the files."""
    for path in pack(arguments.bundle, arguments.output):
        print(f"{path}  {size(path.stat().st_size)}")
    return 0
