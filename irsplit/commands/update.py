"""irsplit update BUNDLE --from URL: get the build that a server has."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.log import say
from irsplit.commands.output import size
from irsplit.commands.public_key import add_public_key
from irsplit.commands.token import add_token, token_of
from irsplit.runtime.serving.client.update import update

EXAMPLES = """
irsplit update build/digits --from http://server:8000
irsplit update build/digits --from https://server:8000 --name digits --token-file token \
--trusted ca.pem
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "bundle",
        type=Path,
        help="the device's bundle or packed side; where there is none yet, it is made, and --name "
        "is needed",
    )
    parser.add_argument(
        "--from", required=True, dest="url", metavar="URL", help="the server's HTTP address"
    )
    parser.add_argument(
        "--name", default="", help="the name of the bundle on the server; default: its own"
    )

    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="how long the whole update may take; a server that does not answer is asked again "
        "until then; default 600",
    )

    add_token(parser, "for the server")
    parser.add_argument(
        "--trusted",
        type=Path,
        help="certificates of authorities to trust, PEM; default: those of the system",
    )
    add_public_key(parser)


def run(arguments: Namespace) -> int:
    """Update the bundle, and print the old and the new build."""
    done = update(
        arguments.url,
        arguments.bundle,
        name=arguments.name,
        timeout_s=arguments.timeout,
        token=token_of(arguments),
        trusted=arguments.trusted,
        public_key=arguments.public_key,
        retrying=lambda reason, left_s: say(f"note: {arguments.url}: {reason}; {_asking(left_s)}"),
    )
    if not done.changed:
        print(f"{arguments.bundle}  {done.old[:16]} is the latest")
        return 0

    old, received = done.old[:16] or "nothing", size(done.received_bytes)
    print(f"{arguments.bundle}  {old} -> {done.new[:16]}, {received} received")
    return 0


def _asking(left_s: float) -> str:
    """Say how long a server is asked again."""
    return f"asking again for {left_s:.0f} s (--timeout)"
