"""Servers that mean harm: they change an honest server's answers, from a seed, for a bounded time.

Over HTTP an evil is a function of the honest reply's bytes, and yields what to send and how long to
pause before it. Over gRPC it is a function of the honest answer's bytes. What a server signs
itself, `misfits` has: answers that are changed before the honest server signs them.
"""

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

import grpc

from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import Code, InferResponse, ServiceError, WireTensor

BOUND_S = 20.0
"""For so long an evil server goes on; whoever is still there then has waited too long."""
_DRIP_S = 0.02

Piece = tuple[float, bytes]
Evil = Callable[[bytes, Random], Iterable[Piece]]


def parts(reply: bytes) -> tuple[bytes, bytes]:
    """Head, with the empty line, and body of a reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body


def with_length(reply: bytes, length: bytes) -> bytes:
    """The reply's head, which announces another length."""
    lines = [
        line
        for line in parts(reply)[0].split(b"\r\n")
        if not line.lower().startswith(b"content-length")
    ]
    return b"\r\n".join([lines[0], b"content-length: " + length, *lines[1:]])


def dripped(data: bytes) -> Iterator[Piece]:
    """Data byte by byte, and after it for ever the last one."""
    for byte in itertools.chain(data, itertools.repeat(data[-1])):
        yield _DRIP_S, bytes([byte])


def drip_everything(reply: bytes, _: Random) -> Iterator[Piece]:
    return dripped(reply)


