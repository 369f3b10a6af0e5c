"""A server that can be treated badly, callers that compare every answer, and what they got."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import irsplit
import irsplit.runtime
from benchmarks.link import PERFECT, Outages, Proxy
from irsplit.base.errors import IrsplitError
from irsplit.profiles import Link
from irsplit.runtime.serving.client.retry import RetryPolicy

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"
PATIENCE = RetryPolicy(
    attempts=4, backoff_s=0.02, breaker_failures=3, probe_s=0.1, longest_probe_s=0.5
)
SLACK_S = 0.25
NEAR = replace(PERFECT, rtt_ns=20 * 10**6)

Call = dict[str, Any]


@dataclass
class Count:
    """What became of the requests of one fault."""

    asked: int = 0
    server: int = 0
    device: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    late: int = 0
    worst_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Stage:
    """The example's bundles, what their calls must give, and a server that can be treated badly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle, self.lone = folder / "bundle", folder / "lone"
        irsplit.compile_model(
            DIGITS / "digits.onnx", self.bundle, ["bottleneck/relu"], autonomous=True
        )
        irsplit.compile_model(DIGITS / "digits.onnx", self.lone, ["down/relu"])
        self.served = folder / "served"
        """What the server reads, apart from what devices have."""
        shutil.copytree(self.bundle, self.served)
        pixels = (np.load(DIGITS / "test_images.npz")["images"] / 255).astype(np.float32)
        self.calls: list[Call] = [{"image": image[np.newaxis, np.newaxis]} for image in pixels[:64]]
        local = irsplit.LocalSession(self.bundle)
        self.expected = [local.run(call)["logits"] for call in self.calls]
        self.ports = {"grpc": _free_port(), "http": _free_port()}
        self.process = self.launch()

    def launch(
        self,
        log: int | None = None,
        level: str = "error",
        token: str = "",
        bundle: Path | None = None,
        limits: Sequence[str] = (),
        also: Sequence[Path] = (),
        prepare: Callable[[], None] | None = None,
    ) -> subprocess.Popen[str]:
        served = f"digits={self.served}" if bundle is None else str(bundle)
        ports = ["--port", str(self.ports["grpc"]), "--http-port", str(self.ports["http"])]
        command = [
            sys.executable,
            "-m",
            "irsplit",
            "serve",
            *ports,
            *limits,
            "--log-level",
            level,
            served,
        ]
        command += map(str, also)
        environment = os.environ | {"IRSPLIT_TOKEN": token}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment,
            preexec_fn=prepare,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening")
        return process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def restart(self) -> None:
        self.process = self.launch()

    @contextlib.contextmanager
    def instead(self, **options: Any) -> Generator[None]:
        """Another server process in the place of the usual one."""
        self.kill()
        self.process = self.launch(**options)
        try:
            yield
        finally:
            self.kill()
            self.restart()

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        match = re.search(r"VmRSS:\s+(\d+)", status)
        return 1024 * int(match[1]) if match else 0

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports['http']}/metrics", timeout=30
        ) as answer:
            match = re.search(rf"^irsplit_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(match[1]) if match else 0.0

    @contextlib.contextmanager
    def behind(
        self, over: Link, scheme: str = "grpc", outages: Outages = (), drip_s: float = 0.0
    ) -> Generator[tuple[str, Proxy]]:
        with Proxy(self.ports[scheme], over, 1, outages, drip_s).running() as proxy:
            yield f"{scheme}://127.0.0.1:{proxy.port}", proxy

    def url(self, scheme: str = "grpc") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}"


def ask(
    stage: Stage,
    url: str,
    count: Count,
    seconds: float,
    timeout_s: float = 2.0,
    pause_s: float = 0.01,
    token: str = "",
) -> None:
    """Four callers over one session, for some seconds."""
    ends = time.monotonic() + seconds
    with irsplit.runtime.connect(
        url, stage.bundle, name="digits", token=token, retry_policy=PATIENCE
    ) as session:

        def caller(offset: int) -> None:
            index = offset
            while time.monotonic() < ends:
                ask_once(
                    session, stage.calls[index % 64], stage.expected[index % 64], timeout_s, count
                )
                index += 4
                time.sleep(pause_s)

        threads = [threading.Thread(target=caller, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def ask_once(session: Any, call: Call, expected: Any, timeout_s: float, count: Count) -> None:
    began, path, wrong = time.monotonic(), "lost", False
    try:
        answer = session.infer(call, timeout_s=timeout_s)
        path, wrong = answer.path, not np.array_equal(answer.outputs["logits"], expected)
    except IrsplitError:
        path = "refused"
    except Exception as error:
        print(f"lost: {error!r}", file=sys.stderr)
    took = time.monotonic() - began
    late = took > timeout_s + SLACK_S
    with count.lock:
        count.worst_s = max(count.worst_s, took)
        count.asked += 1
        setattr(count, path, getattr(count, path) + 1)
        count.wrong += wrong
        count.late += late


@contextlib.contextmanager
def meanwhile(*steps: tuple[float, Callable[[], None]]) -> Generator[None]:
    """Do the steps, each so many seconds after the one before, while the block runs."""

    def work() -> None:
        for after_s, step in steps:
            time.sleep(after_s)
            step()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
