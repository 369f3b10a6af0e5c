"""One deadline for a whole exchange over a socket: name look-up, connection, TLS, data both ways.

The timeout of a socket begins anew with each operation, so that a peer that sends a byte now and
then is waited for without end. Here, each operation gets what is left until the deadline.
"""

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Address = tuple[Any, ...]
Addresses = list[tuple[int, Address]]
"""Pairs of family and address, as `socket.connect` takes it."""


class Deadline:
    """A moment by which everything must be done.

    Args:
        seconds: From now to the deadline.
        clock: Returns the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left, always more than 0.

        Raises:
            TimeoutError: No time is left.
        """
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class Resolver:
    """Looks up the addresses of a host. Thread-safe.

    A look-up cannot be interrupted, so it runs on a thread of its own. There is one at a time:
    while a name server does not answer, all callers wait for the same look-up.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._pending: Future[Addresses] | None = None

    def addresses(self, deadline: Deadline) -> Addresses:
        """Return the addresses of the host.

        Raises:
            TimeoutError: The name server does not answer before the deadline.
            OSError: The host does not exist.
        """
        if _is_numeric(self._host):
            return self._look_up()

        with self._lock:
            if self._pending is None or self._pending.done():
                self._pending = Future()
                threading.Thread(
                    target=self._run, args=(self._pending,), name="irsplit-names", daemon=True
                ).start()
            pending = self._pending
        return pending.result(deadline.left_s())

    def _run(self, pending: "Future[Addresses]") -> None:
        try:
            pending.set_result(self._look_up())
        except (OSError, UnicodeError) as error:
            pending.set_exception(error)

    def _look_up(self) -> Addresses:
        infos = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in infos]


def _is_numeric(host: str) -> bool:
    """Whether the host is an IP address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def connected(addresses: Addresses, deadline: Deadline) -> socket.socket:
    """Connect to the first address that accepts a connection.

    Args:
        addresses: The addresses to try, in order. Each gets its share of the time that is left.
        deadline: When to give up.

    Raises:
        TimeoutError: The time is up.
        OSError: No address accepts a connection; the error is that of the last address.
    """
    failure = OSError("the host has no address")
    for index, (family, address) in enumerate(addresses):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # One address that does not answer must not use up the time of the others.
            connection.settimeout(deadline.left_s() / (len(addresses) - index))
            connection.connect(address)
            # Requests are sent at once: waiting for more data would only delay them.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class TimedSocket:
    """The operations of a socket that `http.client` uses, each of them under `deadline`.

    The owner sets `deadline` anew for each exchange.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._readers = 0
        self._closing = False
        self.deadline = deadline

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Do the TLS handshake. Raises OSError, of which `ssl.SSLError` is a kind."""
        self._connection.settimeout(self.deadline.left_s())
        self._connection = context.wrap_socket(self._connection, server_hostname=host)

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._connection.settimeout(self.deadline.left_s())
            left = left[self._connection.send(left) :]

    def recv_into(self, buffer: Any) -> int:
        self._connection.settimeout(self.deadline.left_s())
        return self._connection.recv_into(buffer)

    def makefile(self, _: str) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def is_quiet(self) -> bool:
        """Whether an idle connection may be used again.

        It may not if the peer has closed it, or has sent something that nobody asked for.
        """
        if isinstance(self._connection, ssl.SSLSocket):
            return True  # whatever has arrived may belong to TLS itself

        # A read without waiting: only a quiet connection has nothing, neither data nor its end.
        try:
            self._connection.settimeout(0)
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the connection once its last reader is closed.

        The body of an answer may end only where its connection ends, so readers go on reading.
        """
        self._closing = True
        if not self._readers:
            self._connection.close()

    def reader_closed(self) -> None:
        """Note that a reader was closed; the last one closes the connection if that is due."""
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
    """The raw stream below the file that `TimedSocket.makefile` returns."""

    def __init__(self, connection: TimedSocket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._connection.reader_closed()
