"""Update servers that mean no good: answers are bytes of our choosing, checksums are right.

`Evil` answers each request, one a connection, with the next of its answers, and with the last one
from then on.
"""

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random

from hostile.damage import damaged
from hostile.patches import ATTACKS, scene
from hostile.target import Target
from irsplit.compilation.delta import write_delta
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.serving.client import update as update_module
from irsplit.runtime.serving.protocol.checksum import PIECE_CHECKSUM, piece_checksum
from test_delta import contents

Answers = tuple[bytes, ...]
PIECE = update_module._PIECE_BYTES
_REQUEST_LIMIT = 1 << 16


class Evil:
    """A server on a port of its own."""

    def __init__(self, answers: Answers) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        request = b""
        while b"\r\n\r\n" not in request and len(request) < _REQUEST_LIMIT:
            part = connection.recv(4096)
            if not part:
                return
            request += part
        answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
        self.requests.append(request)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # until the client goes: a reset would take the answer from it
            pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def evil(*answers: bytes) -> Generator[Evil]:
    server = Evil(answers)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)


def answer(
    status: int | str,
    headers: Mapping[str, str | bytes],
    body: bytes = b"",
    *,
    length: int | None = None,
) -> bytes:
    """An HTTP answer; `length` is the size that it announces."""
    lines = [f"HTTP/1.1 {status} X".encode(), b"connection: close"]
    lines.append(f"content-length: {len(body) if length is None else length}".encode())
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def piece(
    data: bytes,
    place: str | None,
    *,
    tag: str | None = '"a"',
    checksum: str | None = None,
    length: int | None = None,
) -> bytes:
    """A piece of a patch that says where it belongs, with the right checksum by default."""
    headers = {
        name: value
        for name, value in (("content-range", place), ("etag", tag))
        if value is not None
    }
    headers[PIECE_CHECKSUM] = piece_checksum(headers, data) if checksum is None else checksum
    return answer(206, headers, data, length=length)


def pieces(patch: bytes, tag: str = '"a"') -> Answers:
    """What an honest server answers when it is asked for a patch."""
    parts = [(start, patch[start : start + PIECE]) for start in range(0, len(patch), PIECE)]
    return tuple(
        piece(part, f"bytes {start}-{start + len(part) - 1}/{len(patch)}", tag=tag)
        for start, part in parts
    )


@cache
def patch_for_another_build() -> bytes:
    """From the new build to the old one."""
    path = scene().old.parent / "back"
    write_delta(scene().new, scene().old, path)
    return path.read_bytes()


def _attack(name: str) -> Callable[[], Answers]:
    return lambda: pieces(ATTACKS[name](scene().patch).together())


def _one(*arguments: object, **named: object) -> Callable[[], Answers]:
    return lambda: (piece(*arguments, **named),)  # pyright: ignore[reportArgumentType]


def _other_tags() -> Answers:
    """Half of a patch, then the beginning of the other half of another patch, and so on."""
    return tuple(
        piece(bytes(10), f"bytes {10 * (number % 2)}-{10 * (number % 2) + 9}/20", tag=f'"{number}"')
        for number in range(100)
    )


def _shrinking() -> Answers:
    """The second piece is of a shorter patch than the first: refused, again and again."""
    refused = answer(400, {}, b'{"error": "the patch has 5 bytes, none from 10 to 19"}')
    return tuple(
        refused if number % 2 else piece(bytes(10), "bytes 0-9/20") for number in range(100)
    )


def _chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 206 X\r\ntransfer-encoding: chunked\r\n\r\n" + body


