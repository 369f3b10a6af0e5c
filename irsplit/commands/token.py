"""The bearer token of a server, for those who serve and for those who ask."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import ServeError

TOKEN_VARIABLE = "IRSPLIT_TOKEN"


def add_token(parser: ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--token-file", type=Path, help=f"bearer token {purpose}; or the variable {TOKEN_VARIABLE}"
    )


def token_of(arguments: Namespace) -> str:
    """What a server is to be asked with; nothing when none is given. Raises ServeError for a file that has none."""
    path: Path | None = arguments.token_file
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ServeError(f"{path}: {error.strerror}; give a file with the token") from error
    except UnicodeDecodeError as error:
        raise ServeError(f"{path}: is no text; give a file with the token") from error
    if not token:
        raise ServeError(f"{path}: holds no token")
    return token
