"""irsplit update BUNDLE --from URL"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.log import say
from irsplit.commands.output import size
from irsplit.commands.public_key import add_public_key
from irsplit.commands.token import add_token, token_of
from irsplit.runtime.serving.client.update import update

EXAMPLES = """
irsplit update build/digits --from http://server:8000
irsplit update build/digits --from https://server:8000 --name digits --token-file token --trusted ca.pem
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "bundle",
        type=Path,
        help="the device's bundle or packed side; made with --name where there is none yet",
    )
    parser.add_argument(
        "--from", required=True, dest="url", metavar="URL", help="the server's HTTP address"
    )
    parser.add_argument(
        "--name", default="", help="the bundle's name at the server; default: its own"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="of the whole update; for so long a server that does not answer is asked again; default 600",
    )
    add_token(parser, "for the server")
    parser.add_argument(
        "--trusted", type=Path, help="certificates to trust, PEM; default: the system's"
    )
    add_public_key(parser)


def run(arguments: Namespace) -> int:
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
    return f"asking again for {left_s:.0f} s (--timeout)"
