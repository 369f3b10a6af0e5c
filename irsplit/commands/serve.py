"""irsplit serve BUNDLE [BUNDLE ...]: serve the server side of bundles."""

import asyncio
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import ServeError
from irsplit.commands.engine import add_engine, engine_options
from irsplit.commands.token import add_token, token_of
from irsplit.compilation.delta import delta
from irsplit.runtime.serving.server.batching import Batching
from irsplit.runtime.serving.server.logs import configure
from irsplit.runtime.serving.server.served import Limits

try:
    from irsplit.runtime.serving.server.server import Server, ServerOptions, serve
except ImportError as missing:
    raise ServeError(
        f"serving needs more packages ({missing}); pip install 'irsplit[serve]'"
    ) from missing

EXAMPLES = """
irsplit serve build/digits
irsplit serve digits=build/old digits=build/new --port 8001 --http-port 8000
irsplit serve build/digits --host 0.0.0.0 --token-file token \
--tls-cert server.pem --tls-key server.key
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "bundles",
        nargs="+",
        metavar="[NAME=]BUNDLE",
        help="folders that 'irsplit compile' wrote, or packed sides; several of one name are its "
        "versions",
    )

    # Where the server listens.
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1"
    )
    parser.add_argument(
        "--port", type=int, default=8001, help="port of gRPC; 0 takes a free one; default 8001"
    )
    parser.add_argument(
        "--http-port", type=int, default=8000, help="port of HTTP; 0 takes a free one; default 8000"
    )
    parser.add_argument("--no-http", action="store_true", help="serve gRPC only")

    # How much it runs at a time.
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="how many requests run at a time; default: the CPUs",
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=64,
        help="how many requests may wait, before others are refused; default 64",
    )
    add_engine(parser)
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="run up to N waiting frames at once; default 1",
    )
    parser.add_argument(
        "--batch-delay-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="how long a frame waits for others of its batch; default 0",
    )

    # What a client may ask of it.
    parser.add_argument(
        "--max-frame-bytes",
        type=int,
        default=64 << 20,
        help="largest frame that is taken; default 64 MiB",
    )
    parser.add_argument(
        "--max-decoded-bytes",
        type=int,
        default=256 << 20,
        help="largest content of a frame; default 256 MiB",
    )
    parser.add_argument(
        "--max-rows",
        type=int,
        default=64,
        metavar="N",
        help="largest batch in one frame; default 64",
    )
    parser.add_argument(
        "--max-working-bytes",
        type=int,
        default=2 << 30,
        metavar="N",
        help="memory that all runs take at a time, as the bundle estimates it; default 2 GiB",
    )
    parser.add_argument(
        "--max-connections",
        type=int,
        default=4096,
        metavar="N",
        help="connections to each port; above that the idlest are closed; default 4096",
    )
    parser.add_argument(
        "--max-held-bytes",
        type=int,
        default=1 << 30,
        help="memory of all messages under way at a time; default 1 GiB",
    )
    parser.add_argument(
        "--max-sessions",
        type=int,
        default=256,
        help="sessions with stateful bundles at a time; default 256",
    )
    parser.add_argument(
        "--session-idle",
        type=float,
        default=300.0,
        metavar="S",
        help="how long a session may be idle before it expires; default 300",
    )

    # Who may ask.
    add_token(parser, "that clients must send")
    parser.add_argument("--tls-cert", type=Path, help="certificate chain of the server, PEM")
    parser.add_argument("--tls-key", type=Path, help="its private key, PEM")
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond loopback without token and TLS"
    )

    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="S",
        help="how long requests may take to finish when the server stops; default 10",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least level of what is logged; default info",
    )


def run(arguments: Namespace) -> int:
    """Serve until the server is told to stop."""
    configure(arguments.log_level)
    limits = Limits(
        frame_bytes=arguments.max_frame_bytes,
        decoded_bytes=arguments.max_decoded_bytes,
        held_bytes=arguments.max_held_bytes,
        rows=arguments.max_rows,
        working_bytes=arguments.max_working_bytes,
        sessions=arguments.max_sessions,
        session_idle_s=arguments.session_idle,
    )

    options = ServerOptions(
        host=arguments.host,
        port=arguments.port,
        http_port=None if arguments.no_http else arguments.http_port,
        workers=arguments.workers,
        queue=arguments.queue,
        engine=engine_options(arguments),
        batching=Batching(arguments.batch, arguments.batch_delay_ms / 1000),
        limits=limits,
        token=token_of(arguments),
        certificate=arguments.tls_cert,
        key=arguments.tls_key,
        insecure=arguments.insecure,
        grace_s=arguments.grace,
        connections=arguments.max_connections,
    )

    options.check()
    asyncio.run(serve(arguments.bundles, options, _announce, delta))
    return 0


def _announce(server: Server) -> None:
    """Print the addresses, once the ports are open."""
    host = server.options.host
    http = "" if server.http_port is None else f" http://{host}:{server.http_port}"
    print(f"listening on grpc://{host}:{server.port}{http}", flush=True)
