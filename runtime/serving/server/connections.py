"""Limits the connections to both frontends, so that the process keeps files to spare.

When there are too many connections, those that have been idle for the longest are closed first.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol

try:
    import resource
except ImportError:  # Windows has neither the limit nor the module
    resource = None

MOST_CONNECTIONS = 4096
"""Connections to each frontend, where the process may have so many files."""
ACCEPTED_AT_ONCE = 128
"""Connections that asyncio accepts before any of them is looked at."""

_SPARE_FILES = 128
"""Files for bundles, engines, logs and the event loop."""
_PERIOD_S = 0.2
_OWN_FILES = Path("/proc/self/fd")
_TCP_INFO_BYTES = 104
_LAST_RECEIVED = slice(52, 56)
"""In Linux' tcp_info: milliseconds since data was last received."""


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as the system allows, and return it."""
    if resource is None:
        return 512

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A system may have a lower limit than it says.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard

    return MOST_CONNECTIONS * 4 if soft == resource.RLIM_INFINITY else soft


def connections_for(files: int, most: int = MOST_CONNECTIONS) -> int:
    """Connections that each of the two frontends may have in a process with so many `files`."""
    spare = min(_SPARE_FILES + ACCEPTED_AT_ONCE, files // 2)
    return max(1, min(most, (files - spare) // 2))


class Connection(Protocol):
    """What a `ConnectionLimiter` needs of a connection."""

    @property
    def awaits_server(self) -> bool:
        """Whether the server has the next step to do, so that the connection is not idle."""
        ...

    def drop(self) -> None:
        """Close the connection at once."""
        ...


class ConnectionLimiter:
    """Keeps the connections of a frontend in the order of their last activity.

    Beyond `most`, the one that has been idle for the longest is dropped; connections for which the
    server is working are spared. Belongs to one event loop.

    Args:
        most: Connections to keep at most.
        dropped: Called for each connection that is dropped.
    """

    def __init__(self, most: int, dropped: Callable[[], object]) -> None:
        self._most = most
        self._dropped = dropped
        self._connections: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """Take in a new connection, and drop the idlest if there are too many now."""
        self._connections[connection] = None
        if len(self._connections) <= self._most:
            return

        # If the server works for all of them, the new one has to go.
        idle = (other for other in self._connections if not other.awaits_server)
        idlest = next(idle, connection)
        self.remove(idlest)
        idlest.drop()
        self._dropped()

    def touch(self, connection: Connection) -> None:
        """Note activity on a connection; one that was removed stays so."""
        if self._connections.pop(connection, connection) is None:
            self._connections[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)


class GrpcConnectionLimiter:
    """A `ConnectionLimiter` for gRPC, which accepts connections itself.

    Its sockets are found among the open files of this process. Where the system does not show them,
    gRPC's own limit is the only one.

    Args:
        port: Returns the port that gRPC listens on.
        most: gRPC's limit, beyond which it refuses connections.
        dropped: Called for each connection that is dropped.
    """

    def __init__(self, port: Callable[[], int], most: int, dropped: Callable[[], object]) -> None:
        self._port = port
        self._most = most
        self._dropped = dropped

    def __len__(self) -> int:
        return sum(1 for _ in self._sockets())

    async def watch(self) -> None:
        """Drop idle connections whenever there are too many; runs for ever."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            self.drop_idlest()

    def drop_idlest(self) -> None:
        """Drop idle connections until an eighth of the limit is free for new ones."""
        target = self._most - self._most // 8
        if _open_files() <= target:
            return

        idle = sorted(((_idle_ms(sock), sock.fileno()) for sock in self._sockets()), reverse=True)
        for _, number in idle[: max(len(idle) - target, 0)]:
            # A file may have been closed, or its number given to another one, meanwhile.
            with contextlib.suppress(OSError), _borrowed(number) as sock:
                if _is_connection(sock, self._port()):
                    sock.shutdown(socket.SHUT_RDWR)
                    self._dropped()

    def _sockets(self) -> Generator[socket.socket]:
        """The connections to the port, each valid until the next one is asked for."""
        port = self._port()
        names = os.listdir(_OWN_FILES) if _OWN_FILES.is_dir() else []
        for name in names:
            with contextlib.suppress(OSError), _borrowed(int(name)) as sock:
                if _is_connection(sock, port):
                    yield sock


def _open_files() -> int:
    return len(os.listdir(_OWN_FILES)) if _OWN_FILES.is_dir() else 0


@contextlib.contextmanager
def _borrowed(number: int) -> Generator[socket.socket]:
    """A socket that somebody else closes. Raises OSError for a file that is no socket."""
    sock = socket.socket(fileno=number)
    try:
        yield sock
    finally:
        sock.detach()


def _is_connection(sock: socket.socket, port: int) -> bool:
    """Whether a socket is a connection to this port. Raises OSError for one that listens."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False

    sock.getpeername()
    return sock.getsockname()[1] == port


def _idle_ms(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(info[_LAST_RECEIVED], "little")


def quiet_about_files(
    report: Callable[..., object],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An exception handler for event loops that calls `report` when no file is left.

    Without it, asyncio logs a trace for every connection that it cannot accept.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), OSError) and "socket" in context:
            report(text=f"{context.get('message', '')}: {context['exception']}")
        else:
            loop.default_exception_handler(context)

    return handle
