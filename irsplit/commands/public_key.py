"""Declare --public-key for commands that take a patch."""

from argparse import ArgumentParser
from pathlib import Path


def add_public_key(parser: ArgumentParser) -> None:
    """Declare --public-key."""
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="KEY",
        help="refuse a build that was not signed with the private key of this Ed25519 public key "
        "('irsplit delta --sign'; PEM; needs irsplit[sign])",
    )
