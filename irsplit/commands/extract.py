"""irsplit extract MODEL ENTRY -o FILE: write one signature as a model of its own."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from irsplit.commands.output import size
from irsplit.dialects.registry import dialect_of
from irsplit.ir.printer import PLACES

EXAMPLES = """
irsplit extract examples/digits/digits.tflite main -o build/main.tflite
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "model", type=Path, help="a .tflite file of several signatures or subgraphs"
    )
    parser.add_argument("entry", help="the signature or subgraph to keep, by name")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the model file to write"
    )


def run(arguments: Namespace) -> int:
    """Write the model, and print its files."""
    dialect = dialect_of(arguments.model)
    model = dialect.read(arguments.model, arguments.entry)

    # A graph with a place is written with what it uses and nothing else.
    written = dialect.write(model, replace(model.entry, placement=PLACES[0]), arguments.output)
    for path in written:
        print(f"{path}  {size(path.stat().st_size)}")
    return 0