def drip_headers(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, reply.partition(b"\r\n")[0] + b"\r\n"
    yield from dripped(b"x: " + b"y" * 10)


def drip_body(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, with_length(reply, b"20000")
    yield from dripped(b"{")


def drip_chunks(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    while True:
        yield _DRIP_S, b"1\r\n{\r\n"


def drip_continue(reply: bytes, _: Random) -> Iterator[Piece]:
    while True:
        yield _DRIP_S, b"HTTP/1.1 100 Continue\r\n\r\n"


def flood_continue(reply: bytes, _: Random) -> Iterator[Piece]:
    while True:
        yield 0, b"HTTP/1.1 100 Continue\r\n\r\n" * 100


def flood_trailers(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield 0, b"x: y\r\n" * 1000


def flood_body(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield 0, b" " * (1 << 16)


def flood_chunks(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    while True:
        yield 0, b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"


def huge_chunk(reply: bytes, _: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffff\r\n{"


def huge_length(reply: bytes, random: Random) -> Iterator[Piece]:
    yield 0, with_length(reply, random.choice([b"8000000000", b"1" + b"0" * 18, b"9" * 4000]))
    yield from dripped(b"{")


def huge_body(reply: bytes, _: Random) -> Iterator[Piece]:
    """A right answer, and spaces: valid JSON of a length that is told."""
    body = parts(reply)[1]
    yield 0, with_length(reply, b"%d" % (len(body) + (3 << 20))) + body
    yield 0, b" " * (3 << 20)


def junk_length(reply: bytes, random: Random) -> Iterator[Piece]:
    yield (
        0,
        with_length(reply, random.choice([b"-1", b"8e9", b"", b"0x10", b"1, 2", "²".encode()]))
        + b"{",
    )


def header_bomb(reply: bytes, random: Random) -> Iterator[Piece]:
    yield 0, b"HTTP/1.1 200 OK\r\n"
    yield 0, random.choice([b"x: y\r\n" * 1000, b"x: " + b"y" * (1 << 20) + b"\r\n"]) + b"\r\n"


def says_nothing(reply: bytes, _: Random) -> Iterator[Piece]:
    while True:
        yield _DRIP_S, b""


def hangs_up(reply: bytes, random: Random) -> Iterator[Piece]:
    yield 0, reply[: random.randrange(len(reply))]


def answers_twice(reply: bytes, _: Random) -> Iterator[Piece]:
    """The second answer waits for the next request on this connection."""
    yield 0, reply + reply
    yield from says_nothing(reply, Random())


def other_protocol(reply: bytes, random: Random) -> Iterator[Piece]:
    choices = [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        random.randbytes(500),
        b"\r\n" * 500,
    ]
    yield (
        0,
        random.choice(
            [
                *choices,
                b"HTTP/9.9 200 OK\r\n\r\n",
                b"HTTP/1.1 -200 OK\r\n\r\n",
                b"HTTP/1.1 \xff\r\n\r\n",
            ]
        ),
    )


def other_status(reply: bytes, random: Random) -> Iterator[Piece]:
    """Refusals of every kind, for a terminal to choke on."""
    body = b'{"error": "\\u001b[2J\\u001b]0;owned\\u0007 \\ud800 \\n' + b"A" * 5000 + b'"}'
    status = random.choice(
        [101, 204, 301, 400, 401, 404, 409, 410, 413, 418, 429, 500, 503, 504, 599]
    )
    yield 0, f"HTTP/1.1 {status} \x1b[31mred\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def flipped_bits(reply: bytes, random: Random) -> Iterator[Piece]:
    data = bytearray(reply)
    for _ in range(random.choice([1, 1, 2, 8])):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    yield 0, bytes(data)


def strange_json(reply: bytes, random: Random) -> Iterator[Piece]:
    """Bodies whose JSON is right and whose contents are not those of an answer."""
    tensor = b'{"name":"logits","datatype":"FP32","shape":[1,10],'
    body = random.choice(
        [
            b"[" * 100_000,
            b"[]",
            b"{}",
            b"null",
            b'{"model_name":"x","outputs":[{}]}',
            b'{"model_name":"x","outputs":{"a":1}}',
            b'{"model_name":"x","parameters":[1]}',
            b'{"model_name":"x","parameters":{"service_ns":1e999}}',
            b'{"model_name":"x","parameters":{"a":' + b"9" * 5000 + b"}}",
            b'{"model_name":"x","outputs":['
            + tensor
            + b'"data":[1e999,NaN,true,null,"x",[],{},1,1,1]}]}',
            b'{"model_name":"x","outputs":[' + tensor + b'"parameters":{"binary_data_size":1e9}}]}',
            b'{"model_name":"x","outputs":'
            b'[{"name":"logits","datatype":"FP32","shape":[99999999999,0],"data":[]}]}',
            b'{"model_name":"\xff\xfe"}',
        ]
    )
    yield 0, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


HTTP_EVILS: dict[str, Evil] = {
    evil.__name__: evil
    for evil in (
        drip_everything, drip_headers, drip_body, drip_chunks, drip_continue, flood_continue,
        flood_trailers, flood_body, flood_chunks, huge_chunk, huge_length, junk_length,
        header_bomb, says_nothing, hangs_up, answers_twice,
        other_protocol, other_status, flipped_bits, strange_json,
    )
}  # fmt: skip


class EvilHttpServer:
    """Passes requests to an honest server at `target`; sends what `evil` makes of replies."""

    def __init__(self, target: int, evil: Evil, seed: int = 0, bound_s: float = BOUND_S) -> None:
        self.outlasted = False
        """Whether somebody was still there at the end."""
        self.asked = 0
        self._target = target
        self._evil = evil
        self._bound_s = bound_s
        self._random = Random(seed)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._connections = list[socket.socket]()
        self.port: int = self._socket.getsockname()[1]

    @contextlib.contextmanager
    def running(self) -> Generator["EvilHttpServer"]:
        threads = [threading.Thread(target=self._accept)]
        threads[0].start()
        self._threads = threads
        try:
            yield self
        finally:
            self._over.set()
            for each in (self._socket, *self._connections):
                with contextlib.suppress(OSError):  # closed already
                    each.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            for thread in threads:
                thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(self._bound_s)
            while not self._over.is_set() and (request := received(connection)):
                self.asked += 1
                self._send(connection, self._evil(self._honest(request), self._random))

    def _honest(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._target), 10) as connection:
            connection.sendall(request)
            return received(connection)

    def _send(self, connection: socket.socket, pieces: Iterable[Piece]) -> None:
        ends = time.monotonic() + self._bound_s
        try:
            for pause_s, data in pieces:
                self._over.wait(pause_s)
                if self._over.is_set():
                    return
                if time.monotonic() > ends:
                    self.outlasted = True
                    return
                connection.sendall(data)
                if not data and gone(connection):
                    return
        finally:
            connection.shutdown(socket.SHUT_WR)


def gone(connection: socket.socket) -> bool:
    """Whether the peer has closed its end."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def received(connection: socket.socket) -> bytes:
    """A request or reply of an announced length; b"" at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(1 << 16)
        if not part:
            return b""
        data += part
    head = parts(data)[0]
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )
    while len(data) < len(head) + length:
        part = connection.recv(1 << 16)
        if not part:
            return b""
        data += part
    return data


def truncated(answer: bytes, random: Random) -> bytes:
    return answer[: random.randrange(len(answer))]


def flipped(answer: bytes, random: Random) -> bytes:
    data = bytearray(answer)
    for _ in range(random.choice([1, 1, 2, 8])):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def noise(answer: bytes, random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 500))


def nothing(answer: bytes, random: Random) -> bytes:
    return b""


def huge(answer: bytes, random: Random) -> bytes:
    """More than any answer of the bundle has; an unknown field is no reason to refuse it."""
    return answer + b"\xfa\x7f" + b"\x80\x80\xc0\x01" + bytes(3 << 20)


def no_message(answer: bytes, random: Random) -> None:
    """A call that ends well without an answer, as damaged packets may make of one."""


GRPC_EVILS: dict[str, Callable[[bytes, Random], bytes | None]] = {
    evil.__name__: evil for evil in (truncated, flipped, noise, nothing, huge, no_message)
}


@contextlib.contextmanager
def evil_grpc_server(
    target: int, evil: Callable[[bytes, Random], bytes | None], seed: int = 0
) -> Generator[int]:
    """The port of a server that passes calls on, and sends what `evil` makes of the answers."""
    random = Random(seed)
    name = f"/{protobuf.SERVICE}/ModelInfer"
    with grpc.insecure_channel(f"127.0.0.1:{target}") as channel:
        honest = channel.unary_unary(name)

        def answer(request: bytes, context: Any) -> Iterator[bytes]:
            message = evil(honest(request, timeout=10), random)
            if message is not None:
                yield message

        server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
        handlers = {"ModelInfer": grpc.unary_stream_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(protobuf.SERVICE, handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()


Change = Callable[[InferResponse], InferResponse]


def changed(**fields: Any) -> Change:
    """Of the first output of an answer."""

    def change(response: InferResponse) -> InferResponse:
        return replace(
            response, outputs=[replace(response.outputs[0], **fields), *response.outputs[1:]]
        )

    return change


def told(**parameters: Any) -> Change:
    return lambda response: replace(response, parameters={**response.parameters, **parameters})


def refused(code: Code) -> Change:
    def change(response: InferResponse) -> InferResponse:
        raise ServiceError(code, "\x1b[2Jno\r\n" + "!" * 2000)

    return change


FRAME = WireTensor("frame", "UINT8", (4,), b"IRSF")
ROW = struct.pack("<10f", *range(10))

MISFITS: dict[str, Change] = {
    "no outputs": lambda response: replace(response, outputs=[]),
    "twice": lambda response: replace(response, outputs=[*response.outputs] * 2),
    "an output more": lambda response: replace(
        response, outputs=[*response.outputs, WireTensor("x", "INT8", (0,), b"")]
    ),
    "a frame more": lambda response: replace(response, outputs=[*response.outputs, FRAME]),
    "a frame instead": lambda response: replace(response, outputs=[FRAME]),
    "another name": changed(name="Logits"),
    "a name for a terminal": changed(name="\x1b[31m\x07" + "n" * 100_000),
    "a row more": changed(shape=(2, 10), data=2 * ROW),
    "no row": changed(shape=(0, 10), data=b""),
    "a dimension less": changed(shape=(10,), data=ROW),
    "dimensions swapped": changed(shape=(10, 1), data=ROW),
    "a huge shape": changed(shape=(1 << 40, 1 << 40)),
    "too few bytes": changed(data=ROW[:-4]),
    "another type of the same size": changed(datatype="INT32", data=ROW),
    "another type": changed(datatype="FP64", data=2 * ROW),
    "an unknown type": changed(datatype="FP128", data=ROW),
    "strings": changed(datatype="BYTES", data=10 * b"\x01\0\0\0a"),
    "session lost": refused(Code.SESSION_LOST),
    "not found": refused(Code.NOT_FOUND),
    "deadline": refused(Code.DEADLINE),
    "internal": refused(Code.INTERNAL),
    "overloaded": refused(Code.OVERLOADED),
}
"""Answers that a server signs, and that do not fit: by what is wrong with them."""

STRANGE_TIMES: dict[str, Change] = {
    "words": told(segment_ns="soon"),
    "nobody's segments": told(segment_ns="7:1,99:2"),
    "numbers of 5 000 digits": told(segment_ns="1:" + "9" * 5000),
    "numbers": told(segment_ns=7),
    "nothing": told(segment_ns=""),
    "more than the whole": told(segment_ns="1:999999999999999999"),
    "negative": told(segment_ns="1:-5"),
}
"""Answers that are right, with times that are not."""
