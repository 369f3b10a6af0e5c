"""Existing engines as processes on this machine, each running what `irsplit export` wrote."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from irsplit.export import export_bundle
from irsplit.runtime.serving.client.transport import Credentials, open_transport

ROOT = Path(__file__).parent.parent.parent
_START_S = 240


@dataclass(frozen=True)
class Running:
    """An engine that answers at `urls` (by scheme); `checked`: answers have our checksum."""

    urls: dict[str, str]
    checked: bool


def ray_serve(
    bundles: dict[str, Path], folder: Path
) -> "contextlib.AbstractContextManager[Running]":
    ((name, bundle),) = bundles.items()
    export_bundle(bundle, "ray-serve", folder / "app", name, replicas=2)
    running = _running(checked=True)
    config = folder / "app" / "config.yaml"
    text = config.read_text()
    for default, scheme in (("8000", "http"), ("9000", "grpc")):
        text = text.replace(default, running.urls[scheme].rpartition(":")[2])
    config.write_text(text)
    ray_serve = "from ray.serve.scripts import cli; cli()"
    return _engine([sys.executable, "-c", ray_serve, "run", "config.yaml"], folder / "app", running)


def triton(bundles: dict[str, Path], folder: Path) -> "contextlib.AbstractContextManager[Running]":
    """The server that pytriton brings along, with its python backend for our Python."""
    for name, bundle in bundles.items():
        export_bundle(bundle, "triton", folder / "models", name, replicas=1)
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    backend = folder / "backends" / "python"
    shutil.copytree(installed / "tritonserver" / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = (
        installed / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    )
    if not stub.is_file():
        pytest.skip(f"PYTRITON HAS NO STUB FOR PYTHON {version}: Triton was not tried")
    shutil.copy(stub, backend)
    running = _running(checked=False)
    ports = {scheme: url.rpartition(":")[2] for scheme, url in running.urls.items()}
    command = [str(installed / "tritonserver" / "bin" / "tritonserver"), "--allow-metrics=false"]
    command += [f"--model-repository={folder / 'models'}", f"--backend-directory={backend.parent}"]
    command += [f"--http-port={ports['http']}", f"--grpc-port={ports['grpc']}"]
    return _engine(
        command, folder, running, LD_LIBRARY_PATH=str(installed.parent / "nvidia_pytriton.libs")
    )


def kserve(bundles: dict[str, Path], folder: Path) -> "contextlib.AbstractContextManager[Running]":
    ((name, bundle),) = bundles.items()
    export_bundle(bundle, "kserve", folder / "service", name)
    running = _running(checked=True)
    ports = {scheme: url.rpartition(":")[2] for scheme, url in running.urls.items()}
    command = [sys.executable, "model.py", f"--model_name={name}"]
    command += [f"--http_port={ports['http']}", f"--grpc_port={ports['grpc']}"]
    return _engine(command, folder / "service", running)


ENGINES: dict[
    str, tuple[str, Callable[[dict[str, Path], Path], "contextlib.AbstractContextManager[Running]"]]
] = {
    "ray-serve": ("ray", ray_serve),
    "triton": ("pytriton", triton),
    "kserve": ("kserve", kserve),
}
"""By name: the module that must be installed (`make engines`), and how to start it."""


def skip_without(name: str) -> None:
    module, _ = ENGINES[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module.upper()} NOT INSTALLED (make engines): nothing was run on {name}")


def _running(checked: bool) -> Running:
    with contextlib.ExitStack() as stack:
        sockets = {
            scheme: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for scheme in ("grpc", "http")
        }
        ports = {scheme: listener.getsockname()[1] for scheme, listener in sockets.items()}
    return Running(
        {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}, checked
    )


@contextlib.contextmanager
def _engine(
    command: Sequence[str], folder: Path, running: Running, **variables: str
) -> Generator[Running]:
    """Run the engine until the block ends, in a folder with a short name: Ray has sockets there."""
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as home:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(pytest.__file__).parent.parent)]),
            "HOME": home,
            "RAY_TMPDIR": home,
            "RAY_USAGE_STATS_ENABLED": "0",
            **variables,
        }
        log = Path(home) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(process, running, log)
            yield running
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", running: Running, log: Path) -> None:
    transport = open_transport(running.urls["grpc"], Credentials())
    deadline = time.monotonic() + _START_S
    try:
        while not transport.ready(1.0):
            assert process.poll() is None, log.read_text(errors="replace")[-5000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-5000:]
            time.sleep(0.1)
    finally:
        transport.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
