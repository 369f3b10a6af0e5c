"""The option --public-key of commands that take a patch."""

from argparse import ArgumentParser
from pathlib import Path


def add_public_key(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="KEY",
        help="refuse a build that the owner of this Ed25519 public key has not signed ('irsplit delta --sign'; PEM; "
        "needs irsplit[sign])",
    )