SERVERS: dict[str, Callable[[], Answers]] = {
    "no content-range": lambda: (
        answer(206, {"etag": "a", PIECE_CHECKSUM: piece_checksum({"etag": "a"}, b"x")}, b"x"),
    ),
    "junk as content-range": _one(b"x", "bytes here-there/everywhere"),
    "a content-range in other digits": _one(
        b"x", "bytes \u0660-\u0660/\u0661".encode().decode("latin-1")
    ),
    "a content-range of 2^200": _one(b"x", f"bytes 0-0/{1 << 200}"),
    "a content-range of a million digits": _one(b"x", f"bytes 0-0/{'9' * 60_000}"),
    "a patch of 900 GB": _one(bytes(PIECE), f"bytes 0-{PIECE - 1}/900000000000"),
    "a negative content-range": _one(b"x", "bytes -1-0/1"),
    "a content-range that is behind": _one(b"x", "bytes 5-5/9"),
    "a content-range that is backwards": _one(b"x", "bytes 0-5/3"),
    "a content-range that is too long": _one(b"x", "bytes 0-8/9"),
    "a content-range with an escape sequence": _one(b"x", "\x1b[2Jbytes"),
    "an empty piece": _one(b"", "bytes 0-0/9"),
    "an empty piece of nothing": _one(b"", "bytes 0--1/0"),
    "an empty piece in the middle": lambda: (
        piece(b"IRSP", "bytes 0-3/90"),
        piece(b"", "bytes 4-3/90"),
    ),
    "a piece larger than asked for": _one(bytes(PIECE + 1), f"bytes 0-{PIECE}/{2 * PIECE}"),
    "the first piece again": lambda: (piece(bytes(9), "bytes 0-8/18"),),
    "another size each time": lambda: tuple(
        piece(b"x", f"bytes {n % 2}-{n % 2}/{n + 9}") for n in range(99)
    ),
    "another tag each time": _other_tags,
    "a patch that becomes shorter": _shrinking,
    "no tag": _one(b"x", "bytes 0-0/1", tag=None),
    "an empty tag": _one(b"x", "bytes 0-0/1", tag=""),
    "a tag of 60 000 signs": _one(b"x", "bytes 0-0/1", tag="x" * 60_000),
    "a wrong checksum": _one(b"x", "bytes 0-0/1", checksum="00000000"),
    "a body of 8 GB": _one(bytes(2 << 20), "bytes 0-8/9", length=8_000_000_000),
    "a refusal of 8 GB": lambda: (answer(404, {}, bytes(2 << 20), length=8_000_000_000),),
    "a length that is none": lambda: (b"HTTP/1.1 206 X\r\ncontent-length: many\r\n\r\n",),
    "a chunk that is none": lambda: (_chunked(b"zz\r\n"),),
    "a chunk of 2^200 bytes": lambda: (_chunked(b"1" + b"0" * 50 + b"\r\n"),),
    "101 headers": lambda: (answer(206, {f"x-{number}": "x" for number in range(101)}),),
    "a header of 1 MB": lambda: (answer(206, {"x": "x" * (1 << 20)}),),
    "a header that is no text": lambda: (answer(206, {"content-range": bytes(range(128, 256))}),),
    "a status that is none": lambda: (b"HTTP/1.1 abc X\r\n\r\n",),
    "another protocol": lambda: (b"220 mail.example ESMTP\r\n",),
    "nothing": lambda: (b"",),
    "another place": lambda: (answer(302, {"location": "file:///etc/passwd"}),),
    "all of a file": lambda: (answer(200, {}, b"<html>\x1b[2J</html>"),),
    "a refusal with escape sequences": lambda: (
        answer(404, {}, b'{"error": "\\u001b]0;x\\u0007\\nerror: all is well"}'),
    ),
    "a refusal of 10 000 levels": lambda: (answer(404, {}, b"[" * 10_000),),
    "busy with escape sequences": lambda: (answer(503, {}, b'{"error": "\\u001b[2J"}'),),
    "a patch that is none": lambda: pieces(b"PATCH" * 100),
    "a patch for another build": lambda: pieces(patch_for_another_build()),
    "a patch to format version 99": _attack("format version 99"),
    "a patch without segments": _attack("no segments"),
    "a patch that copies a device": _attack("as an endless device"),
    "a patch that copies a file": _attack("as an absolute path"),
    "a patch that announces 2^45 bytes": _attack("a block that announces 2^45 bytes"),
}
"""By what they do, the answers with which a device is not updated."""


def mutants(seed: int, count: int) -> Iterator[Answers]:
    """Answers of servers, one of `SERVERS` or an honest one, some damaged, doubled or left out."""
    random = Random(seed)
    honest = pieces(scene().patch.together())
    for _ in range(count):
        answers = list(
            SERVERS[random.choice(list(SERVERS))]() if random.random() < 0.5 else honest
        )[:8]
        for _ in range(random.randint(0, 2)):
            position = random.randrange(len(answers))
            head, _, body = answers[position].partition(b"\r\n\r\n")
            answers[position] = (
                damaged(head, random) + b"\r\n\r\n" + (body if random.random() < 0.8 else body[:9])
            )
        if random.random() < 0.3:
            answers.insert(random.randrange(len(answers) + 1), random.choice(answers))
        yield tuple(answers)


def update_from(answers: Answers, folder: Path) -> int:
    """Update the old build in a folder from such a server, and how often that was asked: the old
    build is there then, or one with all its digests."""
    bundle = folder / "bundle"
    shutil.copytree(scene().old, bundle)
    with evil(*answers) as server, own_clock():
        try:
            update_module.update(server.url, bundle)
        except Exception:
            assert contents(bundle) == contents(scene().old), "the old build is gone"
            raise
        else:
            Manifest.load(bundle).check_files()
        finally:
            assert [path.name for path in folder.iterdir()] == ["bundle"], (
                "something is left behind"
            )
        return len(server.requests)


class Clock:
    """Time that passes where it is slept, and nowhere else."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)


@contextmanager
def own_clock() -> Generator[Clock]:
    """Updates do not wait between attempts, and their time is up as if they had."""
    clock, real = Clock(), update_module.time
    update_module.time = clock
    try:
        yield clock
    finally:
        update_module.time = real


TARGETS = (Target("servers: update", mutants, update_from),)
