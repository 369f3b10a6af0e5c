"""Declare the arguments on inputs that are made up."""

from argparse import ArgumentParser

from irsplit.commands.arguments import DIM, DIM_NAMES


def add_dims(parser: ArgumentParser) -> None:
    """Declare --dim for commands that make inputs up."""
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        dest="dims",
        metavar=DIM,
        help=f"size of an open dimension of inputs that are made up; {DIM_NAMES}; "
        "default 1, or what the engine takes",
    )
