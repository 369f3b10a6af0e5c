"""Declare and read the bearer token, for servers and for their clients."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import ServeError
from irsplit.base.reading import read_text, reading

TOKEN_VARIABLE = "IRSPLIT_TOKEN"
"""The environment variable that has the token where no file is given."""

_LARGEST_TOKEN = 1 << 16


def add_token(parser: ArgumentParser, purpose: str) -> None:
    """Declare --token-file; `purpose` says what the token is for."""
    parser.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the bearer token {purpose}; default: the variable {TOKEN_VARIABLE}",
    )


def token_of(arguments: Namespace) -> str:
    """Return the token, from the file or the variable; empty when none is given.

    Raises:
        ServeError: The file has no token.
    """
    path: Path | None = arguments.token_file
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    with reading(path, "is no text", "give a file with the token", ServeError):
        token = read_text(path, _LARGEST_TOKEN).strip()
    if not token:
        raise ServeError(f"{path}: holds no token")
    return token
