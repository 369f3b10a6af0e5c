"""The emulated link at packet level: two network namespaces, and a relay that acts as the link.

python -m benchmarks.packets [-o docs/packets.md]     needs root and /dev/net/tun; about two minutes

What `benchmarks/link.py` gives a TCP proxy is the model's idea of TCP; here the kernel's own TCP
sees the losses and delays and reacts, so the congestion control matters, and is pinned and read
back from the socket. A namespace belongs to a thread and ends with it: nothing is left behind, and
nothing of the machine's own network is touched.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import platform
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import TypeVar

import numpy as np

import irsplit
import irsplit.runtime
from benchmarks.link import Channel
from benchmarks.tables import markdown
from irsplit.profiles import Link, link

ROOT = Path(__file__).parent.parent
NEAR, FAR = "10.77.0.1", "10.77.0.2"
"""Addresses of the client's and the server's side."""
QUEUE_S = 0.5
"""What the link's queue holds; packets beyond are dropped, as by a router."""

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_TCP_CONGESTION = 13
_TCP_INFO = 11
_TOTAL_RETRANSMITS = 100
"""Where struct tcp_info has them."""
_MTU = 1500
_NAME = "irsplit0"

_Result = TypeVar("_Result")


def refusal() -> str:
    """Why this cannot be done here; "" when it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "namespaces and TUN need root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun cannot be opened ({error.strerror})"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "no namespace can be made here"


def controls() -> list[str]:
    """Of reno, cubic and bbr, those that this kernel has."""
    known = (
        Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .read_text(encoding="utf-8")
        .split()
    )
    return [name for name in ("reno", "cubic", "bbr") if name in known]


class Side:
    """A network namespace with one interface, whose packets are read and written at `tun`."""

    def __init__(self, address: str, peer: str, control: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.tun = self.run(lambda: _enter(address, peer, control))

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something inside: its sockets and processes are of this namespace."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        os.close(self.tun)
        self._thread.shutdown()


def _enter(address: str, peer: str, control: str) -> int:
    """Give this thread a namespace of its own; the descriptor of its interface."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", _NAME.encode(), _IFF_TUN_NO_PI))
    for words in (
        ("ip", "address", "add", address, "peer", peer, "dev", _NAME),
        ("ip", "link", "set", _NAME, "mtu", str(_MTU), "up"),
        ("ip", "link", "set", "lo", "up"),
        # by the route: the namespace's default may only be what the machine allows to all
        ("ip", "route", "replace", peer, "dev", _NAME, "src", address, "congctl", control),
    ):
        subprocess.run(words, check=True, capture_output=True)
    return tun


class Relay:
    """Carries packets between two sides over a link, in real time."""

    def __init__(self, near: Side, far: Side, over: Link, seed: int) -> None:
        self._sides = (near.tun, far.tun)
        self._channels = (Channel(over, Random(seed)), Channel(over, Random(seed + 1), up=False))
        self._random = Random(seed + 2)
        self._due: list[tuple[float, int, int, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="relay")
        self.carried = 0
        self.lost = 0
        self.dropped = 0
        """By the full queue."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic()
            wait = min(max(self._due[0][0] - now, 0.0), 0.05) if self._due else 0.05
            readable, _, _ = select.select(self._sides, (), (), wait)
            for tun in readable:
                self._take(self._sides.index(tun))
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, target, packet = heapq.heappop(self._due)
                os.write(self._sides[target], packet)

    def _take(self, side: int) -> None:
        packet = os.read(self._sides[side], 2 * _MTU)
        now, channel = time.monotonic(), self._channels[side]
        if channel.busy_until_s > now + QUEUE_S:
            self.dropped += 1
            return
        delivery = channel.send(len(packet), now)
        if delivery is None:
            self.lost += 1
            return
        if delivery.damaged is not None:
            flipped = packet[delivery.damaged] ^ (1 << self._random.randrange(8))
            packet = packet[: delivery.damaged] + bytes([flipped]) + packet[delivery.damaged + 1 :]
        self.carried += 1
        heapq.heappush(self._due, (delivery.at_s, self.carried, 1 - side, packet))


@contextmanager
def linked(over: Link, control: str, seed: int = 1) -> Generator[tuple[Side, Side, Relay]]:
    """The client's side, the server's side and the relay between them."""
    near, far = Side(NEAR, FAR, control), Side(FAR, NEAR, control)
    relay = Relay(near, far, over, seed)
    relay.start()
    try:
        yield near, far, relay
    finally:
        relay.stop()
        near.close()
        far.close()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One bulk transfer as the kernel did it."""

    control: str
    bit_s: float
    retransmits: int
    received: bytes


def transfer(near: Side, far: Side, data: bytes) -> Transfer:
    """Send `data` over one connection from the near to the far side."""
    listener = far.run(lambda: socket.create_server((FAR, 0)))
    port = listener.getsockname()[1]

    def receive() -> bytes:
        connection, _ = listener.accept()
        with connection:
            parts = [*iter(lambda: connection.recv(1 << 16), b"")]
            connection.sendall(b"!")
        return b"".join(parts)

    def send() -> tuple[str, float, int]:
        began = time.monotonic()
        with socket.create_connection((FAR, port)) as connection:
            control = (
                connection.getsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, 16)
                .rstrip(b"\0")
                .decode()
            )
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        return (
            control,
            time.monotonic() - began,
            struct.unpack_from("=I", info, _TOTAL_RETRANSMITS)[0],
        )

    with listener, ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receive)
        control, seconds, retransmits = near.run(send)
        received = receiving.result()
    return Transfer(control, 8 * len(data) / seconds, retransmits, received)


