"""TLS and bearer token from end to end: right answers for those who may, none for the others."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import irsplit
import irsplit.runtime
from irsplit.cli import main
from irsplit.delta import write_delta
from irsplit.errors import RemoteError, ServeError
from irsplit.runtime.serving.exchange import Patience
from irsplit.runtime.serving.server import Server, ServerOptions, serving

TOKEN = "correct horse battery staple"
ONCE = Patience(attempts=1)


@dataclass(frozen=True)
class Identity:
    """A certificate for localhost that signs itself, and its key."""

    certificate: Path
    key: Path


def identity(folder: Path) -> Identity:
    if shutil.which("openssl") is None:
        pytest.skip("OPENSSL NOT INSTALLED: TLS was not tried")
    made = Identity(folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return identity(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its device cannot finish alone: without the server there is no answer."""
    folder = tmp_path_factory.mktemp("bundles") / "digits"
    model = Path(__file__).parent.parent.parent / "examples" / "digits" / "digits.onnx"
    irsplit.compile_model(model, folder, ["bottleneck/relu"])
    return folder


@pytest.fixture(scope="module")
def server(mine: Identity, bundle: Path) -> Iterator[Server]:
    """Open to other machines, which only TLS and token together allow."""
    options = ServerOptions(
        host="0.0.0.0", port=0, http_port=0, token=TOKEN, certificate=mine.certificate, key=mine.key
    )
    with serving([f"digits={bundle}"], options, write_delta) as server:
        yield server


def url(server: Server, scheme: str) -> str:
    return f"{scheme}://localhost:{server.port if scheme.startswith('grpc') else server.http_port}"


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_answers_over_tls_with_the_token(scheme, server, mine, bundle, calls):
    local = irsplit.LocalSession(bundle)
    with irsplit.runtime.connect(
        url(server, scheme), bundle, name="digits", token=TOKEN, trusted=mine.certificate
    ) as session:
        for call in calls["onnx"][:4]:
            np.testing.assert_array_equal(session.infer(call).outputs["logits"], local.run(call)["logits"])


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(
    ("token", "message"), [("", "token is missing or wrong"), ("guess", "token is missing or wrong")]
)
def test_nobody_gets_in_without_the_token(scheme, token, message, server, mine, bundle, calls):
    with (
        irsplit.runtime.connect(
            url(server, scheme), bundle, name="digits", token=token, trusted=mine.certificate, patience=ONCE
        ) as session,
        pytest.raises(RemoteError, match="token is missing or wrong"),
    ):
        session.infer(calls["onnx"][0])


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_server_of_somebody_else_gets_nothing(scheme, server, bundle, calls, tmp_path):
    other = identity(tmp_path)
    with (
        irsplit.runtime.connect(
            url(server, scheme), bundle, name="digits", token=TOKEN, trusted=other.certificate, patience=ONCE
        ) as session,
        pytest.raises(RemoteError, match=r"(?i)certificate|handshake|ssl"),
    ):
        session.infer(calls["onnx"][0])


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_plain_text_is_not_answered(scheme, server, bundle, calls):
    with (
        irsplit.runtime.connect(url(server, scheme), bundle, name="digits", token=TOKEN, patience=ONCE) as session,
        pytest.raises(RemoteError),
    ):
        session.infer(calls["onnx"][0])


def test_updates_over_tls(server, mine, bundle, tmp_path):
    asked = {"name": "digits", "trusted": mine.certificate}
    done = irsplit.runtime.update(url(server, "https"), tmp_path / "device", token=TOKEN, **asked)
    assert (tmp_path / "device" / "device" / "model.onnx").read_bytes() == (bundle / "device/model.onnx").read_bytes()
    assert done.changed
    with pytest.raises(RemoteError, match="token"):
        irsplit.runtime.update(url(server, "https"), tmp_path / "other", **asked)


@pytest.mark.parametrize(("certificate", "key"), [("missing", "key"), ("text", "key"), ("certificate", "text")])
def test_certificates_that_are_none_are_refused(certificate, key, mine, tmp_path):
    (tmp_path / "text").write_text("no PEM")
    files = {
        "certificate": mine.certificate,
        "key": mine.key,
        "missing": tmp_path / "missing",
        "text": tmp_path / "text",
    }
    with pytest.raises(ServeError, match="give PEM files that go together"):
        ServerOptions(certificate=files[certificate], key=files[key]).check()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--token-file", "token"],
        ["--tls-cert", "certificate.pem", "--tls-key", "key.pem"],
    ],
    ids=["nothing", "token alone", "TLS alone"],
)
def test_command_does_not_listen_to_other_machines_unprotected(words, mine, bundle, capsys, monkeypatch):
    monkeypatch.chdir(mine.certificate.parent)
    Path("token").write_text(TOKEN)
    assert main(["serve", str(bundle), "--host", "0.0.0.0", *words]) == 2
    assert "--insecure" in capsys.readouterr().err


def test_requests_sent_ahead_of_their_answers_are_few(bundle):
    with (
        serving([f"digits={bundle}"], ServerOptions(port=0, http_port=0)) as server,
        socket.create_connection(("127.0.0.1", server.http_port), 10) as connection,
    ):
        one = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
        connection.sendall(5 * one)
        answers = b""
        while answers.count(b"200 OK") < 5:
            answers += connection.recv(65536)
        connection.sendall(1000 * one)
        answers = b""
        while part := connection.recv(65536):
            answers += part
        assert b"400 Bad Request" in answers
        assert answers.count(b"200 OK") < 1000


def test_a_method_whose_name_is_no_text_does_not_end_the_server(bundle, calls):
    """One such request ends a server of grpc.aio."""
    with (
        serving([f"digits={bundle}"], ServerOptions(port=0, http_port=None)) as server,
        irsplit.runtime.connect(f"grpc://localhost:{server.port}", bundle, name="digits") as session,
    ):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
                connection.sendall(PREFACE + request(b"/inf\xeerence.GRPCInferenceService/ServerReady"))
                connection.settimeout(0.5)
                with contextlib.suppress(OSError):
                    while connection.recv(4096):
                        pass
            assert session.infer(calls["onnx"][0], timeout_s=60).path == "server"


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def request(path: bytes) -> bytes:
    """An empty gRPC request in HTTP/2, its header fields as literals."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x", b"te": b"trailers"}
    fields[b"content-type"] = b"application/grpc"
    block = b"".join(bytes([0, len(key)]) + key + bytes([len(value)]) + value for key, value in fields.items())
    head = len(block).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1]) + block
    return head + bytes([0, 0, 5, 0, 1, 0, 0, 0, 1]) + bytes(5)
