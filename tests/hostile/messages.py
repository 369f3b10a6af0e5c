"""Requests that nobody sane sends, to both doors: too many parts, long words, odd bodies."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from hostile.target import Target
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.bounds import check_request
from irsplit.runtime.serving.protocol.http_messages import (
    HEADER_LENGTH,
    expanded,
    request_from_body,
)
from irsplit.runtime.serving.protocol.messages import InferRequest, ServiceError, frame_tensor

LIMIT = 1 << 22
"""Bytes of a body that `read` expands."""


@dataclass(frozen=True)
class Message:
    """A body at a door, "http" or "grpc"."""

    door: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict[str, str])


def many_inputs(count: int) -> Message:
    """Empty tensors: as objects they take far more than their bytes."""
    item = {"name": "frame", "datatype": "UINT8", "shape": [0], "data": []}
    return Message("http", json.dumps({"inputs": [item] * count}).encode())


def many_fields(count: int, number: int = 5) -> Message:
    """Empty inputs of two bytes each."""
    return Message("grpc", bytes([number << 3 | 2, 0]) * count)


def with_words(length: int) -> Iterator[tuple[str, InferRequest]]:
    """A request with one text of `length` characters each, and which text that is."""
    long, frame = "x" * length, frame_tensor(b"frame")
    yield (
        "sequence_id",
        InferRequest("m", "", [frame], "", {"sequence_id": long, "sequence_start": True}),
    )
    yield "id", InferRequest("m", "", [frame], long)
    yield "model", InferRequest(long, "", [frame])
    yield "version", InferRequest("m", long, [frame])
    yield "tensor", InferRequest("m", "", [frame_of(name=long)])
    yield "datatype", InferRequest("m", "", [frame_of(datatype=long)])
    yield "output", InferRequest("m", "", [frame], "", {}, (long,))
    yield "parameter", InferRequest("m", "", [frame], "", {long: True})
    yield "value", InferRequest("m", "", [frame], "", {"priority": long})


def frame_of(**changes: Any) -> Any:
    return replace(frame_tensor(b"frame"), **changes)


def mutants(seed: int, count: int) -> Iterator[Message]:
    """Bodies of both doors."""
    random = Random(seed)
    for _ in range(count):
        yield random.choice(_KINDS)(random)


def read(message: Message, _: Path) -> None:
    """What a door does with a body. Raises nothing but ServiceError, for one that is refused."""
    if message.door == "grpc":
        request = protobuf.request_from_bytes(message.body)
    else:
        body = expanded(message.headers.get("content-encoding", ""), message.body, LIMIT)
        request, _ = request_from_body("m", "", message.headers, body)
    check_request(request)


def _request(random: Random) -> dict[str, Any]:
    items = [
        {
            "name": "frame",
            "datatype": random.choice(["UINT8", "FP32", "BYTES", "BF16"]),
            "shape": [2],
            "data": [1, 2],
        }
        for _ in range(random.randrange(4))
    ]
    return {"id": "1", "inputs": items, "outputs": [{"name": "y"}], "parameters": {"timeout": 1}}


_ODD: tuple[Any, ...] = (
    None, True, -1, 1 << 70, 1e308, float("nan"), "", "x" * 300, "\ud800", [], {}, [[[]]], [None],
    {"a": {}},
)  # fmt: skip


def _odd_json(random: Random) -> Message:
    """A field or two that are something else."""
    request = _request(random)
    for _ in range(random.randrange(1, 3)):
        place: Any = random.choice([request, *request["inputs"]]) if request["inputs"] else request
        place[random.choice([*place, "parameters", "extra"])] = random.choice(_ODD)
        if not isinstance(request["inputs"], list) or not all(
            isinstance(item, dict) for item in request["inputs"]
        ):
            break
    return Message("http", json.dumps(request).encode("utf-8", "surrogatepass"))


def _torn_json(random: Random) -> Message:
    """JSON cut short, with a length that lies, or with noise in it."""
    body = bytearray(json.dumps(_request(random)).encode())
    body[random.randrange(len(body))] = random.randrange(256)
    length = random.choice([str(random.randrange(-2, 2 * len(body))), "9" * 5000, "\u00b2", ""])
    cut = random.randrange(len(body) + 1)
    return Message(
        "http", bytes(body[:cut]), {HEADER_LENGTH: length} if random.random() < 0.5 else {}
    )


def _deep_json(random: Random) -> Message:
    depth = random.choice([10, 1000, 100_000])
    return Message(
        "http",
        random.choice([b'{"inputs":', b"["]) + b"[" * depth + b"]" * random.choice([0, depth]),
    )


def _coded(random: Random) -> Message:
    coding = random.choice(["gzip", "deflate", "br", "\u00e9"])
    return Message("http", random.randbytes(random.randrange(64)), {"content-encoding": coding})


def _noise(random: Random) -> Message:
    return Message(random.choice(["http", "grpc"]), random.randbytes(random.randrange(200)))


def _odd_protobuf(random: Random) -> Message:
    """A request with bytes that were changed, cut off or put in."""
    request = InferRequest(
        "m", "1", [frame_tensor(random.randbytes(20))], "7", {"a": 1, "b": "text"}, ("y",)
    )
    body = bytearray(protobuf.request_to_message(request).SerializeToString())
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(body))
        body[at : at + random.randrange(2)] = random.randbytes(random.randrange(3))
    return Message("grpc", bytes(body[: random.randrange(len(body)) or None]))


def _typed_protobuf(random: Random) -> Message:
    """Elements in fields of their own, of the wrong kind or number."""
    message = protobuf.message("ModelInferRequest")(model_name="m")
    datatype = random.choice(["UINT8", "FP32", "BYTES", "INT64", "BOOL", "FP16", "?"])
    tensor = message.inputs.add(
        name="frame", datatype=datatype, shape=[random.randrange(-1, 1 << 62)]
    )
    tensor.contents.uint_contents.extend(
        random.randrange(1 << 32) for _ in range(random.randrange(9))
    )
    tensor.contents.bytes_contents.extend([b"\xff"] * random.randrange(2))
    return Message("grpc", message.SerializeToString())


def _many(random: Random) -> Message:
    count = random.choice([1023, 1024, 1025, 20_000])
    return random.choice(
        [many_inputs(count), many_fields(count), many_fields(count, random.randrange(1, 16))]
    )


_KINDS: tuple[Callable[[Random], Message], ...] = (
    _odd_json, _torn_json, _deep_json, _coded, _noise, _odd_protobuf, _typed_protobuf, _many,
)  # fmt: skip


TARGETS = (Target("messages: both frontends", mutants, read, refusals=(ServiceError,)),)
