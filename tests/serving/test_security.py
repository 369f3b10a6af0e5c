"""TLS and bearer token from end to end: right answers for those who may, none for the others."""

import contextlib
import http.client
import logging
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
import irsplit.runtime
from irsplit.base.errors import RemoteError, ServeError
from irsplit.cli import main
from irsplit.compilation.delta import write_delta
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving
from tools import needs

TOKEN = "correct horse battery staple"
ONCE = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class Identity:
    """A certificate that signs itself, and its key."""

    certificate: Path
    key: Path


def identity(folder: Path, host: str = "localhost") -> Identity:
    needs("openssl")
    made = Identity(folder / "certificate.pem", folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += [
        "-keyout",
        str(made.key),
        "-out",
        str(made.certificate),
        "-days",
        "2",
        "-subj",
        f"/CN={host}",
    ]
    subprocess.run(
        [*command, "-addext", f"subjectAltName=DNS:{host}"], check=True, capture_output=True
    )
    return made


EXPIRED = """
[ca]
default_ca = this
[this]
database = index
new_certs_dir = .
rand_serial = yes
policy = names
copy_extensions = copy
[names]
commonName = supplied
"""


def expired_identity(folder: Path) -> Identity:
    """As `identity`, until some years ago: `openssl req` makes none of those."""
    made = identity(folder)
    (folder / "index").touch()
    (folder / "config").write_text(EXPIRED)
    ask = ["openssl", "req", "-new", "-key", "key.pem", "-out", "request", "-subj", "/CN=localhost"]
    sign = [
        "openssl",
        "ca",
        "-selfsign",
        "-batch",
        "-config",
        "config",
        "-keyfile",
        "key.pem",
        "-in",
        "request",
    ]
    sign += [
        "-out",
        "certificate.pem",
        "-startdate",
        "20200101000000Z",
        "-enddate",
        "20200102000000Z",
        "-md",
        "sha256",
    ]
    for command in ([*ask, "-addext", "subjectAltName=DNS:localhost"], [*sign, "-notext"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
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
            np.testing.assert_array_equal(
                session.infer(call).outputs["logits"], local.run(call)["logits"]
            )


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(
    ("token", "message"),
    [("", "token is missing or wrong"), ("guess", "token is missing or wrong")],
)
def test_nobody_gets_in_without_the_token(scheme, token, message, server, mine, bundle, calls):
    with (
        irsplit.runtime.connect(
            url(server, scheme),
            bundle,
            name="digits",
            token=token,
            trusted=mine.certificate,
            retry_policy=ONCE,
        ) as session,
        pytest.raises(RemoteError, match="token is missing or wrong"),
    ):
        session.infer(calls["onnx"][0])


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_server_of_somebody_else_gets_nothing(scheme, server, bundle, calls, tmp_path):
    other = identity(tmp_path)
    with (
        irsplit.runtime.connect(
            url(server, scheme),
            bundle,
            name="digits",
            token=TOKEN,
            trusted=other.certificate,
            retry_policy=ONCE,
        ) as session,
        pytest.raises(RemoteError, match=r"(?i)certificate|handshake|ssl"),
    ):
        session.infer(calls["onnx"][0])


def failure(address: str, bundle: Path, call: Any, **access: Any) -> str:
    """What a client says that gets no answer: one line."""
    with (
        irsplit.runtime.connect(
            address, bundle, name="digits", timeout_s=20, retry_policy=ONCE, **access
        ) as session,
        pytest.raises(RemoteError) as caught,
    ):
        session.infer(call)
    assert str(caught.value).isprintable()
    return str(caught.value)


def logged(server_log: list[logging.LogRecord], event: str) -> bool:
    """Whether the server logs it, now or soon: the client may hear first."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if any(record.getMessage() == event for record in server_log):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(("scheme", "hint"), [("grpc", "give grpcs://"), ("http", "give https://")])
def test_plain_text_is_not_answered(scheme, hint, server, bundle, calls, server_log):
    assert hint in failure(url(server, scheme), bundle, calls["onnx"][0], token=TOKEN)
    assert scheme == "grpc" or logged(
        server_log, "TLS handshake failed"
    )  # gRPC has a log of its own


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: identity(folder, "example.org"), r"(?i)hostname"),
        (expired_identity, "certificate has expired"),
    ],
    ids=["another name", "expired"],
)
def test_certificates_of_another_name_or_time_are_not_believed(
    scheme, make, reason, bundle, calls, tmp_path, server_log
):
    made = make(tmp_path)
    options = ServerOptions(port=0, http_port=0, certificate=made.certificate, key=made.key)
    with serving([f"digits={bundle}"], options) as server:
        told = failure(url(server, scheme), bundle, calls["onnx"][0], trusted=made.certificate)
        assert re.search(reason, told)
        assert scheme == "grpcs" or logged(server_log, "TLS handshake failed")


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_that_signed_itself_is_believed_only_when_it_was_given(
    scheme, server, bundle, calls
):
    assert "give it as a certificate to trust" in failure(
        url(server, scheme), bundle, calls["onnx"][0]
    )


@pytest.mark.parametrize(
    ("scheme", "hint"),
    [
        ("grpcs", "the server does not speak TLS there"),
        ("https", "the server does not speak TLS there"),
        ("grpc", "no gRPC is spoken there"),
        ("http", "no HTTP is spoken there"),
    ],
)
def test_a_client_that_took_another_door_is_told_so(scheme, hint, mine, bundle, calls):
    with serving([f"digits={bundle}"], ServerOptions(port=0, http_port=0)) as server:
        port = server.http_port if scheme in ("https", "grpc") else server.port
        access = {"trusted": mine.certificate} if scheme.endswith("s") else {}
        assert hint in failure(f"{scheme}://localhost:{port}", bundle, calls["onnx"][0], **access)


@pytest.mark.parametrize(
    ("address", "access", "reason"),
    [
        (
            "grpcs://localhost:1",
            {"trusted": Path("nothing.pem")},
            "nothing.pem: no certificates to trust",
        ),
        ("https://localhost:1", {"trusted": Path(__file__)}, "no certificates to trust"),
        ("http://localhost:1", {"token": "with\nnewline"}, "visible ASCII"),
        ("http://localhost:port", {}, "not the address of a server"),
        ("grpc://", {}, "not the address of a server"),
        ("https://[::1", {}, "not the address of a server"),
    ],
)
def test_what_cannot_connect_is_refused_before_the_first_call(address, access, reason, bundle):
    with pytest.raises(RemoteError, match=reason):
        irsplit.runtime.connect(address, bundle, **access)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_who_is_not_let_in_is_logged(scheme, server, mine, bundle, calls, server_log):
    access = {"token": "guess", "trusted": mine.certificate}
    assert "token is missing or wrong" in failure(
        url(server, scheme), bundle, calls["onnx"][0], **access
    )
    assert logged(server_log, "not let in")


def test_the_word_bearer_is_written_as_one_likes(server, mine):
    context = ssl.create_default_context(cafile=str(mine.certificate))
    for authorization, status in ((f"bearer  {TOKEN}", 200), (f"Basic {TOKEN}", 401), (TOKEN, 401)):
        connection = http.client.HTTPSConnection(
            "localhost", server.http_port, timeout=20, context=context
        )
        connection.request("GET", "/v2", headers={"authorization": authorization})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("www-authenticate")) == (
            status,
            None if status == 200 else "Bearer",
        )
        connection.close()


def test_updates_over_tls(server, mine, bundle, tmp_path):
    asked = {"name": "digits", "trusted": mine.certificate}
    done = irsplit.runtime.update(url(server, "https"), tmp_path / "device", token=TOKEN, **asked)
    assert (tmp_path / "device" / "device" / "model.onnx").read_bytes() == (
        bundle / "device/model.onnx"
    ).read_bytes()
    assert done.changed
    with pytest.raises(RemoteError, match="token"):
        irsplit.runtime.update(url(server, "https"), tmp_path / "other", **asked)


@pytest.mark.parametrize(
    ("certificate", "key"), [("missing", "key"), ("text", "key"), ("certificate", "text")]
)
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
def test_command_does_not_listen_to_other_machines_unprotected(
    words, mine, bundle, capsys, monkeypatch
):
    monkeypatch.chdir(mine.certificate.parent)
    Path("token").write_text(TOKEN)
    assert main(["serve", str(bundle), "--host", "0.0.0.0", *words]) == 2
    assert "allow an insecure server" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["serve", "bundle"], ["update", "bundle", "--from", "http://localhost:1"]]
)
@pytest.mark.parametrize(
    ("contents", "reason"), [(None, "No such file"), (b" \n", "no token"), (b"\xff", "no text")]
)
def test_token_files_without_a_token_are_refused(command, contents, reason, tmp_path, capsys):
    path = tmp_path / "token"
    if contents is not None:
        path.write_bytes(contents)
    assert main([*command, "--token-file", str(path)]) == 2
    assert reason in capsys.readouterr().err


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
        irsplit.runtime.connect(
            f"grpc://localhost:{server.port}", bundle, name="digits"
        ) as session,
    ):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
                connection.sendall(
                    PREFACE + request(b"/inf\xeerence.GRPCInferenceService/ServerReady")
                )
                connection.settimeout(0.5)
                with contextlib.suppress(OSError):
                    while connection.recv(4096):
                        pass
            assert session.infer(calls["onnx"][0], timeout_s=60).path == "server"


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def request(path: bytes) -> bytes:
    """An empty gRPC request in HTTP/2, its header fields as literals."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"x",
        b"te": b"trailers",
    }
    fields[b"content-type"] = b"application/grpc"
    block = b"".join(
        bytes([0, len(key)]) + key + bytes([len(value)]) + value for key, value in fields.items()
    )
    head = len(block).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1]) + block
    return head + bytes([0, 0, 5, 0, 1, 0, 0, 0, 1]) + bytes(5)
