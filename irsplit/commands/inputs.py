"""Inputs of a model as words of the command line."""

from argparse import ArgumentParser

from irsplit.commands.arguments import DIM, DIM_NAMES


def add_dims(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        dest="dims",
        metavar=DIM,
        help=f"size of an open dimension, where inputs are made up; {DIM_NAMES}; default 1, or what the engine takes",
    )
