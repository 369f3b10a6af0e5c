"""One deadline for everything that belongs to an exchange over a socket: look-up, connection, TLS, sending, receiving.

A socket's own timeout begins anew with each operation, so that a peer that sends a byte now and then is waited for
without end. Here the timeout of each operation is what is left until the deadline.
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
    """A moment until which everything must be done."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def left_s(self) -> float:
        """Seconds that are left, more than 0. Raises TimeoutError when there are none."""
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class Resolver:
    """Looks a host's addresses up on a thread, since nothing else ends a look-up early. Thread-safe.

    There is one look-up at a time: whoever comes while a name server does not answer waits for the same one.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._pending: Future[Addresses] | None = None

    def addresses(self, deadline: Deadline) -> Addresses:
        """Raises TimeoutError, OSError for a host that there is not."""
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
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def connected(addresses: Addresses, deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one. Each has its share of the time that is left.

    Raises OSError of the last one, TimeoutError.
    """
    failure: OSError = OSError("the host has no address")
    for index, (family, address) in enumerate(addresses):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.left_s() / (len(addresses) - index))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class TimedSocket:
    """What `http.client` uses of a socket, every operation under `deadline`, which the next exchange sets anew."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._readers = 0
        self._closing = False
        self.deadline = deadline

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Raises OSError (`ssl.SSLError` is one)."""
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
        """Whether the peer has neither closed the connection nor sent what nobody asked for."""
        if isinstance(self._connection, ssl.SSLSocket):
            return True  # what has arrived may be TLS's own
        try:
            self._connection.settimeout(0)
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close it when its last reader is closed: a body may end with its connection."""
        self._closing = True
        if not self._readers:
            self._connection.close()

    def reader_closed(self) -> None:
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
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