def calls_over(near: Side, far: Side, bundle: Path, count: int) -> list[float]:
    """Seconds of calls of a session over HTTP, in the thread that owns it; answers are compared."""
    image = (
        np.load(ROOT / "examples" / "digits" / "test_images.npz")["images"][0].astype(np.float32)
        / 255
    )
    call = {"image": image[np.newaxis, np.newaxis]}
    expected = irsplit.LocalSession(bundle).run(call)["logits"]
    serve = (
        "serve",
        "--host",
        FAR,
        "--insecure",
        "--port",
        "0",
        "--http-port",
        "0",
        "--log-level",
        "error",
    )
    command = [sys.executable, "-m", "irsplit", *serve, f"digits={bundle}"]
    process = far.run(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    )
    with process:
        assert process.stdout is not None
        found = re.search(r"http://(\S+)", process.stdout.readline())
        assert found is not None

        def ask() -> list[float]:
            times: list[float] = []
            with irsplit.runtime.connect(
                f"http://{found[1]}", bundle, name="digits", timeout_s=20.0
            ) as session:
                for _ in range(count):
                    answer = session.infer(call)
                    assert answer.path == "server"
                    assert np.array_equal(answer.outputs["logits"], expected)
                    times.append(answer.seconds)
            return times

        try:
            return near.run(ask)
        finally:
            process.terminate()


LINKS = {
    "10 Mbit/s, 40 ms, 1 % loss": link("wifi,up=10Mbit/s,down=10Mbit/s,rtt=40ms,loss=1%"),
    "the paper's": link("ushakov-1mbit"),
}
_PAGE = """# The link at packet level

Made by `python -m benchmarks.packets -o docs/packets.md` on {machine}: **measured**, mean of {runs}
transfers and median of {calls} calls each. Two network namespaces, a relay over TUN between them
that loses and delays packets, and the kernel's own TCP on both ends, its congestion control pinned
and read back from the socket. The default of this machine is `{default}`.

{table}

A call is the example cut at `down/relu`, a frame of about 3.4 kB, over HTTP. Random loss halves the
window of reno and cubic as if it were congestion; bbr looks at rate and round trip. A client cannot
choose what its server's kernel does, so its estimates are of what really arrives.
"""


def page(runs: int, calls: int) -> str:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        bundle = Path(folder) / "digits"
        irsplit.compile_model(ROOT / "examples" / "digits" / "digits.onnx", bundle, ["down/relu"])
        for name, over in LINKS.items():
            data = Random(0).randbytes(over.up_bit_s // 8)
            for control in controls():
                with linked(over, control) as (near, far, relay):
                    found = [transfer(near, far, data) for _ in range(runs)]
                    assert all(each.received == data for each in found)
                    times = calls_over(near, far, bundle, calls)
                    lost = 100 * relay.lost / (relay.lost + relay.carried)
                rate, again = (
                    mean(each.bit_s for each in found),
                    mean(each.retransmits for each in found),
                )
                rows.append(
                    [
                        name,
                        found[0].control,
                        f"{rate / 1e6:.2f}",
                        f"{again:.0f}",
                        f"{lost:.1f} %",
                        f"{1000 * median(times):.0f}",
                    ]
                )
                print(rows[-1], file=sys.stderr, flush=True)
    head = ["link", "congestion control", "goodput Mbit/s", "sent again", "packets lost", "call ms"]
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="utf-8").strip()
    machine = (
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    )
    return _PAGE.format(
        machine=machine, runs=runs, calls=calls, default=default, table=markdown(head, rows)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="write the page here; default: print it")
    parser.add_argument(
        "--runs", type=int, default=5, help="transfers of a second's bytes each; default 5"
    )
    parser.add_argument("--calls", type=int, default=20, help="calls of a session; default 20")
    arguments = parser.parse_args()
    if refusal():
        print(f"not here: {refusal()}", file=sys.stderr)
        return 2
    text = page(arguments.runs, arguments.calls)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
