"""Connections to both doors: at most so many that the process keeps files to spare, the idlest go first."""

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
"""To each door, where the process may have so many files."""
ACCEPTED_AT_ONCE = 128
"""Connections that asyncio accepts before any of them is looked at."""

_SPARE_FILES = 128
"""For bundles, engines, logs and the event loop."""
_PERIOD_S = 0.2
_OWN_FILES = Path("/proc/self/fd")
_LAST_RECEIVED = slice(52, 56)
"""In Linux' tcp_info: milliseconds since the last data came in."""


def raise_file_limit() -> int:
    """Let this process have as many open files as it is allowed to; how many that are."""
    if resource is None:
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(
            ValueError, OSError
        ):  # a system may have a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return MOST_CONNECTIONS * 4 if soft == resource.RLIM_INFINITY else soft


def connections_for(files: int, most: int = MOST_CONNECTIONS) -> int:
    """Connections that each of the two doors may have in a process with so many files."""
    spare = min(_SPARE_FILES + ACCEPTED_AT_ONCE, files // 2)
    return max(1, min(most, (files - spare) // 2))


class Connection(Protocol):
    """What the crowd must know of one."""

    @property
    def waits_for_us(self) -> bool: ...
    def drop(self) -> None: ...


class Crowd:
    """The connections of a door in the order in which they moved last, the idlest first.

    Beyond `most`, the idlest of those for which the server has nothing to do is dropped. Belongs to one event loop.
    """

    def __init__(self, most: int, dropped: Callable[[], object]) -> None:
        self._most = most
        self._dropped = dropped
        self._connections: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def enter(self, connection: Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > self._most:
            idlest = next((each for each in self._connections if not each.waits_for_us), connection)
            self.leave(idlest)
            idlest.drop()
            self._dropped()

    def moved(self, connection: Connection) -> None:
        if self._connections.pop(connection, connection) is None:
            self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        self._connections.pop(connection, None)


class GrpcCrowd:
    """The same for gRPC, which accepts connections itself: its sockets are found among the files of this process.

    Where the system does not show them, gRPC's own limit is the only one.
    """

    def __init__(self, port: Callable[[], int], most: int, dropped: Callable[[], object]) -> None:
        self._port = port
        self._most = most
        self._dropped = dropped

    def __len__(self) -> int:
        return sum(1 for _ in self._sockets())

    async def watch(self) -> None:
        """Drop the idlest while there are too many, for ever."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            self.thin_out()

    def thin_out(self) -> None:
        """gRPC turns away what comes beyond the limit: an eighth of it is kept free."""
        room = self._most - self._most // 8
        if _open_files() <= room:
            return
        idle = sorted(
            ((_idle_ms(found), found.fileno()) for found in self._sockets()), reverse=True
        )
        for _, number in idle[: max(len(idle) - room, 0)]:
            with contextlib.suppress(OSError), _borrowed(number) as found:
                if _is_connection(found, self._port()):
                    found.shutdown(socket.SHUT_RDWR)
                    self._dropped()

    def _sockets(self) -> Generator[socket.socket]:
        port = self._port()
        names = [] if not _OWN_FILES.is_dir() else os.listdir(_OWN_FILES)
        for name in names:
            with contextlib.suppress(OSError), _borrowed(int(name)) as found:
                if _is_connection(found, port):
                    yield found


def _open_files() -> int:
    return len(os.listdir(_OWN_FILES)) if _OWN_FILES.is_dir() else 0


@contextlib.contextmanager
def _borrowed(number: int) -> Generator[socket.socket]:
    """A socket that somebody else closes. Raises OSError for another file."""
    found = socket.socket(fileno=number)
    try:
        yield found
    finally:
        found.detach()


def _is_connection(found: socket.socket, port: int) -> bool:
    if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        return False
    found.getpeername()  # OSError for the one that listens
    return found.getsockname()[1] == port


def _idle_ms(found: socket.socket) -> int:
    info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[_LAST_RECEIVED], "little")


def quiet_about_files(
    tell: Callable[..., object],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An exception handler for event loops: asyncio logs a trace for each connection that no file is left for."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), OSError) and "socket" in context:
            tell(text=f"{context.get('message', '')}: {context['exception']}")
        else:
            loop.default_exception_handler(context)

    return handle
